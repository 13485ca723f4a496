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
    records::{Answer, MAX_ALIASES, Refusal, mnemonic, sanitise},
    udp::{Sockets, Trouble},
};
use crate::{
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// The size of a UDP answer asked for. Larger ones may be fragmented and lost (RFC 9715).
const UDP_PAYLOAD: u16 = 1232;

/// One name server: a hickory pool of this server alone, so that which server is asked next, and when, is decided here
/// and not by hickory, which ends a lookup at the first SERVFAIL.
pub(super) struct Server {
    address: SocketAddr,
    allow_loopback: bool,
    timeout: Duration,
    randomize_case: bool,
    pool: Mutex<NameServerPool<Sockets>>,
    rate_limit: Arc<Mutex<RateLimit>>,
    trouble: Trouble,
}

impl Server {
    pub(super) fn new(
        address: SocketAddr,
        options: &DnsOptions,
        rate_limit: Arc<Mutex<RateLimit>>,
    ) -> Result<Self, NetError> {
        let trouble = Trouble::default();
        let sockets = Sockets::new(rate_limit.clone(), trouble.clone());
        let pool = pool(address, options.timeout, options.randomize_case, sockets)?;
        Ok(Self {
            address,
            allow_loopback: options.allow_loopback,
            timeout: options.timeout,
            randomize_case: options.randomize_case,
            pool: Mutex::new(pool),
            rate_limit,
            trouble,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks this server, along the name's aliases to their end. The first packet has its place in the rate_limit already.
    /// `hold`: whether lookups fail, so that those after it wait for room.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType, hold: bool) -> Result<Answer, ServerError> {
        let loopback = self.allow_loopback || self.address.ip().is_loopback();
        let mut aliases: Vec<Name> = Vec::new();
        let mut ttl = Duration::MAX;
        loop {
            let asked = aliases.last().unwrap_or(name);
            while !aliases.is_empty()
                && let Err(room) = self.reserve(hold)
            {
                tokio::time::sleep_until(room).await;
            }
            let mut answer = self.ask_once(asked, kind, loopback).await?;
            ttl = ttl.min(answer.ttl);
            answer.ttl = ttl;
            if answer.aliases.is_empty() || !answer.has_nothing() {
                answer.aliases.splice(..0, aliases);
                return Ok(answer);
            }
            for alias in answer.aliases {
                let why = if alias == *name || aliases.contains(&alias) {
                    "the CNAME records go in a circle"
                } else if aliases.len() == MAX_ALIASES {
                    "the chain of CNAME records is too long"
                } else {
                    aliases.push(alias);
                    continue;
                };
                return Err(self.refused(name, kind, Refusal::malformed(why)));
            }
        }
    }

    async fn ask_once(&self, name: &Name, kind: RecordType, loopback: bool) -> Result<Answer, ServerError> {
        let pool = lock(&self.pool).clone();
        let mut asking = Asking { server: self, keep: false };
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.edns_payload_len = UDP_PAYLOAD;
        let answer = match pool.lookup(Query::query(name.clone(), kind), options).first_answer().await {
            Ok(message) => {
                sanitise(name, kind, &message, loopback).map_err(|refusal| self.refused(name, kind, refusal))
            }
            Err(error) => Err(self.failed(name, kind, error)),
        };
        asking.keep = answer.is_ok();
        answer
    }

    fn reserve(&self, hold: bool) -> Result<(), Instant> {
        lock(&self.rate_limit).reserve(Instant::now(), hold)
    }

    /// Begins anew with an empty memory: hickory counts every negative answer as a slow one, and after some dozens of
    /// them repeats a lost packet only after seconds.
    fn renew(&self) {
        let sockets = Sockets::new(self.rate_limit.clone(), self.trouble.clone());
        match pool(self.address, self.timeout, self.randomize_case, sockets) {
            Ok(fresh) => *lock(&self.pool) = fresh,
            Err(error) => tracing::warn!(server = %self.address, %error, "the name server's client was not renewed"),
        }
    }

    fn refused(&self, name: &Name, kind: RecordType, refusal: Refusal) -> ServerError {
        let error = ServerError::new(self.address, name, kind, refusal.kind).with_negative_ttl(refusal.negative_ttl);
        if refusal.why.is_empty() { error } else { error.with_cause(refusal.why) }
    }

    fn failed(&self, name: &Name, kind: RecordType, error: NetError) -> ServerError {
        let why = match &error {
            NetError::Busy | NetError::Io(_) | NetError::NoConnections => ResolveErrorKind::Io,
            NetError::Dns(DnsError::NoRecordsFound(none)) => {
                let why = match none.response_code {
                    ResponseCode::NXDomain => ResolveErrorKind::NoSuchName,
                    ResponseCode::NoError => ResolveErrorKind::NoAddress,
                    code => ResolveErrorKind::ServerFailure(mnemonic(code)),
                };
                let ttl = none.negative_ttl.map(|ttl| Duration::from_secs(u64::from(ttl)));
                return ServerError::new(self.address, name, kind, why).with_negative_ttl(ttl);
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
        let failed = ServerError::new(self.address, name, kind, why);
        match lock(&self.trouble).take() {
            Some(trouble) if why == ResolveErrorKind::Io => failed.with_cause(trouble),
            _ => failed.with_cause(error),
        }
    }
}

/// A question on its way. Ended by anything but an answer, given up included, it has the client renewed: hickory would
/// go on using a TCP connection on which nothing comes any more, because it never learns that nobody waits for it.
struct Asking<'a> {
    server: &'a Server,
    keep: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.server.renew();
        }
    }
}

/// A hickory pool of one server, with UDP first and TCP for what is truncated.
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
