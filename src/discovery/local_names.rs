//! Answers names that need no DNS: the names in the hosts file (hosts(5)), and the names that RFC 6761, section 6.3,
//! reserves for the local host.
//!
//! The hosts file comes first, as in the C library's default order (`hosts: files dns`). nsswitch.conf is not read. A
//! name in the file matches as it is written, without the search list and without regard to case. Loopback addresses
//! are accepted here, unlike in DNS responses: the file belongs to this machine.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::hosts_file::HostsFile;
use crate::config::ServiceName;

/// The local addresses of one name.
#[derive(Debug)]
pub(super) struct LocalNames {
    name: ServiceName,
    file: Arc<HostsFile>,
}

impl LocalNames {
    pub(super) fn new(name: ServiceName, file: Arc<HostsFile>) -> Self {
        Self { name, file }
    }

    /// Returns the addresses of the name, all of the same server, in the order in which they are tried. Returns none if
    /// DNS must be queried.
    pub(super) async fn addresses(&self) -> Vec<IpAddr> {
        let mut found = self.file.addresses(&self.name).await;
        if found.is_empty() && is_localhost(&self.name) {
            found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        found
    }
}

/// Returns true for `localhost` and every name that ends in `.localhost`.
pub(super) fn is_localhost(name: &ServiceName) -> bool {
    name.labels().last() == Some("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_end_in_localhost_are_local() {
        for (name, local) in [("localhost", true), ("db.LocalHost.", true), ("localhost.db", false), ("db", false)] {
            assert_eq!(is_localhost(&name.parse().unwrap()), local, "{name}");
        }
    }
}
