/// The properties of a TLS session. A connector that was passed to the builder reports none of the optional ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TlsSession {
    /// True if the server's certificate and, except with `verify-ca`, its name were verified, or if the connector was
    /// passed to the builder.
    pub(crate) verified: bool,
    /// The protocol version, such as `TLSv1.3`.
    pub(crate) version: Option<&'static str>,
    /// The cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub(crate) cipher: Option<&'static str>,
    /// The SHA-256 hash of the server's certificate.
    pub(crate) fingerprint: Option<[u8; 32]>,
}
