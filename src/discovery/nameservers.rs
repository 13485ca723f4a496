//! Chooses the name server for each query.
//!
//! - After an error, the next server is queried immediately. Errors are SERVFAIL, REFUSED, a malformed response, a
//!   truncated response that cannot be fetched over TCP, and a closed port.
//! - If a server does not respond within the hedge delay, the next server is queried as well. The first usable response
//!   is the result.
//! - A negative response (NXDOMAIN or NODATA) is an answer, so the query ends. The other servers are queried only if
//!   `retry_negative` is set.
//! - A server that failed is demoted: it is queried last for 30 s. A dead server therefore adds the hedge delay only to
//!   the first lookup of each demotion, rather than to every lookup.

use std::{net::SocketAddr, sync::Arc};

use hickory_resolver::{
    net::NetError,
    proto::rr::{Name, RecordType},
};
use tokio::time::{sleep_until, timeout};

use super::{
    error::{ResolveErrorKind, ServerError},
    options::DnsOptions,
    rate_limit::RateLimit,
    records::Answer,
    server::Server,
    stats::DnsStats,
};
use crate::{
    sync::{Mutex, lock},
    system::JoinSet,
    time::{Duration, Instant},
};

/// Time for which a server that failed is queried last.
const DEMOTION: Duration = Duration::from_secs(30);

/// The name servers, in order of preference.
pub(super) struct NameServers {
    servers: Vec<Arc<Server>>,
    /// End of each server's demotion, or `None` if the server is not demoted.
    demoted: Mutex<Vec<Option<Instant>>>,
    hedge: Duration,
    retry_negative: bool,
    rate_limit: Arc<Mutex<RateLimit>>,
    stats: Arc<Mutex<DnsStats>>,
}

/// An answer and the server that returned it.
#[derive(Debug)]
pub(super) struct ServerAnswer {
    pub(super) server: SocketAddr,
    pub(super) answer: Answer,
}

impl NameServers {
    pub(super) fn new(
        addresses: &[SocketAddr],
        options: &DnsOptions,
        rate_limit: &Arc<Mutex<RateLimit>>,
        stats: &Arc<Mutex<DnsStats>>,
    ) -> Result<Self, NetError> {
        let servers = addresses.iter().map(|address| Server::new(*address, options, rate_limit.clone()).map(Arc::new));
        Ok(Self {
            servers: servers.collect::<Result<_, _>>()?,
            demoted: Mutex::new(vec![None; addresses.len()]),
            hedge: options.hedge,
            retry_negative: options.retry_negative,
            rate_limit: rate_limit.clone(),
            stats: stats.clone(),
        })
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.servers.iter().map(|server| server.address())
    }

    /// Queries the servers until one has answered, all have failed, or `deadline` has passed. Dropping the future
    /// cancels all in-flight queries.
    pub(super) async fn query(
        &self,
        name: &Name,
        kind: RecordType,
        throttled: bool,
        deadline: Instant,
    ) -> Result<ServerAnswer, Vec<ServerError>> {
        let mut order = self.order(Instant::now()).into_iter().peekable();
        let mut queries = JoinSet::new();
        // Servers that have been queried and have not responded yet, in query order.
        let mut pending: Vec<usize> = Vec::new();
        let mut errors = Vec::new();
        // Time of the next query: immediately, after the hedge delay, or when the rate limit allows it.
        let mut next_at = Instant::now();
        loop {
            if Instant::now() >= next_at
                && let Some(&index) = order.peek()
            {
                match lock(&self.rate_limit).reserve(Instant::now(), throttled) {
                    Ok(()) => {
                        order.next();
                        let (server, name) = (self.servers[index].clone(), name.clone());
                        queries.spawn(async move { (index, server.query(&name, kind, throttled).await) });
                        pending.push(index);
                        next_at = Instant::now() + self.hedge;
                    }
                    Err(free_at) => next_at = free_at,
                }
            }
            let more = order.peek().is_some();
            if queries.is_empty() && !more {
                return Err(prefer_negative(errors));
            }
            let wake = if more { next_at.min(deadline) } else { deadline };
            tokio::select! {
                biased;
                Some(done) = queries.join_next() => match done {
                    Ok((index, Ok(answer))) => {
                        self.count(index, Ok(()));
                        self.responded(index, &pending);
                        return Ok(ServerAnswer { server: self.servers[index].address(), answer });
                    }
                    Ok((index, Err(error))) => {
                        let negative = error.kind().is_negative();
                        self.count(index, Err(&error));
                        errors.push(error);
                        if negative {
                            self.responded(index, &pending);
                        } else {
                            self.demote([index]);
                        }
                        if negative && !self.retry_negative {
                            return Err(prefer_negative(errors));
                        }
                        pending.retain(|queried| *queried != index);
                        next_at = Instant::now();
                    }
                    Err(join_error) => {
                        // The task panicked or the runtime is shutting down. The error does not identify the server, so
                        // report the first pending server.
                        let server = pending.first().map_or(0, |index| *index);
                        errors.push(self.error(server, name, kind, ResolveErrorKind::Other).with_cause(join_error));
                        return Err(prefer_negative(errors));
                    }
                },
                () = sleep_until(wake) => {
                    if Instant::now() >= deadline {
                        self.demote(pending.iter().copied());
                        for index in pending {
                            let error = self.error(index, name, kind, ResolveErrorKind::Timeout);
                            self.count(index, Err(&error));
                            errors.push(error);
                        }
                        // Servers that were not queried are not demoted, so the next lookup queries them first.
                        errors.extend(order.map(|index| {
                            let error = self.error(index, name, kind, ResolveErrorKind::Timeout);
                            error.with_cause("not queried before the deadline: packets are limited while lookups fail")
                        }));
                        return Err(prefer_negative(errors));
                    }
                }
            }
        }
    }

    fn error(&self, index: usize, name: &Name, kind: RecordType, error_kind: ResolveErrorKind) -> ServerError {
        ServerError::new(self.servers[index].address(), name, kind, error_kind)
    }

    /// Queries one server once. Does not change the server's demotion or statistics. Returns `None` if the query fails
    /// or takes longer than `within`.
    pub(super) async fn query_one(
        &self,
        address: SocketAddr,
        name: &Name,
        kind: RecordType,
        within: Duration,
    ) -> Option<Answer> {
        let server = self.servers.iter().find(|server| server.address() == address)?;
        lock(&self.rate_limit).reserve(Instant::now(), false).ok()?;
        match timeout(within, server.query(name, kind, false)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(%error, "auxiliary DNS query failed; the lookup is not affected");
                None
            }
            Err(_) => {
                tracing::debug!(server = %address, %name, "auxiliary DNS query timed out; the lookup is not affected");
                None
            }
        }
    }

    fn count(&self, index: usize, result: Result<(), &ServerError>) {
        lock(&self.stats).server(self.servers[index].address(), result);
    }

    /// Returns the indices of the servers in query order: demoted servers last.
    fn order(&self, now: Instant) -> Vec<usize> {
        let mut demoted = lock(&self.demoted);
        for until in demoted.iter_mut() {
            if until.is_some_and(|until| until <= now) {
                *until = None;
            }
        }
        let mut order: Vec<_> = (0..demoted.len()).collect();
        order.sort_by_key(|index| demoted[*index].is_some());
        order
    }

    fn demote(&self, indices: impl IntoIterator<Item = usize>) {
        let until = Instant::now() + DEMOTION;
        let mut demoted = lock(&self.demoted);
        for index in indices {
            demoted[index] = Some(until);
        }
    }

    /// Ends the demotion of a server that responded, and demotes the servers that were queried before it but have not
    /// responded.
    fn responded(&self, index: usize, pending: &[usize]) {
        self.demote(pending.iter().copied().take_while(|queried| *queried != index));
        lock(&self.demoted)[index] = None;
    }
}

/// If there are negative responses, removes all other errors: a negative response is an answer, even if other servers
/// failed.
fn prefer_negative(mut errors: Vec<ServerError>) -> Vec<ServerError> {
    if errors.iter().any(|error| error.kind().is_negative()) {
        errors.retain(|error| error.kind().is_negative());
    }
    errors
}
