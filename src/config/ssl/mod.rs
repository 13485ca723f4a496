//! TLS: what is encrypted, who is trusted, and how certificates are rotated.
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
//! The feature `rustls` (on by default) brings rustls with `ring`; TLS 1.2 and 1.3. Any other TLS library can be used
//! through its `MakeTlsConnect`: [`Builder::tls_connector`](crate::Builder::tls_connector). With neither, `disable`,
//! `allow` and `prefer` connect in plain text, and building a pool with any other mode is an error that says so.
//!
//! # The modes
//!
//! As libpq has them (PostgreSQL manual, "SSL Support"):
//!
//! | `sslmode` | plain text | TLS | the certificate's authority | its name |
//! |---|---|---|---|---|
//! | `disable` | always | never | | |
//! | `allow` | first | where the server refuses plain text (28000) | checked where a root file is given or found | no |
//! | `prefer`, the default | where the server has no TLS, the handshake fails, or TLS is refused at start-up (28000) | first | checked where a root file is given or found | no |
//! | `require` | never | always | checked where a root file is given or found | no |
//! | `verify-ca` | never | always | checked | no |
//! | `verify-full` | never | always | checked | checked |
//!
//! `allow` and `prefer` protect from nobody who can change packets: he makes TLS fail, and gets plain text. Only
//! `verify-full` protects from somebody who answers in a server's place with another certificate of the same authority.
//!
//! # The parameters
//!
//! | parameter | value | default |
//! |---|---|---|
//! | `sslmode` | see above | `prefer`; `verify-full` with `sslrootcert=system` |
//! | `sslrootcert` | a file of PEM certificates, or `system` | `~/.postgresql/root.crt`, where it exists |
//! | `sslcert`, `sslkey` | the client's certificate with those that lead to its authority, and its private key without a password, both PEM | `~/.postgresql/postgresql.crt` and `.key`, where the former exists |
//! | `sslnegotiation` | `postgres`, `direct` ([`SslNegotiation`]) | `postgres` |
//! | `sslsni` | `1`, `0`: whether the name is sent as SNI | `1` |
//! | `channel_binding` | `disable`, `prefer`, `require` ([`ChannelBinding`]) | `prefer` |
//! | `ssl_verify_name` | `service`, `pod`, or a name ([`VerifiedName`]) | `service` |
//!
//! All but the last are libpq's. Where this differs from libpq:
//!
//! - A file that is named and is not there, is no PEM, or cannot be used is an error when the pool is built, also in
//!   the modes that libpq would ignore it in. A key that others may read is refused as libpq does: its mode may be
//!   0600 or less, or, for a file of root's, 0640 or less.
//! - The name is compared with the certificate's subject alternative names only, never with its common name. A wildcard
//!   stands for the whole first label.
//! - Certificates of X.509 version 1 and encrypted private keys are not read.
//! - Under `allow` and `prefer`, a start-up that was refused is tried the other way only where that can help: for
//!   SQLSTATE 28000, `pg_hba.conf` has no entry for this kind of connection. libpq tries again after any refusal.
//! - `system` is read once, when the pool is built.
//!
//! # Which name is verified
//!
//! The socket always goes to the Pod's address, which no certificate can know in advance. The name given to TLS is, by
//! default, the Service's as it is written in the URL, so one certificate for
//! `postgresql-svc.k8s-training.svc.cluster.local` serves every Pod. Where each Pod has a certificate of its own, for
//! `postgresql-sfs-0.postgresql-svc.k8s-training.svc.cluster.local` and so on (or one for
//! `*.postgresql-svc.k8s-training.svc.cluster.local`), use `discovery=srv&ssl_verify_name=pod`. A host that is an IP
//! address is compared with the certificate's addresses.
//!
//! # What goes wrong, and how it is told
//!
//! A refused certificate, a server without TLS, and an alert from the server are a [`TlsError`](crate::TlsError) in the
//! [`Attempt`](crate::Attempt) of each Pod, with phase [`Tls`](crate::Phase::Tls); the
//! [reason](crate::TlsError::reason) tells a wrong name from another authority or an expired certificate. They are the
//! same at the next try: when every Pod's trouble is of this kind, [`Pool::get`](crate::Pool::get) fails at once with
//! [`Kind::Tls`](crate::Kind::Tls). A Pod whose new certificate is refused keeps serving on connections that are open.
//! A connection that breaks within the handshake is trouble of the network, and tried again.
//!
//! # Rotation
//!
//! The files are read again before each new connection and every ten seconds. What is new is used from the next
//! connection on; connections that are open stay. New files that cannot be used (half written, of a key that does not
//! fit its certificate, readable by others) are not: the last good ones stay in use, and
//! [`Event::CertificatesRefused`](crate::Event::CertificatesRefused) says why. [`Event::CertificatesReloaded`](
//! crate::Event::CertificatesReloaded) tells when new ones are used. Paths are followed anew each time, so a mounted
//! Secret, which Kubernetes changes by moving a symbolic link, needs no restart.
//!
//! To change the authority itself: first give the clients a root file that holds both the old and the new certificate,
//! then the servers their new certificates, then take the old one away.
//!
//! # In Kubernetes
//!
//! A cert-manager `Certificate` for the servers' Service, and the Secret with its `ca.crt` mounted into the client:
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
//!         secretName: app-client-tls # ca.crt, and for client certificates tls.crt and tls.key
//!         defaultMode: 0440          # root's, readable by the group: a key that others may read is refused
//!   containers:
//!     - env:
//!         - name: DATABASE_URL
//!           value: "postgres://app@postgresql-svc.k8s-training.svc.cluster.local/shop?sslmode=verify-full\
//!             &sslrootcert=/tls/ca.crt&sslcert=/tls/tls.crt&sslkey=/tls/tls.key"
//!       volumeMounts: [{ name: tls, mountPath: /tls, readOnly: true }]
//! ```
//!
//! Mount the whole Secret, not one file of it by `subPath`: Kubernetes never updates those.

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

use super::words;
use crate::error::ConfigError;

/// Everything about TLS: see the [module](self).
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

/// Every parameter at its default, which is libpq's.
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
    /// This mode, and the default of everything else.
    pub fn new(mode: SslMode) -> Self {
        Self::default().with_mode(mode)
    }

    /// Sets `sslmode`. Default: `prefer`, or `verify-full` where the system's authorities are trusted.
    pub fn with_mode(mut self, mode: SslMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets `sslrootcert`: a file, or `system`. Default: `~/.postgresql/root.crt`, where it exists.
    pub fn with_root_cert(mut self, root_cert: impl Into<RootCert>) -> Self {
        self.root_cert = Some(root_cert.into());
        self
    }

    /// Sets `sslcert` and `sslkey`, the files of the client's certificate and of its private key. Default:
    /// `~/.postgresql/postgresql.crt` and `.key`, where the former exists.
    pub fn with_client_cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        (self.cert, self.key) = (Some(cert.into()), Some(key.into()));
        self
    }

    /// Sets whether the name is sent as SNI: `sslsni`. Default: yes.
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

    /// Sets which name a certificate has to be for: `ssl_verify_name`. Default: [`VerifiedName::Service`].
    pub fn with_verified_name(mut self, name: VerifiedName) -> Self {
        self.verified_name = name;
        self
    }

    /// The mode in effect.
    #[must_use]
    pub fn mode(&self) -> SslMode {
        match (self.mode, &self.root_cert) {
            (Some(mode), _) => mode,
            // libpq's rule: who trusts everybody's authorities has to check the name.
            (None, Some(RootCert::System)) => SslMode::VerifyFull,
            (None, _) => SslMode::default(),
        }
    }

    /// Whose certificates are trusted, where that is set.
    #[must_use]
    pub fn root_cert(&self) -> Option<&RootCert> {
        self.root_cert.as_ref()
    }

    /// The file of the client's certificate, where it is set.
    #[must_use]
    pub fn cert(&self) -> Option<&Path> {
        self.cert.as_deref()
    }

    /// The file of the client's private key, where it is set.
    #[must_use]
    pub fn key(&self) -> Option<&Path> {
        self.key.as_deref()
    }

    /// Whether the name is sent as SNI.
    #[must_use]
    pub fn sni(&self) -> bool {
        self.sni
    }

    /// How a connection gets to TLS.
    #[must_use]
    pub fn negotiation(&self) -> SslNegotiation {
        self.negotiation
    }

    /// Whether authentication is tied to its TLS session.
    #[must_use]
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// Which name a certificate has to be for.
    #[must_use]
    pub fn verified_name(&self) -> &VerifiedName {
        &self.verified_name
    }

    /// Refuses what contradicts itself.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let mode = self.mode();
        let got = |error: ConfigError| Err(error.got(mode.as_str()));
        if self.root_cert == Some(RootCert::System) && mode != SslMode::VerifyFull {
            return got(ConfigError::new(
                "sslmode",
                "`verify-full`, for `sslrootcert` is `system`: anybody can get a \
                certificate from one of the system's authorities",
            ));
        }
        if self.negotiation == SslNegotiation::Direct && mode < SslMode::Require {
            return got(ConfigError::new("sslmode", "`require` or stricter, for `sslnegotiation` is `direct`"));
        }
        if self.channel_binding == ChannelBinding::Require && mode == SslMode::Disable {
            return got(ConfigError::new("sslmode", "anything but `disable`, for `channel_binding` is `require`"));
        }
        for (name, path) in [
            ("sslrootcert", self.root_cert.as_ref().and_then(RootCert::path)),
            ("sslcert", self.cert()),
            ("sslkey", self.key()),
        ] {
            if path.is_some_and(|path| path.as_os_str().is_empty()) {
                return Err(ConfigError::new(name, "the path of a file"));
            }
        }
        Ok(())
    }

    /// Sets the parameter of that name. An empty path counts as left out.
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
                    other => return Err(ConfigError::new("sslsni", "`1` or `0`").got(words::clip(other))),
                }
            }
            _ => return Err(ConfigError::new(words::clip(name), "a parameter of TLS")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn refused(query: &str) -> ConfigError {
        let parsed = format!("postgres://app@svc/shop?{query}").parse::<Config>();
        parsed.and_then(|config| config.validate()).expect_err(query)
    }

    #[test]
    fn reads_every_parameter() {
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
    fn defaults_are_libpqs_and_an_empty_text_is_left_out() {
        for query in ["", "?sslrootcert=&sslcert=&sslkey="] {
            let config: Config = format!("postgres://app@svc/shop{query}").parse().unwrap();
            assert_eq!(config.ssl(), &Ssl::default());
            assert_eq!(config.ssl_mode(), SslMode::Prefer);
            assert!(config.ssl().sni());
        }
    }

    #[test]
    fn the_systems_authorities_go_with_a_check_of_the_name_alone() {
        let config: Config = "postgres://app@svc/shop?sslrootcert=system".parse().unwrap();
        assert_eq!(config.ssl_mode(), SslMode::VerifyFull);
        for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
            let error = refused(&format!("sslrootcert=system&sslmode={mode}"));
            assert_eq!((error.parameter(), error.received()), ("sslmode", Some(mode)));
        }
    }

    #[test]
    fn refuses_contradictions_and_unknown_words() {
        for (query, parameter, expected) in [
            ("sslnegotiation=direct", "sslmode", "`require` or stricter"),
            ("sslnegotiation=direct&sslmode=prefer", "sslmode", "`require` or stricter"),
            ("channel_binding=require&sslmode=disable", "sslmode", "anything but"),
            ("channel_binding=yes", "channel_binding", "one of `disable`"),
            ("sslnegotiation=tls", "sslnegotiation", "one of `direct`"),
            ("sslsni=yes", "sslsni", "`1` or `0`"),
            ("ssl_verify_name=-", "ssl_verify_name", "`service`, `pod`"),
            ("sslrootcrt=/x", "sslrootcrt", "the nearest is `sslrootcert`"),
        ] {
            let error = refused(query);
            assert_eq!(error.parameter(), parameter, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        for word in ["service", "pod", "db.example.org"] {
            assert_eq!(word.parse::<VerifiedName>().unwrap().to_string(), word);
        }
    }
}
