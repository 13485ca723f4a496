//! The error types of this crate.
//!
//! An [`Error`] has a [`Kind`], and an [`Attempt`] for each Pod that was tried. An attempt contains the [`Phase`] and
//! the cause of the failure. [`Applied`] shows whether a retry is safe. [`ConfigError`] reports an invalid parameter,
//! and [`TlsError`] a failed TLS handshake.

mod applied;
mod attempt;
mod chain;
mod config;
mod kind;
mod phase;
mod sqlstate;
mod tls;

use std::{error, fmt, time::Duration};

pub use applied::Applied;
pub use attempt::Attempt;
pub(crate) use chain::Chain;
pub use config::ConfigError;
pub use kind::Kind;
pub use phase::Phase;
pub use tls::{TlsError, TlsReason};

/// A boxed error of any type.
pub type BoxError = Box<dyn error::Error + Send + Sync>;

/// The error type of the pool, one machine word in size.
///
/// [`kind`](Error::kind) returns the category, and [`source`](error::Error::source) the cause.
/// [`attempts`](Error::attempts) lists each Pod that was tried, with the reason why the attempt failed.
/// [`applied`](Error::applied) shows whether the database may have changed. The error's text does not repeat the text
/// of its source.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    applied: Applied,
    message: String,
    attempts: Vec<Attempt>,
    elapsed: Option<Duration>,
    source: Option<BoxError>,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            applied: Applied::No,
            message: message.into(),
            attempts: Vec::new(),
            elapsed: None,
            source: None,
        }))
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn with_attempts(mut self, attempts: Vec<Attempt>) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// Prepends the attempts that the same call made before those of this error.
    pub(crate) fn with_earlier(mut self, mut earlier: Vec<Attempt>) -> Self {
        earlier.append(&mut self.0.attempts);
        self.0.attempts = earlier;
        self
    }

    pub(crate) fn with_elapsed(mut self, elapsed: Duration) -> Self {
        self.0.elapsed = Some(elapsed);
        self
    }

    pub(crate) fn with_applied(mut self, applied: Applied) -> Self {
        self.0.applied = applied;
        self
    }

    /// Returns the category of this error.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns whether the database may have changed. [`Applied::No`] if the call failed before any SQL was sent.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.0.applied
    }

    /// Returns each Pod that was tried, in order, with the phase and the cause of the failure. May be empty.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }

    /// Returns the time from the start of the call to the failure, if it was measured.
    #[must_use]
    pub fn elapsed(&self) -> Option<Duration> {
        self.0.elapsed
    }

    /// Returns the cause as type `E`, such as the error type that a closure passed to
    /// [`Pool::retry`](crate::Pool::retry) returns.
    ///
    /// # Errors
    ///
    /// Returns this error unchanged if its cause has another type.
    pub fn downcast<E: error::Error + 'static>(mut self) -> Result<E, Self> {
        match self.0.source.take() {
            Some(source) => match source.downcast::<E>() {
                Ok(cause) => Ok(*cause),
                Err(source) => Err(self.with_source(source)),
            },
            None => Err(self),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(elapsed) = self.0.elapsed {
            write!(f, " after {elapsed:.1?}")?;
        }
        for (i, attempt) in self.0.attempts.iter().enumerate() {
            write!(f, "{} {attempt}", if i == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, applied, message, attempts, elapsed, source } = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", kind).field("message", message).field("applied", applied);
        if let Some(elapsed) = elapsed {
            out.field("elapsed", elapsed);
        }
        if !attempts.is_empty() {
            out.field("attempts", attempts);
        }
        if let Some(source) = source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(Kind::Config, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

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
}
