use std::fmt;

/// An authentication method that a server can request (PostgreSQL manual, "Client Authentication"). The names are those
/// of libpq's `require_auth`.
///
/// The pool implements [`None`](Self::None), [`Password`](Self::Password), [`Md5`](Self::Md5) and
/// [`ScramSha256`](Self::ScramSha256). It refuses a server that requests another method.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum AuthMethod {
    /// The server requests no authentication: the methods `trust`, `peer`, and `cert`, which authenticates the client
    /// by its TLS certificate.
    None,
    /// A password in clear text: the methods `password`, `ldap`, `pam`, `radius` and `bsd`.
    Password,
    /// A password hashed with MD5 and a salt that the server selects.
    Md5,
    /// GSSAPI. Not implemented.
    Gss,
    /// SSPI. Not implemented.
    Sspi,
    /// SCRAM-SHA-256 (RFC 7677), in which the server also proves that it knows a hash of the password.
    ScramSha256,
    /// An OAuth bearer token. Not implemented.
    Oauth,
}

impl AuthMethod {
    /// Every method, in declaration order.
    pub(super) const ALL: [Self; 7] =
        [Self::None, Self::Password, Self::Md5, Self::Gss, Self::Sspi, Self::ScramSha256, Self::Oauth];
    /// The name of every method, in declaration order.
    pub(super) const KEYWORDS: [&str; 7] = ["none", "password", "md5", "gss", "sspi", "scram-sha-256", "oauth"];

    /// Returns the method's name in `require_auth`, such as `scram-sha-256`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::KEYWORDS[self as usize]
    }

    /// Returns true if the pool implements the method.
    pub(super) fn is_implemented(self) -> bool {
        matches!(self, Self::None | Self::Password | Self::Md5 | Self::ScramSha256)
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
