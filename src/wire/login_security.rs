//! The protection of a connection: its TLS session and its authentication.

use std::fmt;

use super::{auth::Authentication, tls::TlsSession};
use crate::config::AuthMethod;

/// The protection of a connection. The text form contains no secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LoginSecurity {
    authentication: Authentication,
    /// `None` if the connection does not use TLS.
    tls: Option<TlsSession>,
}

impl LoginSecurity {
    pub(super) fn new(authentication: Authentication, tls: Option<TlsSession>) -> Self {
        Self { authentication, tls }
    }

    /// Returns the protection of a verified TLS session with this method and certificate.
    #[cfg(test)]
    pub(crate) fn sample(method: AuthMethod, certificate: u8) -> Self {
        let tls = TlsSession { verified: true, version: None, cipher: None, fingerprint: Some([certificate; 32]) };
        Self::new(Authentication { method, channel_binding: false }, Some(tls))
    }

    /// Returns true if the connection uses TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns true if any aspect is weaker than that of `other`: TLS, the verification of the certificate, the TLS
    /// version, the authentication method, or channel binding.
    pub(crate) fn is_weaker_than(&self, other: &Self) -> bool {
        self.strengths().into_iter().zip(other.strengths()).any(|(this, that)| this < that)
    }

    /// Returns the strength of each aspect. The names of the TLS versions are in ascending order.
    fn strengths(&self) -> [(u8, &'static str); 5] {
        let tls = self.tls.as_ref();
        let method = match self.authentication.method {
            AuthMethod::Password => 1,
            AuthMethod::Md5 => 2,
            AuthMethod::ScramSha256 => 3,
            // The client cannot tell whether the server has checked a certificate.
            _ => 0,
        };
        [
            (tls.is_some().into(), ""),
            (tls.is_some_and(|tls| tls.verified).into(), ""),
            (0, tls.and_then(|tls| tls.version).unwrap_or_default()),
            (method, ""),
            (self.authentication.channel_binding.into(), ""),
        ]
    }
}

impl fmt::Display for LoginSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Authentication { method, channel_binding } = self.authentication;
        let binding = if channel_binding { "with" } else { "without" };
        write!(f, "authentication `{method}` {binding} channel binding, ")?;
        let Some(TlsSession { verified, version, cipher, fingerprint }) = self.tls else {
            return f.write_str("no TLS");
        };
        f.write_str(version.unwrap_or("TLS"))?;
        if let Some(cipher) = cipher {
            write!(f, " with {cipher}")?;
        }
        write!(f, ", certificate {}", if verified { "verified" } else { "not verified" })?;
        if let Some(fingerprint) = fingerprint {
            f.write_str(", SHA-256 fingerprint ")?;
            fingerprint.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAM: Authentication = Authentication { method: AuthMethod::ScramSha256, channel_binding: true };
    const TLS: TlsSession = TlsSession {
        verified: true,
        version: Some("TLSv1.3"),
        cipher: Some("TLS13_AES_256_GCM_SHA384"),
        fingerprint: Some([0xa0; 32]),
    };

    #[test]
    fn each_lost_aspect_is_weaker() {
        let best = LoginSecurity::new(SCRAM, Some(TLS));
        let weaker = [
            LoginSecurity::new(SCRAM, None),
            LoginSecurity::new(SCRAM, Some(TlsSession { verified: false, ..TLS })),
            LoginSecurity::new(SCRAM, Some(TlsSession { version: Some("TLSv1.2"), ..TLS })),
            LoginSecurity::new(Authentication { method: AuthMethod::Md5, ..SCRAM }, Some(TLS)),
            LoginSecurity::new(Authentication { method: AuthMethod::None, ..SCRAM }, Some(TLS)),
            LoginSecurity::new(Authentication { channel_binding: false, ..SCRAM }, Some(TLS)),
        ];
        for other in weaker {
            assert!(other.is_weaker_than(&best), "{other}");
            assert!(!best.is_weaker_than(&other), "{other}");
        }
        let rotated = TlsSession { fingerprint: Some([0; 32]), cipher: Some("TLS13_AES_128_GCM_SHA256"), ..TLS };
        let rotated = LoginSecurity::new(SCRAM, Some(rotated));
        assert_ne!(rotated, best);
        assert!(!rotated.is_weaker_than(&best) && !best.is_weaker_than(&rotated));
    }

    #[test]
    fn the_text_lists_every_aspect() {
        assert_eq!(
            LoginSecurity::new(SCRAM, Some(TLS)).to_string(),
            format!(
                "authentication `scram-sha-256` with channel binding, TLSv1.3 with TLS13_AES_256_GCM_SHA384, \
                 certificate verified, SHA-256 fingerprint {}",
                "a0".repeat(32)
            )
        );
        let plain = Authentication { method: AuthMethod::Md5, channel_binding: false };
        assert_eq!(LoginSecurity::new(plain, None).to_string(), "authentication `md5` without channel binding, no TLS");
    }
}
