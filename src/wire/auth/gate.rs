use std::sync::{Arc, OnceLock};

use super::{AuthError, AuthRefusal};
use crate::{
    config::{AuthMethod, RequireAuth, Security},
    wire::tls::TlsSession,
};

/// The type of an Authentication message from the server (PostgreSQL manual, "Message Formats").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::wire) enum AuthRequest {
    /// AuthenticationOk.
    Accepted,
    /// AuthenticationCleartextPassword.
    Password,
    /// AuthenticationMD5Password.
    Md5,
    /// AuthenticationGSS or AuthenticationGSSContinue.
    Gss,
    /// AuthenticationSSPI.
    Sspi,
    /// AuthenticationSASL, with the mechanisms that the server offers.
    Sasl {
        /// SCRAM-SHA-256 or SCRAM-SHA-256-PLUS.
        scram: bool,
    },
    /// AuthenticationSASLFinal, which contains the server's proof.
    SaslFinal,
}

impl AuthRequest {
    /// Parses the body of an Authentication message. Returns `None` for AuthenticationSASLContinue, and for types that
    /// the driver rejects without a response.
    pub(in crate::wire) fn parse(body: &[u8]) -> Option<Self> {
        let (code, rest) = body.split_first_chunk::<4>()?;
        Some(match u32::from_be_bytes(*code) {
            0 => Self::Accepted,
            3 => Self::Password,
            5 => Self::Md5,
            7 | 8 => Self::Gss,
            9 => Self::Sspi,
            10 => {
                let offers = |mechanism: &[u8]| rest.split(|&byte| byte == 0).any(|offered| offered == mechanism);
                Self::Sasl { scram: offers(PLUS) || offers(b"SCRAM-SHA-256") }
            }
            12 => Self::SaslFinal,
            _ => return None,
        })
    }
}

/// The name of SCRAM-SHA-256 with channel binding.
const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";

/// The authentication of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::wire) struct Authentication {
    pub(in crate::wire) method: AuthMethod,
    /// True if SCRAM was bound to the TLS session.
    pub(in crate::wire) channel_binding: bool,
}

/// Checks the authentication requests of one connection, and remembers the method.
#[derive(Debug)]
pub(in crate::wire) struct Gate {
    /// The methods that the configuration allows. `None` if it does not restrict them.
    allowed: Option<RequireAuth>,
    /// The parameter that has set `allowed`, if it is not `require_auth`.
    security: Security,
    /// The reason for which passwords must not be sent to the server. `None` if the server is verified.
    exposed: Option<AuthRefusal>,
    /// The method that the server has requested, and the driver's use of channel binding.
    requested: Option<Authentication>,
    /// True until the driver has responded to a request for SASL.
    awaits_mechanism: bool,
    /// True if the server has sent its proof in a SCRAM exchange.
    proven: bool,
    /// Set when the server has accepted the login.
    accepted: Arc<OnceLock<Authentication>>,
}

impl Gate {
    /// Creates a gate for a connection on which nothing has been received. `tls` is `None` on a connection without TLS.
    pub(in crate::wire) fn new(allowed: Option<RequireAuth>, security: Security, tls: Option<&TlsSession>) -> Self {
        let exposed = match tls {
            None => Some(AuthRefusal::Unencrypted),
            Some(session) => (!session.verified).then_some(AuthRefusal::Unverified),
        };
        let accepted = Arc::default();
        Self { allowed, security, exposed, requested: None, awaits_mechanism: false, proven: false, accepted }
    }

    /// Allows passwords, as on a verified connection, because only processes of this machine can read a Unix socket.
    pub(in crate::wire) fn on_unix_socket(self) -> Self {
        Self { exposed: None, ..self }
    }

    /// Returns the cell that contains the authentication of the connection once the server has accepted the login.
    pub(in crate::wire) fn accepted(&self) -> Arc<OnceLock<Authentication>> {
        self.accepted.clone()
    }

    /// Checks the next request of the server.
    ///
    /// # Errors
    ///
    /// Returns an error if the driver must not receive the request.
    pub(in crate::wire) fn check(&mut self, request: AuthRequest) -> Result<(), AuthError> {
        if self.accepted.get().is_some() {
            // The driver rejects further requests without a response.
            return Ok(());
        }
        let method = match request {
            AuthRequest::Accepted => return self.accept(),
            AuthRequest::SaslFinal => {
                self.proven = true;
                return Ok(());
            }
            AuthRequest::Password => AuthMethod::Password,
            AuthRequest::Md5 => AuthMethod::Md5,
            AuthRequest::Gss => AuthMethod::Gss,
            AuthRequest::Sspi => AuthMethod::Sspi,
            AuthRequest::Sasl { scram: true } => AuthMethod::ScramSha256,
            AuthRequest::Sasl { scram: false } => AuthMethod::Oauth,
        };
        self.check_method(method)?;
        self.awaits_mechanism = method == AuthMethod::ScramSha256;
        self.requested = Some(Authentication { method, channel_binding: false });
        Ok(())
    }

    /// Returns true until the driver has responded to a request for SASL.
    #[inline]
    pub(in crate::wire) fn awaits_mechanism(&self) -> bool {
        self.awaits_mechanism
    }

    /// Reads from the driver's response to a request for SASL whether the driver uses channel binding. The driver
    /// writes the whole SASLInitialResponse in one call: a header of five bytes, the name of the mechanism, and data.
    pub(in crate::wire) fn observe_response(&mut self, message: &[u8]) {
        self.awaits_mechanism = false;
        let mechanism = message.get(5..).and_then(|body| body.split(|&byte| byte == 0).next());
        if let Some(requested) = &mut self.requested {
            requested.channel_binding = mechanism == Some(PLUS);
        }
    }

    fn accept(&mut self) -> Result<(), AuthError> {
        let authentication = match self.requested {
            Some(requested) if requested.method == AuthMethod::ScramSha256 && !self.proven => {
                return Err(AuthError::new(requested.method, AuthRefusal::Unproven, self.allowed));
            }
            Some(requested) => requested,
            None => {
                self.check_method(AuthMethod::None)?;
                Authentication { method: AuthMethod::None, channel_binding: false }
            }
        };
        // The cell is empty: `check` returns early if it is not.
        let _ = self.accepted.set(authentication);
        Ok(())
    }

    fn check_method(&self, method: AuthMethod) -> Result<(), AuthError> {
        let refused = |refusal| Err(AuthError::new(method, refusal, self.allowed));
        if let Some(allowed) = self.allowed.filter(|allowed| !allowed.allows(method)) {
            return refused(match self.security {
                Security::Strict => AuthRefusal::NotStrict,
                Security::Default => AuthRefusal::NotAllowed(allowed),
            });
        }
        match (method, self.exposed) {
            (AuthMethod::Gss | AuthMethod::Sspi | AuthMethod::Oauth, _) => refused(AuthRefusal::NotImplemented),
            (AuthMethod::Password | AuthMethod::Md5, Some(exposed))
                if !self.allowed.is_some_and(|allowed| allowed.names(method)) =>
            {
                refused(exposed)
            }
            _ => Ok(()),
        }
    }
}
