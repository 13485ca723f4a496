use std::{error, fmt};

use crate::config::{AuthMethod, RequireAuth};

/// An authentication request of a server that the pool has refused. The server has received no credentials in response.
///
/// This error is the cause of an [`Attempt`](crate::Attempt) that failed in [`Phase::Startup`](crate::Phase::Startup).
/// The attempt contains the Pod.
///
/// ```
/// use podpool::{AuthError, Error, config::AuthMethod};
///
/// /// Returns true if a server has requested the password in clear text, and was refused.
/// fn requested_clear_text(error: &Error) -> bool {
///     let causes = error.attempts().iter().filter_map(|attempt| attempt.cause());
///     causes.filter_map(|cause| cause.downcast_ref::<AuthError>()).any(|auth| auth.method() == AuthMethod::Password)
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuthError {
    method: AuthMethod,
    refusal: AuthRefusal,
    /// True if the configuration allows SCRAM, so that a remedy must keep it.
    allows_scram: bool,
    /// The error of the attempt in the other TLS mode.
    other_attempt: Option<String>,
}

/// The reason for an [`AuthError`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum AuthRefusal {
    /// The connection does not use TLS, and `require_auth` does not name the method.
    Unencrypted,
    /// The connection uses TLS, but the server's certificate was not verified, and `require_auth` does not name the
    /// method.
    Unverified,
    /// `require_auth` does not allow the method. Contains the allowed methods.
    NotAllowed(RequireAuth),
    /// `security=strict` does not allow the method.
    NotStrict,
    /// The server has accepted the login before the end of the SCRAM exchange, so it has not proved that it knows the
    /// password.
    Unproven,
    /// The pool does not implement the method.
    NotImplemented,
}

impl AuthError {
    pub(super) fn new(method: AuthMethod, refusal: AuthRefusal, allowed: Option<RequireAuth>) -> Self {
        let allows_scram = allowed.is_none_or(|allowed| allowed.allows(AuthMethod::ScramSha256));
        Self { method, refusal, allows_scram, other_attempt: None }
    }

    #[cfg(test)]
    pub(crate) fn unencrypted_password() -> Self {
        Self::new(AuthMethod::Password, AuthRefusal::Unencrypted, None)
    }

    /// Adds the error of the attempt in the other TLS mode.
    pub(in crate::wire) fn with_other_attempt(self, error: String) -> Self {
        Self { other_attempt: Some(error), ..self }
    }

    /// Returns the method that the server has requested.
    #[must_use]
    pub fn method(&self) -> AuthMethod {
        self.method
    }

    /// Returns the reason for the refusal.
    #[must_use]
    pub fn refusal(&self) -> AuthRefusal {
        self.refusal
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.method;
        f.write_str(match method {
            _ if self.refusal == AuthRefusal::Unproven => {
                "the server accepted the login before the end of the SCRAM exchange, so it has not proved that it \
                 knows the password"
            }
            AuthMethod::None => "the server requested no authentication (`none`)",
            AuthMethod::Password => "the server requested the password in clear text (`password`)",
            AuthMethod::Md5 => "the server requested the password hashed with MD5 (`md5`)",
            AuthMethod::Gss => "the server requested GSSAPI authentication (`gss`)",
            AuthMethod::Sspi => "the server requested SSPI authentication (`sspi`)",
            AuthMethod::ScramSha256 => "the server requested SCRAM authentication (`scram-sha-256`)",
            AuthMethod::Oauth => "the server requested a SASL mechanism other than SCRAM (such as `oauth`)",
        })?;
        // A list with only this method would forbid SCRAM.
        let kept = if self.allows_scram { "scram-sha-256," } else { "" };
        match self.refusal {
            AuthRefusal::Unencrypted => write!(
                f,
                " on a connection without TLS; use `sslmode=verify-full`, or set \
                 `require_auth={kept}{method}` to allow it"
            ),
            AuthRefusal::Unverified => write!(
                f,
                " on a connection whose certificate is not verified; use `sslmode=verify-full`, or set \
                 `require_auth={kept}{method}` to allow it"
            ),
            AuthRefusal::NotAllowed(allowed) => write!(f, ", but `require_auth={allowed}` does not allow it"),
            AuthRefusal::NotStrict => f.write_str(", but `security=strict` allows only `scram-sha-256`"),
            AuthRefusal::NotImplemented => f.write_str(", which is not implemented"),
            AuthRefusal::Unproven => Ok(()),
        }?;
        match &self.other_attempt {
            Some(error) => write!(f, " (the attempt in the other TLS mode {error})"),
            None => Ok(()),
        }
    }
}

impl error::Error for AuthError {}
