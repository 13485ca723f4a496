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
#[cfg(test)]
mod tests;
mod tls;

use std::{error, fmt, sync::Arc, time::Duration};

pub use applied::Applied;
pub use attempt::Attempt;
pub(crate) use chain::Chain;
pub use config::ConfigError;
pub use kind::Kind;
pub use phase::Phase;
pub use tls::{TlsError, TlsReason};

use crate::endpoint::Endpoint;

/// A boxed error of any type.
pub type BoxError = Box<dyn error::Error + Send + Sync>;

/// The error type of the pool, one machine word in size.
///
/// [`kind`](Error::kind) returns the category, and [`source`](error::Error::source) the cause.
/// [`attempts`](Error::attempts) lists each Pod that was tried, with the reason why the attempt failed.
/// [`applied`](Error::applied) shows whether the database may have changed.
///
/// Formatted with `{}`, the error is one line: what failed, the time it took, and each failed attempt. If the server
/// has sent an error, the line ends with the server's message and SQLSTATE. Other causes are not part of it. Formatted
/// with `{:#}`, the error is followed by its source and all further causes, which include the server's `DETAIL` and
/// `HINT` on lines of their own. A server's message can contain data, such as the values of the row that it rejected.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    applied: Applied,
    message: String,
    attempts: Vec<Attempt>,
    elapsed: Option<Duration>,
    /// The Pod on which the work failed.
    endpoint: Option<Endpoint>,
    pool: Option<Arc<str>>,
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
            endpoint: None,
            pool: None,
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

    /// Sets the Pod on which the work failed. The message names it too.
    pub(crate) fn with_endpoint(mut self, endpoint: &Endpoint) -> Self {
        self.0.endpoint = Some(endpoint.clone());
        self
    }

    pub(crate) fn with_applied(mut self, applied: Applied) -> Self {
        self.0.applied = applied;
        self
    }

    /// Records the name of the pool.
    pub(crate) fn of_pool(mut self, name: &Arc<str>) -> Self {
        self.0.pool = Some(name.clone());
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

    /// Returns what failed, without the time, the attempts and the cause. It contains no text from a server.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the Pod on which the work failed. `None` if the call failed before it began any work; the Pods that a
    /// checkout has tried are in [`attempts`](Self::attempts).
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.0.endpoint.as_ref()
    }

    /// Returns the [name](crate::Pool::name) of the pool whose call failed. `None` if no pool was built.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        self.0.pool.as_deref()
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
        let Some(source) = &self.0.source else { return Ok(()) };
        let before = if self.0.attempts.is_empty() { ":" } else { "; last failure:" };
        if f.alternate() {
            return write!(f, "{before} {}", Chain(&**source));
        }
        match sqlstate::server_error(&**source) {
            Some(error) => write!(f, "{before} {} (SQLSTATE {})", error.message(), error.code().code()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, applied, message, attempts, elapsed, endpoint, pool, source } = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", kind).field("message", message).field("applied", applied);
        if let Some(elapsed) = elapsed {
            out.field("elapsed", elapsed);
        }
        if let Some(endpoint) = endpoint {
            out.field("endpoint", endpoint);
        }
        if let Some(pool) = pool {
            out.field("pool", pool);
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
