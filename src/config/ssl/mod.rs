//! TLS parameters: encryption modes, trusted authorities, client certificates and their rotation.
//!
//! ```
//! use podpool::{Config, config::ssl::{ChannelBinding, Ssl, SslMode}};
//!
//! # fn main() -> Result<(), podpool::ConfigError> {
//! let config: Config = "postgres://app:secret@postgresql-svc.k8s-training.svc.cluster.local/shop\
//!     ?sslmode=verify-full&sslrootcert=/etc/postgresql-tls/ca.crt&channel_binding=require".parse()?;
//! let ssl = Ssl::new(SslMode::VerifyFull)
//!     .with_root_cert("/etc/postgresql-tls/ca.crt")
//!     .with_channel_binding(ChannelBinding::Require);
//! assert_eq!(config.ssl(), &ssl);
//! # Ok(())
//! # }
//! ```
//!
//! The feature `rustls` (enabled by default) provides TLS 1.2 and 1.3 with rustls and `ring`. Any other TLS library
//! with a `MakeTlsConnect` can be used through [`Builder::tls_connector`](crate::Builder::tls_connector). Without
//! `rustls` and without a custom connector, the modes `disable`, `allow` and `prefer` connect in plain text, and
//! building a pool with any other mode is an error.
//!
//! # Modes
//!
//! The modes are those of libpq (PostgreSQL manual, "SSL Support"):
//!
#![doc = include_str!("modes.md")]
//!
//! `allow` and `prefer` do not protect against an active attacker, who can make the TLS handshake fail and thereby
//! force plain text. Only `verify-full` protects against a server that impersonates another one with a certificate from
//! the same authority.
//!
//! # Parameters
//!
#![doc = include_str!("parameters.md")]
//!
//! All parameters except the last are libpq parameters. The differences from libpq are:
//!
//! - A configured file that is missing, not PEM or otherwise unusable is an error when the pool is built, even in modes
//!   in which libpq ignores it. As in libpq, a key file that other users can read is rejected: the permissions must be
//!   0600 or less, or 0640 or less for a file owned by root.
//! - The verified name is compared only with the certificate's subject alternative names, never with its common name. A
//!   wildcard matches exactly the first label.
//! - X.509 version 1 certificates and encrypted private keys are not supported.
//! - In the modes `allow` and `prefer`, a connection that is rejected during startup is retried with or without TLS
//!   only for SQLSTATE 28000, which means that `pg_hba.conf` has no entry for this kind of connection. libpq retries
//!   after every rejection. With `allow`, TLS is also tried after a refused authentication request in plain text.
//! - With `sslrootcert=system`, the trust store is read only once, when the pool is built.
//!
//! # Verified name
//!
//! The socket always connects to the Pod's IP address, which certificates usually do not contain. By default, the name
//! passed to TLS is the Service name from the configuration, so one certificate for
//! `postgresql-svc.k8s-training.svc.cluster.local` is valid for every Pod. If each Pod has its own certificate, such as
//! for `postgresql-sfs-0.postgresql-svc.k8s-training.svc.cluster.local`, or all Pods share a certificate for
//! `*.postgresql-svc.k8s-training.svc.cluster.local`, use `discovery=srv&ssl_verify_name=pod`. A host that is an IP
//! address is compared with the IP addresses in the certificate.
//!
//! # Errors
//!
//! A rejected certificate, a server without TLS and a TLS alert from the server are reported as a
//! [`TlsError`](crate::TlsError) in the [`Attempt`](crate::Attempt) of each Pod, with phase [`Tls`](crate::Phase::Tls).
//! The [reason](crate::TlsError::reason) distinguishes a wrong name from an untrusted authority or an expired
//! certificate. Retrying does not resolve these errors. If all Pods fail in this way, [`Pool::get`](crate::Pool::get)
//! returns [`Kind::Tls`](crate::Kind::Tls) immediately. If a Pod's new certificate is rejected, open connections to the
//! Pod remain in use. A connection that breaks during the handshake is treated as a network failure, and the dial is
//! retried.
//!
//! # Rotation
//!
//! The files are read before each new connection and every ten seconds. New contents apply only to new connections;
//! open connections are kept. If new files are invalid (incomplete, a key that does not match its certificate, or a key
//! readable by other users), the last valid ones remain in use, and
//! [`Event::CertificatesRefused`](crate::Event::CertificatesRefused) reports the reason.
//! [`Event::CertificatesReloaded`](crate::Event::CertificatesReloaded) reports that new files are in use. Symbolic
//! links are resolved at each read. Kubernetes updates a mounted Secret by changing a symbolic link, so an update takes
//! effect without a restart.
//!
//! To replace the certificate authority, first deploy a root file with both the old and the new authority to the
//! clients, then the new certificates to the servers, and finally remove the old authority from the root file.
//!
//! # Kubernetes
//!
//! This example shows a cert-manager `Certificate` for the PostgreSQL servers, and a client Pod that mounts a Secret
//! with `ca.crt`:
//!
//! ```yaml
//! # the servers' certificate
//! spec:
//!   secretName: postgresql-tls
//!   dnsNames:
//!     - postgresql-svc.k8s-training.svc.cluster.local
//!     - "*.postgresql-svc.k8s-training.svc.cluster.local" # for ssl_verify_name=pod
//! ---
//! # the client's Pod
//! spec:
//!   securityContext: { fsGroup: 1000 }
//!   volumes:
//!     - name: tls
//!       secret:
//!         secretName: app-client-tls # ca.crt, and with client certificates also tls.crt and tls.key
//!         defaultMode: 0440          # owned by root, readable by the group; keys readable by others are rejected
//!   containers:
//!     - env:
//!         - name: DATABASE_URL
//!           value: "postgres://app@postgresql-svc.k8s-training.svc.cluster.local/shop?sslmode=verify-full\
//!             &sslrootcert=/tls/ca.crt&sslcert=/tls/tls.crt&sslkey=/tls/tls.key"
//!       volumeMounts: [{ name: tls, mountPath: /tls, readOnly: true }]
//! ```
//!
//! Mount the whole Secret rather than single files with `subPath`, because Kubernetes does not update `subPath` mounts.

mod channel_binding;
mod mode;
mod negotiation;
mod root_cert;
mod verified_name;

use std::path::{Path, PathBuf};

pub use channel_binding::ChannelBinding;
pub use mode::SslMode;
pub use negotiation::SslNegotiation;
pub use root_cert::RootCert;
pub use verified_name::VerifiedName;

use super::message;
use crate::error::ConfigError;

/// The TLS parameters, described in the [module](self).
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Ssl {
    mode: Option<SslMode>,
    root_cert: Option<RootCert>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    sni: bool,
    negotiation: SslNegotiation,
    channel_binding: ChannelBinding,
    verified_name: VerifiedName,
}

/// Returns libpq's defaults.
impl Default for Ssl {
    fn default() -> Self {
        Self {
            mode: None,
            root_cert: None,
            cert: None,
            key: None,
            sni: true,
            negotiation: SslNegotiation::default(),
            channel_binding: ChannelBinding::default(),
            verified_name: VerifiedName::default(),
        }
    }
}

impl Ssl {
    /// Creates TLS parameters with this mode and the defaults for everything else.
    pub fn new(mode: SslMode) -> Self {
        Self::default().with_mode(mode)
    }

    /// Sets `sslmode`. Default: `prefer`, or `verify-full` with `sslrootcert=system`.
    pub fn with_mode(mut self, mode: SslMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets `sslrootcert`: a file, or `system`. Default: `~/.postgresql/root.crt`, if it exists.
    pub fn with_root_cert(mut self, root_cert: impl Into<RootCert>) -> Self {
        self.root_cert = Some(root_cert.into());
        self
    }

    /// Sets `sslcert` and `sslkey`, the files of the client certificate and its private key. Default:
    /// `~/.postgresql/postgresql.crt` and `.key`, if the former exists.
    pub fn with_client_cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        (self.cert, self.key) = (Some(cert.into()), Some(key.into()));
        self
    }

    /// Enables or disables sending the verified name as SNI: `sslsni`. Default: enabled.
    pub fn with_sni(mut self, sni: bool) -> Self {
        self.sni = sni;
        self
    }

    /// Sets `sslnegotiation`. Default: [`SslNegotiation::Postgres`].
    pub fn with_negotiation(mut self, negotiation: SslNegotiation) -> Self {
        self.negotiation = negotiation;
        self
    }

    /// Sets `channel_binding`. Default: [`ChannelBinding::Prefer`].
    pub fn with_channel_binding(mut self, channel_binding: ChannelBinding) -> Self {
        self.channel_binding = channel_binding;
        self
    }

    /// Sets the name that the server's certificate must contain: `ssl_verify_name`. Default: [`VerifiedName::Service`].
    pub fn with_verified_name(mut self, name: VerifiedName) -> Self {
        self.verified_name = name;
        self
    }

    /// Returns true if a mode is set, also implicitly by `sslrootcert=system`.
    pub(super) fn has_mode(&self) -> bool {
        self.mode.is_some() || self.root_cert == Some(RootCert::System)
    }

    /// Returns the mode, or the default mode for this `sslrootcert` if none is set.
    #[must_use]
    pub fn mode(&self) -> SslMode {
        match (self.mode, &self.root_cert) {
            (Some(mode), _) => mode,
            // As in libpq: anyone can get a certificate from a public authority, so only the name proves the identity.
            (None, Some(RootCert::System)) => SslMode::VerifyFull,
            (None, _) => SslMode::default(),
        }
    }

    /// Returns the trusted authorities, if set.
    #[must_use]
    pub fn root_cert(&self) -> Option<&RootCert> {
        self.root_cert.as_ref()
    }

    /// Returns the path of the client certificate, if set.
    #[must_use]
    pub fn cert(&self) -> Option<&Path> {
        self.cert.as_deref()
    }

    /// Returns the path of the client's private key, if set.
    #[must_use]
    pub fn key(&self) -> Option<&Path> {
        self.key.as_deref()
    }

    /// Returns true if the verified name is sent as SNI.
    #[must_use]
    pub fn sni(&self) -> bool {
        self.sni
    }

    /// Returns the way in which TLS is started: `sslnegotiation`.
    #[must_use]
    pub fn negotiation(&self) -> SslNegotiation {
        self.negotiation
    }

    /// Returns the use of channel binding: `channel_binding`.
    #[must_use]
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// Returns the name that the server's certificate must contain.
    #[must_use]
    pub fn verified_name(&self) -> &VerifiedName {
        &self.verified_name
    }

    /// Rejects conflicting parameters and empty paths.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let mode = self.mode();
        let got = |error: ConfigError| Err(error.got(mode.as_str()));
        if self.root_cert == Some(RootCert::System) && mode != SslMode::VerifyFull {
            let expected = "`verify-full`, because `sslrootcert=system` is set (anyone can get a certificate from a \
                            public authority)";
            return got(ConfigError::new("sslmode", expected));
        }
        if self.negotiation == SslNegotiation::Direct && mode < SslMode::Require {
            return got(ConfigError::new("sslmode", "`require` or stricter, because `sslnegotiation=direct` is set"));
        }
        if self.channel_binding == ChannelBinding::Require && mode == SslMode::Disable {
            return got(ConfigError::new(
                "sslmode",
                "a mode other than `disable`, because `channel_binding=require` is set",
            ));
        }
        for (name, path) in [
            ("sslrootcert", self.root_cert.as_ref().and_then(RootCert::path)),
            ("sslcert", self.cert()),
            ("sslkey", self.key()),
        ] {
            if path.is_some_and(|path| path.as_os_str().is_empty()) {
                return Err(ConfigError::new(name, "a file path, got an empty one"));
            }
        }
        Ok(())
    }

    /// Parses a value and sets the parameter with this name. An empty path is equivalent to no path.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let path = || Some(value).filter(|path| !path.is_empty()).map(PathBuf::from);
        match name {
            "channel_binding" => self.channel_binding = value.parse()?,
            "ssl_verify_name" => self.verified_name = value.parse()?,
            "sslcert" => self.cert = path(),
            "sslkey" => self.key = path(),
            "sslmode" => self.mode = Some(value.parse()?),
            "sslnegotiation" => self.negotiation = value.parse()?,
            "sslrootcert" => self.root_cert = Some(value).filter(|value| !value.is_empty()).map(RootCert::from),
            "sslsni" => {
                self.sni = match value {
                    "1" => true,
                    "0" => false,
                    other => return Err(ConfigError::new("sslsni", "`1` or `0`").got(message::excerpt(other))),
                }
            }
            _ => return Err(ConfigError::unknown(message::excerpt(name), "it is not a TLS parameter")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn rejected(query: &str) -> ConfigError {
        let parsed = format!("postgres://app@svc/shop?{query}").parse::<Config>();
        parsed.and_then(|config| config.validate()).expect_err(query)
    }

    #[test]
    fn parses_every_tls_parameter() {
        let config: Config = "postgres://app@svc/shop?sslmode=verify-ca&sslrootcert=/tls/ca.crt&sslcert=/tls/tls.crt\
             &sslkey=/tls/tls.key&sslsni=0&sslnegotiation=direct&channel_binding=require&ssl_verify_name=pod"
            .parse()
            .unwrap();
        config.validate().unwrap();
        let same = Ssl::new(SslMode::VerifyCa)
            .with_root_cert("/tls/ca.crt")
            .with_client_cert("/tls/tls.crt", "/tls/tls.key")
            .with_sni(false)
            .with_negotiation(SslNegotiation::Direct)
            .with_channel_binding(ChannelBinding::Require)
            .with_verified_name(VerifiedName::Pod);
        assert_eq!(config.ssl(), &same);
    }

    #[test]
    fn uses_libpq_defaults_for_missing_and_empty_values() {
        for query in ["", "?sslrootcert=&sslcert=&sslkey="] {
            let config: Config = format!("postgres://app@svc/shop{query}").parse().unwrap();
            assert_eq!(config.ssl(), &Ssl::default());
            assert_eq!(config.ssl_mode(), SslMode::Prefer);
            assert!(config.ssl().sni());
        }
    }

    #[test]
    fn the_system_trust_store_requires_verify_full() {
        let config: Config = "postgres://app@svc/shop?sslrootcert=system".parse().unwrap();
        assert_eq!(config.ssl_mode(), SslMode::VerifyFull);
        for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
            let error = rejected(&format!("sslrootcert=system&sslmode={mode}"));
            assert_eq!((error.parameter(), error.received()), ("sslmode", Some(mode)));
        }
    }

    #[test]
    fn rejects_conflicting_parameters_and_unknown_keywords() {
        for (query, parameter, expected) in [
            ("sslnegotiation=direct", "sslmode", "`require` or stricter"),
            ("sslnegotiation=direct&sslmode=prefer", "sslmode", "`require` or stricter"),
            ("channel_binding=require&sslmode=disable", "sslmode", "other than `disable`"),
            ("channel_binding=yes", "channel_binding", "one of `disable`"),
            ("sslnegotiation=tls", "sslnegotiation", "one of `direct`"),
            ("sslsni=yes", "sslsni", "`1` or `0`"),
            ("ssl_verify_name=-", "ssl_verify_name", "`service`, `pod`"),
            ("sslrootcrt=/x", "sslrootcrt", "the closest known parameter is `sslrootcert`"),
        ] {
            let error = rejected(query);
            assert_eq!(error.parameter(), parameter, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        for name in ["service", "pod", "db.example.org"] {
            assert_eq!(name.parse::<VerifiedName>().unwrap().to_string(), name);
        }
    }
}
