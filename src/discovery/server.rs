//! Queries one name server through hickory-resolver.
//!
//! Each name server has its own hickory pool (`NameServerPool`), because a hickory pool with several servers ends a
//! lookup at the first SERVFAIL or REFUSED. The `nameservers` module chooses the server for each query instead.

use std::{net::SocketAddr, sync::Arc};

use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverOpts, ServerOrderingStrategy},
    net::{
        DnsError, NetError,
        xfer::{DnsHandle as _, FirstAnswer as _},
    },
    proto::{
        op::{DnsRequestOptions, Query, ResponseCode},
        rr::{Name, RecordType},
    },
};

use super::{
    error::{ResolveErrorKind, ServerError},
    options::DnsOptions,
    rate_limit::RateLimit,
    records::{Answer, CNAME_CHAIN_TOO_LONG, CNAME_LOOP, MAX_ALIASES, Rejection, mnemonic, negative_ttl, sanitize},
    udp::{LastSocketError, Sockets},
};
use crate::{
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// Maximum size of a UDP response, advertised in EDNS. Larger responses may be fragmented and lost (RFC 9715).
const UDP_PAYLOAD: u16 = 1232;

/// The client of one name server.
pub(super) struct Server {
    address: SocketAddr,
    allow_loopback: bool,
    timeout: Duration,
    randomize_case: bool,
    pool: Mutex<NameServerPool<Sockets>>,
    rate_limit: Arc<Mutex<RateLimit>>,
    socket_error: LastSocketError,
}

impl Server {
    pub(super) fn new(
        address: SocketAddr,
        options: &DnsOptions,
        rate_limit: Arc<Mutex<RateLimit>>,
    ) -> Result<Self, NetError> {
        let socket_error = LastSocketError::default();
        let sockets = Sockets::new(rate_limit.clone(), socket_error.clone());
        let pool = pool(address, options.timeout, options.randomize_case, sockets)?;
        Ok(Self {
            address,
            allow_loopback: options.allow_loopback,
            timeout: options.timeout,
            randomize_case: options.randomize_case,
            pool: Mutex::new(pool),
            rate_limit,
            socket_error,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queries this server and follows CNAME records until a response contains the queried records.
    ///
    /// The caller must reserve the first packet in the rate limit before the call. `throttled` is set while lookups
    /// fail. If it is set, the packets for aliases wait for the rate limit.
    pub(super) async fn query(&self, name: &Name, kind: RecordType, throttled: bool) -> Result<Answer, ServerError> {
        let loopback = self.allow_loopback || self.address.ip().is_loopback();
        let mut aliases: Vec<Name> = Vec::new();
        let mut ttl = Duration::MAX;
        loop {
            let current = aliases.last().unwrap_or(name);
            while !aliases.is_empty()
                && let Err(free_at) = self.reserve(throttled)
            {
                tokio::time::sleep_until(free_at).await;
            }
            let mut answer = self.query_once(current, kind, loopback).await?;
            ttl = ttl.min(answer.ttl);
            answer.ttl = ttl;
            if answer.aliases.is_empty() || answer.has_records() {
                answer.aliases.splice(..0, aliases);
                return Ok(answer);
            }
            for alias in answer.aliases {
                let reason = if alias == *name || aliases.contains(&alias) {
                    CNAME_LOOP
                } else if aliases.len() == MAX_ALIASES {
                    CNAME_CHAIN_TOO_LONG
                } else {
                    aliases.push(alias);
                    continue;
                };
                return Err(self.rejected(name, kind, Rejection::malformed(reason)));
            }
        }
    }

    async fn query_once(&self, name: &Name, kind: RecordType, loopback: bool) -> Result<Answer, ServerError> {
        let pool = lock(&self.pool).clone();
        let mut guard = QueryGuard { server: self, answered: false };
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.edns_payload_len = UDP_PAYLOAD;
        let answer = match pool.lookup(Query::query(name.clone(), kind), options).first_answer().await {
            Ok(message) => {
                sanitize(name, kind, &message, loopback).map_err(|rejection| self.rejected(name, kind, rejection))
            }
            Err(error) => Err(self.failed(name, kind, error)),
        };
        guard.answered = answer.is_ok();
        answer
    }

    fn reserve(&self, throttled: bool) -> Result<(), Instant> {
        lock(&self.rate_limit).reserve(Instant::now(), throttled)
    }

    /// Replaces the hickory pool with a new one that has no connections and no statistics.
    ///
    /// hickory counts every negative response as a server failure. After some dozens of negative responses, hickory
    /// would wait several seconds before it retransmits a lost packet.
    fn recreate_pool(&self) {
        let sockets = Sockets::new(self.rate_limit.clone(), self.socket_error.clone());
        match pool(self.address, self.timeout, self.randomize_case, sockets) {
            Ok(new) => *lock(&self.pool) = new,
            Err(error) => {
                tracing::warn!(server = %self.address, %error, "cannot recreate the DNS client; keeping the old one");
            }
        }
    }

    /// Returns the error for an unusable response.
    fn rejected(&self, name: &Name, kind: RecordType, rejection: Rejection) -> ServerError {
        let error =
            ServerError::new(self.address, name, kind, rejection.kind).with_negative_ttl(rejection.negative_ttl);
        if rejection.reason.is_empty() { error } else { error.with_cause(rejection.reason) }
    }

    /// Returns the error for a query that hickory reports as failed. hickory also reports a negative response as a
    /// failed query.
    fn failed(&self, name: &Name, kind: RecordType, error: NetError) -> ServerError {
        let error_kind = match &error {
            NetError::Busy | NetError::Io(_) | NetError::NoConnections => ResolveErrorKind::Io,
            NetError::Dns(DnsError::NoRecordsFound(none)) => {
                let error_kind = match none.response_code {
                    ResponseCode::NXDomain => ResolveErrorKind::NoSuchName,
                    ResponseCode::NoError => ResolveErrorKind::NoAddress,
                    code => ResolveErrorKind::ServerFailure(mnemonic(code)),
                };
                let ttl = none.soa.as_ref().map(|soa| negative_ttl(soa.ttl, &soa.data));
                return ServerError::new(self.address, name, kind, error_kind).with_negative_ttl(ttl);
            }
            NetError::Dns(DnsError::ResponseCode(code)) => {
                return ServerError::new(self.address, name, kind, ResolveErrorKind::ServerFailure(mnemonic(*code)));
            }
            NetError::ForeignClassRecord { .. } | NetError::Proto(_) | NetError::QueryCaseMismatch => {
                ResolveErrorKind::Malformed
            }
            NetError::Timeout => ResolveErrorKind::Timeout,
            NetError::Truncated => ResolveErrorKind::Truncated,
            _ => ResolveErrorKind::Other,
        };
        let failed = ServerError::new(self.address, name, kind, error_kind);
        match lock(&self.socket_error).take() {
            Some(socket_error) if error_kind == ResolveErrorKind::Io => failed.with_cause(socket_error),
            _ => failed.with_cause(error),
        }
    }
}

/// A guard that recreates the hickory pool when a query fails or is cancelled. Without the guard, hickory would keep
/// using a TCP connection whose peer has stopped responding, because a cancelled query does not count as a failure of
/// the connection.
struct QueryGuard<'a> {
    server: &'a Server,
    answered: bool,
}

impl Drop for QueryGuard<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.server.recreate_pool();
        }
    }
}

/// Creates a hickory pool for one name server. The pool queries the server over UDP, and repeats a query over TCP after
/// a truncated response.
fn pool(
    address: SocketAddr,
    timeout: Duration,
    randomize_case: bool,
    sockets: Sockets,
) -> Result<NameServerPool<Sockets>, NetError> {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    let mut options = ResolverOpts::default();
    options.attempts = 0;
    options.cache_size = 0;
    options.case_randomization = randomize_case;
    options.edns0 = true;
    options.edns_payload_len = UDP_PAYLOAD;
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.timeout = timeout;
    options.use_hosts_file = ResolveHosts::Never;
    let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
    let server = NameServerConfig::new(address.ip(), true, connections);
    Ok(NameServerPool::from_config([server], context, sockets))
}
