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
//! The feature `rustls` (enabled by default) provides TLS 1.2 and 1.3 with rustls and `ring`, and the feature
//! `aws-lc-rs` with rustls and `aws-lc-rs`. Any other TLS library with a `MakeTlsConnect` can be used through
//! [`Builder::tls_connector`](crate::Builder::tls_connector). Without these features and without a custom connector,
//! the modes `disable`, `allow` and `prefer` connect in plain text, and building a pool with any other mode is an
//! error.
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
//! [`ChannelBinding`]: ChannelBinding
//! [`SslCertMode`]: SslCertMode
//! [`SslNegotiation`]: SslNegotiation
//! [`TlsVersion`]: TlsVersion
//! [`VerifiedName`]: VerifiedName
//!
#![doc = include_str!("parameters.md")]
//!
//! All parameters except `ssl_verify_name` are libpq parameters. The differences from libpq are:
//!
//! - A configured file that is missing, not PEM or otherwise unusable is an error when the pool is built, even in modes
//!   in which libpq ignores it. As in libpq, a key file that other users can read is rejected: the permissions must be
//!   0600 or less, or 0640 or less for a file owned by root.
//! - The verified name is compared only with the certificate's subject alternative names, never with its common name. A
//!   wildcard matches exactly the first label.
//! - X.509 version 1 certificates are not supported. Encrypted private keys are supported in the format PKCS #8, with
//!   the feature `encrypted-keys`.
//! - A certificate revocation list is an error if certificates are not verified, because it would have no effect. The
//!   authority's own certificate is not checked. Like OpenSSL, the pool rejects certificates of an authority whose list
//!   is missing, and lists that have expired.
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

mod cert_mode;
mod channel_binding;
mod key_password;
mod mode;
mod negotiation;
mod root_cert;
mod setters;
mod tls_version;
mod verified_name;

use std::path::{Path, PathBuf};

pub use cert_mode::SslCertMode;
pub use channel_binding::ChannelBinding;
use key_password::KeyPassword;
pub use mode::SslMode;
pub use negotiation::SslNegotiation;
pub use root_cert::RootCert;
pub use tls_version::TlsVersion;
pub use verified_name::VerifiedName;

use super::{Secret, message};
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
    crl: Option<PathBuf>,
    crl_dir: Option<PathBuf>,
    min_version: TlsVersion,
    max_version: Option<TlsVersion>,
    cert_mode: SslCertMode,
    key_password: Option<KeyPassword>,
    key_log_file: Option<PathBuf>,
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
            crl: None,
            crl_dir: None,
            min_version: TlsVersion::default(),
            max_version: None,
            cert_mode: SslCertMode::default(),
            key_password: None,
            key_log_file: None,
        }
    }
}

impl Ssl {
    /// Creates TLS parameters with this mode and the defaults for everything else.
    pub fn new(mode: SslMode) -> Self {
        Self::default().with_mode(mode)
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

    /// Returns the path of the file of certificate revocation lists, if set.
    #[must_use]
    pub fn crl(&self) -> Option<&Path> {
        self.crl.as_deref()
    }

    /// Returns the path of the directory of certificate revocation lists, if set.
    #[must_use]
    pub fn crl_dir(&self) -> Option<&Path> {
        self.crl_dir.as_deref()
    }

    /// Returns the oldest TLS version that is used: `ssl_min_protocol_version`.
    #[must_use]
    pub fn min_protocol_version(&self) -> TlsVersion {
        self.min_version
    }

    /// Returns the newest TLS version that is used: `ssl_max_protocol_version`. `None` if there is no limit.
    #[must_use]
    pub fn max_protocol_version(&self) -> Option<TlsVersion> {
        self.max_version
    }

    /// Returns the use of the client certificate: `sslcertmode`.
    #[must_use]
    pub fn cert_mode(&self) -> SslCertMode {
        self.cert_mode
    }

    /// Returns the password of the client's private key, if set.
    #[must_use]
    pub fn key_password(&self) -> Option<&Secret> {
        self.key_password.as_ref().map(|password| &password.0)
    }

    /// Returns the path of the file to which the secrets of TLS sessions are written, if set.
    #[must_use]
    pub fn key_log_file(&self) -> Option<&Path> {
        self.key_log_file.as_deref()
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
        if self.cert_mode == SslCertMode::Require && mode < SslMode::Require {
            return got(ConfigError::new("sslmode", "`require` or stricter, because `sslcertmode=require` is set"));
        }
        if let Some(max) = self.max_version.filter(|max| *max < self.min_version) {
            let expected = format!("`{max}` or older, because `ssl_max_protocol_version={max}` is set");
            return Err(ConfigError::new("ssl_min_protocol_version", expected).got(self.min_version.as_str()));
        }
        for (name, path) in [
            ("sslrootcert", self.root_cert.as_ref().and_then(RootCert::path)),
            ("sslcert", self.cert()),
            ("sslkey", self.key()),
            ("sslcrl", self.crl()),
            ("sslcrldir", self.crl_dir()),
            ("sslkeylogfile", self.key_log_file()),
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
            "ssl_max_protocol_version" if value.is_empty() => self.max_version = None,
            "ssl_max_protocol_version" => self.max_version = Some(TlsVersion::maximum(value)?),
            "ssl_min_protocol_version" if value.is_empty() => self.min_version = TlsVersion::default(),
            "ssl_min_protocol_version" => self.min_version = TlsVersion::minimum(value)?,
            "ssl_verify_name" => self.verified_name = value.parse()?,
            "sslcert" => self.cert = path(),
            "sslcertmode" if value.is_empty() => self.cert_mode = SslCertMode::default(),
            "sslcertmode" => self.cert_mode = value.parse()?,
            "sslcrl" => self.crl = path(),
            "sslcrldir" => self.crl_dir = path(),
            "sslkey" => self.key = path(),
            "sslkeylogfile" if value.is_empty() || cfg!(feature = "keylog") => self.key_log_file = path(),
            "sslkeylogfile" => {
                let reason = "it is for debugging only, because the file reveals the secrets of all TLS sessions; \
                              remove it, or enable podpool's feature `keylog`";
                return Err(ConfigError::unsupported("sslkeylogfile", reason).got(message::excerpt(value)));
            }
            "sslmode" => self.mode = Some(value.parse()?),
            "sslnegotiation" => self.negotiation = value.parse()?,
            "sslpassword" if value.is_empty() => self.key_password = None,
            "sslpassword" if cfg!(feature = "encrypted-keys") => self.key_password = Some(KeyPassword(value.into())),
            "sslpassword" => {
                let reason = "encrypted private keys are not implemented without podpool's feature `encrypted-keys`; \
                              enable it, or use an unencrypted key";
                return Err(ConfigError::unsupported("sslpassword", reason));
            }
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
mod tests;
