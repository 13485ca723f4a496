use std::{error, fmt, net::SocketAddr, sync::Arc, time::Duration};

use hickory_resolver::proto::rr::{Name, RecordType};

use crate::error::{BoxError, Chain};

/// The error of a failed lookup, with its kind, the queried name, and the error of each query to a name server.
///
/// Cloning increments a reference count.
#[derive(Clone)]
pub struct ResolveError(Arc<Inner>);

struct Inner {
    kind: ResolveErrorKind,
    name: Option<Arc<str>>,
    message: Option<String>,
    servers: Vec<ServerError>,
    negative_ttl: Option<Duration>,
    source: Option<BoxError>,
}

/// The kind of a [`ResolveError`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ResolveErrorKind {
    /// A socket could not be opened or used. If the name server's port is closed, the cause is "connection refused".
    Io,
    /// The response could not be parsed, or none of its records matches the query.
    Malformed,
    /// The name exists but has no records of the queried type (NODATA, RFC 2308 section 2.2), or a custom
    /// [`Resolve`](super::Resolve) returned [`no_pods`](ResolveError::no_pods).
    NoAddress,
    /// No name server is configured.
    NoNameServer,
    /// The name does not exist (NXDOMAIN, RFC 2308 section 2.1). Kubernetes returns this for a headless Service without
    /// a ready Pod too (DNS specification, 2.4.1).
    NoSuchName,
    /// Any other error. The text and the source of the [`ResolveError`] describe the error.
    Other,
    /// The name server returned this error code, such as SERVFAIL, REFUSED or FORMERR.
    ServerFailure(&'static str),
    /// No response arrived before the deadline.
    Timeout,
    /// The response did not fit into a UDP packet, and the query over TCP failed. A truncated response is never used.
    Truncated,
}

impl ResolveErrorKind {
    /// Returns the kind as a stable snake-case word, such as `no_such_name`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Malformed => "malformed",
            Self::NoAddress => "no_address",
            Self::NoNameServer => "no_name_server",
            Self::NoSuchName => "no_such_name",
            Self::Other => "other",
            Self::ServerFailure(_) => "server_failure",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
        }
    }

    /// Returns true for NXDOMAIN and NODATA.
    pub(crate) fn is_negative(self) -> bool {
        matches!(self, Self::NoAddress | Self::NoSuchName)
    }

    /// Returns the precedence of this kind. The highest precedence among the errors of several queries determines the
    /// kind of the lookup's error. An error of a name server outweighs a negative response, because the failed query
    /// might have returned addresses. A more specific error outweighs a less specific one.
    fn precedence(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::NoNameServer => 1,
            Self::NoAddress => 2,
            Self::NoSuchName => 3,
            Self::Timeout => 4,
            Self::Io => 5,
            Self::Malformed => 6,
            Self::Truncated => 7,
            Self::ServerFailure(_) => 8,
        }
    }
}

impl fmt::Display for ResolveErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "cannot reach the name server",
            Self::Malformed => "malformed DNS response",
            Self::NoAddress => "the name has no records of the queried type (NODATA)",
            Self::NoNameServer => "no name server is configured",
            Self::NoSuchName => "the name does not exist (NXDOMAIN)",
            Self::Other => "the lookup failed",
            Self::ServerFailure(code) => return write!(f, "the name server returned {code}"),
            Self::Timeout => "no DNS response before the deadline",
            Self::Truncated => "the DNS response was truncated and the query over TCP failed",
        })
    }
}

/// The error of one query to one name server. The text includes the cause.
#[derive(Clone, Debug)]
pub struct ServerError {
    address: SocketAddr,
    name: Arc<str>,
    record_type: RecordType,
    kind: ResolveErrorKind,
    negative_ttl: Option<Duration>,
    cause: Option<Arc<dyn error::Error + Send + Sync>>,
}

impl ServerError {
    pub(crate) fn new(address: SocketAddr, name: &Name, record_type: RecordType, kind: ResolveErrorKind) -> Self {
        Self { address, name: name.to_ascii().into(), record_type, kind, negative_ttl: None, cause: None }
    }

    pub(crate) fn with_cause(mut self, cause: impl Into<BoxError>) -> Self {
        self.cause = Some(Arc::from(cause.into()));
        self
    }

    pub(crate) fn with_negative_ttl(mut self, ttl: Option<Duration>) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// Returns the address of the name server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the absolute name that was queried.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the queried record type: `A`, `AAAA` or `SRV`.
    #[must_use]
    pub fn record_type(&self) -> String {
        self.record_type.to_string()
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> ResolveErrorKind {
        self.kind
    }

    /// Returns the cause of the error, if the cause has details that the kind does not express.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn error::Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} query for {} to {}: {}", self.record_type, self.name, self.address, self.kind)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {}", Chain(&**cause))?;
        }
        Ok(())
    }
}

impl ResolveError {
    /// Creates the error that a custom [`Resolve`](super::Resolve) returns if its lookup failed. The pool keeps the
    /// Pods it has.
    #[must_use]
    pub fn other(source: impl Into<BoxError>) -> Self {
        Self::inner(ResolveErrorKind::Other, None).with_source(source).into_error()
    }

    /// Creates the error that a custom [`Resolve`](super::Resolve) returns if there are no Pods.
    ///
    /// The pool removes its Pods only if this result repeats for at least 10 s, and for at least `ttl` if that is
    /// longer.
    #[must_use]
    pub fn no_pods(ttl: Option<Duration>) -> Self {
        let mut inner = Self::inner(ResolveErrorKind::NoAddress, None);
        inner.message = Some("there are no Pods".into());
        inner.negative_ttl = ttl;
        inner.into_error()
    }

    /// Creates an error whose text is `message` instead of the text of `kind`.
    pub(crate) fn with_message(
        kind: ResolveErrorKind,
        name: Option<Arc<str>>,
        message: impl Into<String>,
        source: Option<BoxError>,
    ) -> Self {
        let mut inner = Self::inner(kind, name);
        inner.message = Some(message.into());
        inner.source = source;
        inner.into_error()
    }

    /// Creates the error of a lookup from the errors of its queries. A failed query for one address family outweighs a
    /// negative response for the other, because the first family may have addresses.
    pub(crate) fn from_servers(name: Arc<str>, servers: Vec<ServerError>) -> Self {
        let kind = match servers.iter().map(|server| server.kind).max_by_key(|kind| kind.precedence()) {
            // If one query returns NXDOMAIN and another NODATA, the name exists.
            Some(ResolveErrorKind::NoSuchName)
                if servers.iter().any(|server| server.kind == ResolveErrorKind::NoAddress) =>
            {
                ResolveErrorKind::NoAddress
            }
            Some(kind) => kind,
            None => ResolveErrorKind::Other,
        };
        let mut inner = Self::inner(kind, Some(name));
        inner.negative_ttl = servers.iter().filter_map(|server| server.negative_ttl).max();
        inner.servers = servers;
        inner.into_error()
    }

    /// Creates the error of a lookup in which several sources failed, each with its description. The kind and the
    /// negative TTL are those of `decisive`. Without it, the kind is [`Other`](ResolveErrorKind::Other).
    pub(super) fn combined(errors: &[(String, Self)], decisive: Option<&Self>) -> Self {
        let texts: Vec<_> = errors.iter().map(|(source, error)| format!("{source}: {}", Chain(error))).collect();
        let mut inner = Self::inner(decisive.map_or(ResolveErrorKind::Other, Self::kind), None);
        inner.message = Some(texts.join("; "));
        inner.negative_ttl = decisive.and_then(Self::negative_ttl);
        inner.into_error()
    }

    fn inner(kind: ResolveErrorKind, name: Option<Arc<str>>) -> Inner {
        Inner { kind, name, message: None, servers: Vec::new(), negative_ttl: None, source: None }
    }

    /// Returns the kind of the error. If several queries failed, this is the most specific of their kinds.
    #[must_use]
    pub fn kind(&self) -> ResolveErrorKind {
        self.0.kind
    }

    /// Returns true if there are no Pods (NXDOMAIN or NODATA), and false if the set of Pods is unknown.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.0.kind.is_negative()
    }

    /// Returns the validity of a negative response: the smaller of the SOA record's TTL and its `minimum` field (RFC
    /// 2308 section 5), limited to one day. Returns `None` if the response has no SOA record.
    #[must_use]
    pub fn negative_ttl(&self) -> Option<Duration> {
        self.0.negative_ttl
    }

    /// Returns the absolute name that was queried, which begins with `_port._tcp.` for SRV records. Until a name from
    /// the search list has resolved, returns the configured name, with the same prefix. Returns `None` if the source of
    /// the Pods does not use names.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Returns the errors of all queries, in the order in which they failed.
    #[must_use]
    pub fn servers(&self) -> &[ServerError] {
        &self.0.servers
    }
}

impl Inner {
    fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    fn into_error(self) -> ResolveError {
        ResolveError(Arc::new(self))
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, name, message, servers, .. } = &*self.0;
        if let Some(name) = name {
            write!(f, "{name}: ")?;
        }
        match message {
            Some(message) => f.write_str(message)?,
            None => write!(f, "{kind}")?,
        }
        for (i, server) in servers.iter().enumerate() {
            write!(f, "{} {server}", if i == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, name, message, servers, negative_ttl, source } = &*self.0;
        f.debug_struct("ResolveError")
            .field("kind", kind)
            .field("name", name)
            .field("message", message)
            .field("servers", servers)
            .field("negative_ttl", negative_ttl)
            .field("source", source)
            .finish()
    }
}

impl error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn server(last: u8, record_type: RecordType, kind: ResolveErrorKind) -> ServerError {
        let name = Name::from_ascii("a.svc.").unwrap();
        ServerError::new(SocketAddr::from(([10, 0, 0, last], 53)), &name, record_type, kind)
    }

    #[test]
    fn text_lists_every_query_and_an_error_outweighs_nodata() {
        let error = ResolveError::from_servers(
            "a.svc.".into(),
            vec![
                server(1, RecordType::A, ResolveErrorKind::ServerFailure("SERVFAIL")),
                server(2, RecordType::AAAA, ResolveErrorKind::NoAddress),
            ],
        );
        assert_eq!(
            error.to_string(),
            "a.svc.: the name server returned SERVFAIL: A query for a.svc. to 10.0.0.1:53: the name server returned \
             SERVFAIL; AAAA query for a.svc. to 10.0.0.2:53: the name has no records of the queried type (NODATA)"
        );
        assert!(!error.is_negative());
    }

    #[test]
    fn is_negative_only_if_all_queries_are_and_has_the_longest_ttl() {
        let ttl = |seconds| Some(Duration::from_secs(seconds));
        let both = vec![
            server(1, RecordType::A, ResolveErrorKind::NoSuchName).with_negative_ttl(ttl(5)),
            server(1, RecordType::AAAA, ResolveErrorKind::NoSuchName).with_negative_ttl(ttl(30)),
        ];
        let error = ResolveError::from_servers("a.".into(), both);
        assert_eq!((error.kind(), error.negative_ttl()), (ResolveErrorKind::NoSuchName, ttl(30)));
        let mixed = vec![
            server(1, RecordType::A, ResolveErrorKind::NoSuchName),
            server(1, RecordType::AAAA, ResolveErrorKind::NoAddress),
        ];
        assert_eq!(ResolveError::from_servers("a.".into(), mixed).kind(), ResolveErrorKind::NoAddress);
        assert!(!ResolveError::from_servers("a.".into(), Vec::new()).is_negative());
    }

    #[test]
    fn other_returns_its_source_without_repeating_its_text() {
        let error = ResolveError::other(std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(error.kind(), ResolveErrorKind::Other);
        assert!(error.source().unwrap().is::<std::io::Error>());
        assert!(!error.to_string().contains(&error.source().unwrap().to_string()));
    }

    #[test]
    fn texts_for_a_custom_resolver_do_not_mention_dns() {
        assert_eq!(ResolveError::other("a cause").to_string(), "the lookup failed");
        let no_pods = ResolveError::no_pods(None);
        assert_eq!(no_pods.to_string(), "there are no Pods");
        assert!(no_pods.is_negative());
    }
}
