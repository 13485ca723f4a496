//! Why a dial failed.

use std::{
    error::{self, Error as _},
    fmt,
};

use tokio_postgres::error::SqlState;

use super::{
    classify::{Class, class, classify},
    credentials::{CredentialsError, Login, Source},
    tls::{self, TlsFailure},
};
use crate::error::{BoxError, Phase};

/// A dial that failed: where, and of what.
#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) phase: Phase,
    pub(crate) class: Class,
    /// Nothing was heard until the deadline.
    pub(crate) silent: bool,
    /// What the trouble was: TLS, or the lack of it.
    pub(super) encryption: bool,
    /// The server did not take the user, or the password (28P01; 28000 where it asks another system).
    pub(super) unwelcome: bool,
    pub(super) cause: BoxError,
}

/// A dial that failed the second way too.
#[derive(Debug)]
struct BothWays {
    first: String,
    second: BoxError,
}

impl DialError {
    pub(super) fn new(phase: Phase, class: Class, cause: BoxError) -> Self {
        Self { phase, class, silent: false, encryption: false, unwelcome: false, cause }
    }

    pub(super) fn startup(error: tokio_postgres::Error) -> Self {
        if let Some(alert) = tls::told(&error) {
            return Self { encryption: true, ..Self::new(Phase::Tls, Class::Tls, alert.into()) };
        }
        // What the server refuses during start-up was never open, hence never "lost".
        let class = match error.code() {
            Some(code) => match class(code.code(), true) {
                Class::Connection => Class::NotReady,
                class => class,
            },
            None => match classify(&error).class {
                Class::Connection => Class::NotReady,
                // The driver tells its kinds by their texts alone. These are its own refusals: of a server that does
                // not prove who it is, or wants what we have not got.
                _ if matches!(error.to_string().as_str(), "authentication error" | "invalid configuration") => {
                    Class::Access
                }
                class => class,
            },
        };
        let unwelcome = matches!(error.code().map(SqlState::code), Some("28P01" | "28000"));
        Self { unwelcome, ..Self::new(Phase::Startup, class, error.into()) }
    }

    /// Whether the server lets nobody in this way: PostgreSQL's word for "no entry in `pg_hba.conf`".
    pub(super) fn refused(&self) -> bool {
        let error = self.cause.downcast_ref::<tokio_postgres::Error>();
        error.and_then(tokio_postgres::Error::code) == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    }

    /// The same error, with what had been tried before it.
    pub(super) fn after(self, first: Self) -> Self {
        let cause = BothWays { first: first.chain(), second: self.cause };
        Self { cause: cause.into(), ..self }
    }

    /// Everything in one line.
    pub(super) fn chain(&self) -> String {
        format!("{self}: {}", crate::event::chain(&self.cause))
    }

    /// The same, with what the driver's error does not say: the SQLSTATE, where a refused password came from, and where
    /// one that is missing was looked for.
    pub(super) fn explained(mut self, source: &Source, login: &Login, port: u16) -> Self {
        let Some(error) = self.cause.downcast_ref::<tokio_postgres::Error>() else { return self };
        if let Some(code) = error.code() {
            let origin = source.origin().filter(|_| self.unwelcome);
            let with = origin.map(|origin| format!(", with {origin}")).unwrap_or_default();
            self.cause = Box::new(Refused { text: format!("SQLSTATE {}{with}", code.code()), source: self.cause });
        } else if login.password.is_none() && error.source().is_some_and(|cause| cause.to_string() == MISSING) {
            let missing: CredentialsError = source.missing(port);
            self.class = Class::Access;
            self.cause = missing.into();
        }
        self
    }

    /// The cause by itself.
    pub(crate) fn into_cause(self) -> BoxError {
        self.cause
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed in {}", self.phase)
    }
}

impl error::Error for DialError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.cause)
    }
}

impl From<TlsFailure> for DialError {
    fn from(failure: TlsFailure) -> Self {
        let TlsFailure { class, in_handshake, cause } = failure;
        Self { encryption: in_handshake, ..Self::new(Phase::Tls, class, cause) }
    }
}

impl fmt::Display for BothWays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after a try that {}", self.second, self.first)
    }
}

impl error::Error for BothWays {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.second.source()
    }
}

/// What the driver says where the server asks for a password and it was given none.
const MISSING: &str = "password missing";

/// The server ended the start of a session.
#[derive(Debug)]
struct Refused {
    text: String,
    source: BoxError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl error::Error for Refused {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.source)
    }
}
