use std::{error, fmt, net::SocketAddr, sync::Arc, time::Duration};

use hickory_resolver::proto::rr::{Name, RecordType};

use crate::error::BoxError;

/// Why a lookup gave no answer: what sort of trouble, the name asked for, and every name server with its own error.
///
/// A clone costs one reference count.
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

/// What sort of trouble a [`ResolveError`] is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ResolveErrorKind {
    /// A socket could not be opened or used; a closed port says "connection refused".
    Io,
    /// The answer could not be read, or nothing in it can be an answer to what was asked.
    Malformed,
    /// The name exists and has no such record (NODATA, RFC 2308 section 2.2).
    NoAddress,
    /// There is nobody to ask: no name server is configured.
    NoNameServer,
    /// The name does not exist (NXDOMAIN, RFC 2308 section 2.1). Kubernetes says so of a headless Service without a
    /// ready Pod too (DNS specification, 2.4.1).
    NoSuchName,
    /// Something else; see the text and the source.
    Other,
    /// The server answered with this error: SERVFAIL, REFUSED, FORMERR and the like.
    ServerFailure(&'static str),
    /// No answer in time.
    Timeout,
    /// The answer did not fit into a UDP packet and could not be fetched by TCP. A part of an answer is never used.
    Truncated,
}

impl ResolveErrorKind {
    /// The kind in lower case with underscores: `no_such_name`, `server_failure`, and so on. Stable.
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

    /// Whether the answer is "there is nothing".
    pub(crate) fn is_negative(self) -> bool {
        matches!(self, Self::NoAddress | Self::NoSuchName)
    }

    /// Which of several servers' errors tells most: an answer more than none, and the rarer more than the commoner.
    fn telling(self) -> u8 {
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
            Self::Io => "the name server could not be reached",
            Self::Malformed => "the answer is malformed",
            Self::NoAddress => "the name has no such record (NODATA)",
            Self::NoNameServer => "no name server is configured",
            Self::NoSuchName => "no such name (NXDOMAIN)",
            Self::Other => "the lookup failed",
            Self::ServerFailure(code) => return write!(f, "the name server failed ({code})"),
            Self::Timeout => "no answer in time",
            Self::Truncated => "the answer was truncated and could not be fetched by TCP",
        })
    }
}

/// One question to one name server that was not answered with what was asked for. Its text ends with its cause.
#[derive(Clone, Debug)]
pub struct ServerError {
    address: SocketAddr,
    name: Arc<str>,
    asked: RecordType,
    kind: ResolveErrorKind,
    negative_ttl: Option<Duration>,
    cause: Option<Arc<dyn error::Error + Send + Sync>>,
}

impl ServerError {
    pub(crate) fn new(address: SocketAddr, name: &Name, asked: RecordType, kind: ResolveErrorKind) -> Self {
        Self { address, name: name.to_ascii().into(), asked, kind, negative_ttl: None, cause: None }
    }

    pub(crate) fn with_cause(mut self, cause: impl Into<BoxError>) -> Self {
        self.cause = Some(Arc::from(cause.into()));
        self
    }

    pub(crate) fn with_negative_ttl(mut self, ttl: Option<Duration>) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// The name server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The absolute name that was asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was asked for: `A`, `AAAA` or `SRV`.
    #[must_use]
    pub fn asked(&self) -> String {
        self.asked.to_string()
    }

    /// What sort of trouble it was.
    #[must_use]
    pub fn kind(&self) -> ResolveErrorKind {
        self.kind
    }

    /// What happened, where there is more to say than the kind does.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn error::Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} asked for {} of {}: {}", self.address, self.asked, self.name, self.kind)?;
        let mut next: Option<&dyn error::Error> = self.cause.as_deref().map(|cause| cause as _);
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl ResolveError {
    /// An error of a [`Resolve`](super::Resolve) of your own: nothing is known, keep what there is.
    #[must_use]
    pub fn other(source: impl Into<BoxError>) -> Self {
        Self::build(ResolveErrorKind::Other, None).with_source(source).done()
    }

    /// A [`Resolve`](super::Resolve) of your own knows that there are no Pods, and for how long that holds.
    #[must_use]
    pub fn no_pods(holds: Option<Duration>) -> Self {
        let mut inner = Self::build(ResolveErrorKind::NoAddress, None);
        inner.negative_ttl = holds;
        inner.done()
    }

    pub(crate) fn told(
        kind: ResolveErrorKind,
        name: Option<Arc<str>>,
        message: impl Into<String>,
        source: Option<BoxError>,
    ) -> Self {
        let mut inner = Self::build(kind, name);
        inner.message = Some(message.into());
        inner.source = source;
        inner.done()
    }

    /// Of the questions to name servers that failed. Negative only if every one of them was answered so: an error
    /// beside a negative answer is an error, because the missing half may be full.
    pub(crate) fn of_servers(name: Arc<str>, servers: Vec<ServerError>) -> Self {
        let kind = match servers.iter().map(|server| server.kind).max_by_key(|kind| kind.telling()) {
            // One family denied the name and the other did not: two servers disagree, and the weaker word counts.
            Some(ResolveErrorKind::NoSuchName)
                if servers.iter().any(|server| server.kind == ResolveErrorKind::NoAddress) =>
            {
                ResolveErrorKind::NoAddress
            }
            Some(kind) => kind,
            None => ResolveErrorKind::Other,
        };
        let mut inner = Self::build(kind, Some(name));
        inner.negative_ttl = servers.iter().filter_map(|server| server.negative_ttl).max();
        inner.servers = servers;
        inner.done()
    }

    fn build(kind: ResolveErrorKind, name: Option<Arc<str>>) -> Inner {
        Inner { kind, name, message: None, servers: Vec::new(), negative_ttl: None, source: None }
    }

    /// What sort of trouble it is; of several servers' errors the one that tells most.
    #[must_use]
    pub fn kind(&self) -> ResolveErrorKind {
        self.0.kind
    }

    /// Whether the answer is "there are no Pods" (NXDOMAIN or NODATA) rather than "nobody knows".
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.0.kind.is_negative()
    }

    /// How long a negative answer holds by its own word: the smaller of the SOA record's TTL and its `minimum`
    /// (RFC 2308 section 5). `None` where no SOA record came.
    #[must_use]
    pub fn negative_ttl(&self) -> Option<Duration> {
        self.0.negative_ttl
    }

    /// The absolute name that was asked for, where a name was asked for.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Every name server that was asked, in order, each with its own error.
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

    fn done(self) -> ResolveError {
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

    fn server(last: u8, asked: RecordType, kind: ResolveErrorKind) -> ServerError {
        ServerError::new(SocketAddr::from(([10, 0, 0, last], 53)), &Name::from_ascii("a.svc.").unwrap(), asked, kind)
    }

    #[test]
    fn names_the_name_and_every_server_and_an_error_outweighs_a_negative_answer() {
        let error = ResolveError::of_servers(
            "a.svc.".into(),
            vec![
                server(1, RecordType::A, ResolveErrorKind::ServerFailure("SERVFAIL")),
                server(2, RecordType::AAAA, ResolveErrorKind::NoAddress),
            ],
        );
        assert_eq!(
            error.to_string(),
            "a.svc.: the name server failed (SERVFAIL): 10.0.0.1:53 asked for A of a.svc.: the name server failed \
             (SERVFAIL); 10.0.0.2:53 asked for AAAA of a.svc.: the name has no such record (NODATA)"
        );
        assert!(!error.is_negative());
    }

    #[test]
    fn is_negative_only_when_everyone_says_so_and_keeps_the_longest_ttl() {
        let ttl = |seconds| Some(Duration::from_secs(seconds));
        let both = vec![
            server(1, RecordType::A, ResolveErrorKind::NoSuchName).with_negative_ttl(ttl(5)),
            server(1, RecordType::AAAA, ResolveErrorKind::NoSuchName).with_negative_ttl(ttl(30)),
        ];
        let error = ResolveError::of_servers("a.".into(), both);
        assert_eq!((error.kind(), error.negative_ttl()), (ResolveErrorKind::NoSuchName, ttl(30)));
        let mixed = vec![
            server(1, RecordType::A, ResolveErrorKind::NoSuchName),
            server(1, RecordType::AAAA, ResolveErrorKind::NoAddress),
        ];
        assert_eq!(ResolveError::of_servers("a.".into(), mixed).kind(), ResolveErrorKind::NoAddress);
        assert!(!ResolveError::of_servers("a.".into(), Vec::new()).is_negative());
    }

    #[test]
    fn keeps_the_cause_of_an_own_source() {
        let error = ResolveError::other(std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(error.kind(), ResolveErrorKind::Other);
        assert!(error.source().unwrap().is::<std::io::Error>());
        assert!(!error.to_string().contains(&error.source().unwrap().to_string()));
    }
}
