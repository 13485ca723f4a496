//! Defines the error of a failed dial: the phase in which the dial failed, the class of the error, and a cause with the
//! SQLSTATE and the source of the credentials.

use std::{
    error::{self, Error as _},
    fmt, io,
    net::SocketAddr,
};

use tokio_postgres::error::SqlState;

use super::{
    auth::AuthError,
    classify::{Class, class, classify},
    credentials::{CredentialsError, Login, Source},
    message_limits::Violation,
    tls::{self, TlsFailure},
};
use crate::{
    endpoint::Endpoint,
    error::{BoxError, Chain, Phase, TlsError, TlsReason},
};

/// The error of a failed dial.
#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) phase: Phase,
    pub(crate) class: Class,
    /// True if the dial timed out.
    pub(crate) timed_out: bool,
    /// True if the dial timed out before any byte was received.
    pub(crate) unresponsive: bool,
    /// The address that was connected, if the dial failed after that.
    pub(super) address: Option<SocketAddr>,
    /// True if the dial may succeed in the other TLS mode: with TLS if this attempt used plain text, or in plain text
    /// if this attempt used TLS.
    pub(super) try_other_tls_mode: bool,
    /// True if the server rejected the user or the password (28P01, or 28000 for external authentication methods).
    pub(super) login_rejected: bool,
    pub(super) cause: BoxError,
}

/// The cause of a dial that failed in both TLS modes.
#[derive(Debug)]
struct BothTlsModes {
    first: String,
    second: BoxError,
}

impl DialError {
    pub(super) fn new(phase: Phase, class: Class, cause: BoxError) -> Self {
        Self {
            phase,
            class,
            timed_out: false,
            unresponsive: false,
            address: None,
            try_other_tls_mode: false,
            login_rejected: false,
            cause,
        }
    }

    /// Creates the error of a dial whose startup failed with an error from tokio-postgres.
    pub(super) fn startup(error: tokio_postgres::Error) -> Self {
        if let Some(alert) = tls::find_tls_error(&error) {
            return Self { try_other_tls_mode: true, ..Self::new(Phase::Tls, Class::Tls, alert.into()) };
        }
        if let Some(refusal) = refused_request(&error) {
            return Self::new(Phase::Startup, Class::Access, refusal.into());
        }
        // The class `Connection` means that an open connection was lost. A connection that ends during startup was
        // never open.
        let class = match error.code() {
            Some(code) => match class(code.code(), true) {
                Class::Connection => Class::NotReady,
                class => class,
            },
            None => match classify(&error).class {
                Class::Connection => Class::NotReady,
                // Errors that tokio-postgres itself generates can be distinguished only by their texts. The first text
                // means that the server failed SCRAM's mutual authentication, the second that the server requires a
                // setting that is not configured.
                _ if matches!(error.to_string().as_str(), "authentication error" | "invalid configuration") => {
                    Class::Access
                }
                class => class,
            },
        };
        let login_rejected = matches!(error.code().map(SqlState::code), Some("28P01" | "28000"));
        Self { login_rejected, ..Self::new(Phase::Startup, class, error.into()) }
    }

    /// Returns true if `pg_hba.conf` may lack an entry for this connection, which PostgreSQL reports as 28000.
    pub(super) fn has_no_hba_entry(&self) -> bool {
        let error = self.cause.downcast_ref::<tokio_postgres::Error>();
        error.and_then(tokio_postgres::Error::code) == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    }

    /// Returns true if the pool has refused an authentication request of the server.
    pub(super) fn has_refused_request(&self) -> bool {
        self.cause.is::<AuthError>()
    }

    /// Returns true if the server does not offer TLS.
    pub(super) fn found_no_tls(&self) -> bool {
        self.cause.downcast_ref::<TlsError>().is_some_and(|error| error.reason() == TlsReason::NotOffered)
    }

    /// Adds the error of the first attempt to this error, which comes from the second attempt in the other TLS mode. If
    /// one attempt has refused a request of the server, its `AuthError` is kept for the caller as the cause.
    pub(super) fn with_first_attempt(self, first: Self) -> Self {
        if first.has_refused_request() && !self.has_refused_request() {
            if self.found_no_tls() {
                return first;
            }
            // The credentials are re-read if the second attempt has rejected them.
            let login_rejected = self.login_rejected;
            return Self { login_rejected, ..first.with_other_attempt(self.chain()) };
        }
        let first = first.chain();
        self.with_other_attempt(first)
    }

    fn with_other_attempt(self, error: String) -> Self {
        let cause = match self.cause.downcast::<AuthError>() {
            Ok(refusal) => refusal.with_other_attempt(error).into(),
            Err(second) => BothTlsModes { first: error, second }.into(),
        };
        Self { cause, ..self }
    }

    /// Returns true if another address of the same server may accept the dial: the failure is not the server's response
    /// to the login. As in libpq, a rejected login is not repeated at another address.
    pub(super) fn may_depend_on_address(&self) -> bool {
        let answered = self.cause_is(|error| {
            error.downcast_ref::<tokio_postgres::Error>().is_some_and(|error| error.code().is_some())
                || error.is::<AuthError>()
                || error.is::<CredentialsError>()
        });
        self.address.is_some() && !answered
    }

    /// Returns true if the dial may succeed with the name of another host: the certificate is not valid for this name,
    /// or the password that belongs to it is wrong or missing.
    pub(super) fn may_depend_on_name(&self) -> bool {
        let is_missing = |error: &(dyn error::Error + 'static)| error.is::<CredentialsError>();
        self.phase == Phase::Tls && self.class == Class::Tls || self.login_rejected || self.cause_is(is_missing)
    }

    /// Returns true if `is` returns true for the cause or one of its sources.
    fn cause_is(&self, is: impl Fn(&(dyn error::Error + 'static)) -> bool) -> bool {
        let mut cause: Option<&(dyn error::Error + 'static)> = Some(&*self.cause);
        while let Some(error) = cause {
            if is(error) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Returns the text of this error and all its causes, in one line.
    pub(super) fn chain(&self) -> String {
        format!("{self}: {}", Chain(&*self.cause))
    }

    /// Adds details that the text of the tokio-postgres error lacks: the SQLSTATE, the source of a rejected password,
    /// and the places that were searched for a missing password.
    pub(super) fn with_login_details(mut self, source: &Source, login: &Login, endpoint: &Endpoint) -> Self {
        let Some(error) = self.cause.downcast_ref::<tokio_postgres::Error>() else { return self };
        if let Some(code) = error.code() {
            let origin = source.origin().filter(|_| self.login_rejected);
            let used = origin.map(|origin| format!(" (used {origin})")).unwrap_or_default();
            self.cause = Box::new(Rejected { text: format!("SQLSTATE {}{used}", code.code()), source: self.cause });
        } else if login.password.is_none() && error.source().is_some_and(|cause| cause.to_string() == MISSING) {
            let missing: CredentialsError = source.missing_password(endpoint);
            self.class = Class::Access;
            self.cause = missing.into();
        }
        self
    }

    /// Returns true if the server itself refused the connection: it is starting up or shutting down, or nothing listens
    /// on its port.
    pub(crate) fn is_refusal(&self) -> bool {
        self.cause_is(|error| {
            let io = error.downcast_ref::<io::Error>().map(io::Error::kind);
            let sqlstate = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
            let shuts_down = sqlstate.is_some_and(|code| matches!(code.code(), "57P01" | "57P02" | "57P03"));
            io == Some(io::ErrorKind::ConnectionRefused) || shuts_down
        })
    }

    /// Returns the cause of the error, without the phase.
    pub(crate) fn into_cause(self) -> BoxError {
        self.cause
    }
}

/// Returns the authentication request that the tap has refused, if this is the reason why the driver's read has failed.
fn refused_request(error: &tokio_postgres::Error) -> Option<AuthError> {
    let cause = error.source()?.downcast_ref::<io::Error>()?.get_ref()?;
    match cause.downcast_ref::<Violation>()? {
        Violation::Authentication(refusal) => Some(refusal.clone()),
        _ => None,
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
        Self { try_other_tls_mode: in_handshake, ..Self::new(Phase::Tls, class, cause) }
    }
}

impl fmt::Display for BothTlsModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (a first attempt in the other TLS mode {})", self.second, self.first)
    }
}

impl error::Error for BothTlsModes {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.second.source()
    }
}

/// Text of the tokio-postgres error if the server requests a password and none is configured.
const MISSING: &str = "password missing";

/// The cause of a startup that the server ended with an error.
#[derive(Debug)]
struct Rejected {
    text: String,
    source: BoxError,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl error::Error for Rejected {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.source)
    }
}
