use std::{error::Error as _, time::Duration};

use super::*;
use crate::address::Address;

#[test]
fn fits_in_one_machine_word() {
    assert_eq!(size_of::<Error>(), size_of::<usize>());
    assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
}

#[test]
fn names_every_pod_and_cause_without_repeating_the_source() {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let at = |address: &str| Address::Tcp(address.parse().unwrap());
    let attempts = vec![
        Attempt::new(Some("postgresql-sfs-0".into()), at("10.0.0.1:5432"), Phase::Tcp, refused),
        Attempt::busy(None, at("10.0.0.2:5432"), 8, 8),
    ];
    let error = Error::new(Kind::PoolTimeout, "no connection became free")
        .with_attempts(attempts)
        .with_elapsed(Duration::from_secs(5))
        .with_source(std::fmt::Error);
    assert_eq!(
        error.to_string(),
        "no connection became free after 5.0s: postgresql-sfs-0 (10.0.0.1:5432) failed in tcp: connection \
         refused; 10.0.0.2:5432 has 8 of 8 connections in use"
    );
    assert!(!error.to_string().contains(&error.source().unwrap().to_string()));
}

#[test]
fn downcast_returns_the_cause_only_as_its_own_type() {
    let error = Error::new(Kind::Query, "failed").with_source(std::fmt::Error);
    let error = error.downcast::<std::io::Error>().unwrap_err();
    assert_eq!(error.downcast::<std::fmt::Error>().unwrap(), std::fmt::Error);
}
