//! The setters of [`Ssl`].

use std::path::PathBuf;

use super::{ChannelBinding, RootCert, Ssl, SslCertMode, SslMode, SslNegotiation, TlsVersion, VerifiedName};

impl Ssl {
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

    /// Sets `sslcrl`, a file of certificate revocation lists. Default: `~/.postgresql/root.crl`, if it exists and
    /// `sslcrldir` is not set.
    pub fn with_crl(mut self, path: impl Into<PathBuf>) -> Self {
        self.crl = Some(path.into());
        self
    }

    /// Sets `sslcrldir`, a directory of files with certificate revocation lists. Default: none.
    pub fn with_crl_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.crl_dir = Some(path.into());
        self
    }

    /// Sets `ssl_min_protocol_version`. Default: [`TlsVersion::V1_2`].
    pub fn with_min_protocol_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// Sets `ssl_max_protocol_version`. Default: the newest version.
    pub fn with_max_protocol_version(mut self, version: TlsVersion) -> Self {
        self.max_version = Some(version);
        self
    }

    /// Sets `sslcertmode`. Default: [`SslCertMode::Allow`].
    pub fn with_cert_mode(mut self, mode: SslCertMode) -> Self {
        self.cert_mode = mode;
        self
    }

    /// Sets `sslpassword`, the password of the client's private key. Ignored if the key is not encrypted, as in libpq.
    /// Default: none.
    #[cfg(feature = "encrypted-keys")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encrypted-keys")))]
    pub fn with_key_password(mut self, password: impl Into<crate::config::Secret>) -> Self {
        self.key_password = Some(super::KeyPassword(password.into()));
        self
    }

    /// Sets `sslkeylogfile`, a file to which the secrets of each TLS session are appended in the NSS key log format, so
    /// that a program such as Wireshark can decrypt recorded traffic. For debugging only: the file reveals passwords
    /// and data. Default: none.
    #[cfg(feature = "keylog")]
    #[cfg_attr(docsrs, doc(cfg(feature = "keylog")))]
    pub fn with_key_log_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.key_log_file = Some(path.into());
        self
    }
}
