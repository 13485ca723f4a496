//! Which name server is asked, and when the next one is.
//!
//! - An error (SERVFAIL, REFUSED, a truncated answer, rubbish, a closed port) moves on to the next server at once.
//! - Silence moves on after the hedge, and the first server is still listened to.
//! - "There is nothing" is an answer; the rest are asked too only where the options doubt it.
//! - A server that failed is asked last for half a minute, so that a dead one costs one hedge and not one a lookup.

use std::{net::SocketAddr, sync::Arc};

use hickory_resolver::{
    net::NetError,
    proto::rr::{Name, RecordType},
};
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};

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
    time::{Duration, Instant},
};

/// How long a server that failed is asked last.
const ASIDE: Duration = Duration::from_secs(30);

/// The name servers in order of preference.
pub(super) struct NameServers {
    servers: Vec<Arc<Server>>,
    /// Until when each is put aside.
    aside: Mutex<Vec<Option<Instant>>>,
    hedge: Duration,
    doubt_negative: bool,
    rate_limit: Arc<Mutex<RateLimit>>,
    stats: Arc<Mutex<DnsStats>>,
}

/// An answer, and who gave it.
#[derive(Debug)]
pub(super) struct Answered {
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
            aside: Mutex::new(vec![None; addresses.len()]),
            hedge: options.hedge,
            doubt_negative: options.doubt_negative,
            rate_limit: rate_limit.clone(),
            stats: stats.clone(),
        })
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.servers.iter().map(|server| server.address())
    }

    /// Asks until one server has answered or all have failed, or `deadline` passes. Dropping the future stops every
    /// question it asked.
    pub(super) async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        hold: bool,
        deadline: Instant,
    ) -> Result<Answered, Vec<ServerError>> {
        let mut order = self.order(Instant::now()).into_iter().peekable();
        let mut asking = JoinSet::new();
        // Who was asked and has not answered, in the order asked.
        let mut silent: Vec<usize> = Vec::new();
        let mut errors = Vec::new();
        // When the next server is asked: now, after the hedge, or when there is room for its packet.
        let mut next_at = Instant::now();
        loop {
            if Instant::now() >= next_at
                && let Some(&index) = order.peek()
            {
                match lock(&self.rate_limit).reserve(Instant::now(), hold) {
                    Ok(()) => {
                        order.next();
                        let (server, name) = (self.servers[index].clone(), name.clone());
                        asking.spawn(async move { (index, server.ask(&name, kind, hold).await) });
                        silent.push(index);
                        next_at = Instant::now() + self.hedge;
                    }
                    Err(room) => next_at = room,
                }
            }
            let more = order.peek().is_some();
            if asking.is_empty() && !more {
                return Err(outcome(errors));
            }
            let wake = if more { next_at.min(deadline) } else { deadline };
            tokio::select! {
                biased;
                Some(done) = asking.join_next() => match done {
                    Ok((index, Ok(answer))) => {
                        self.count(index, Ok(()));
                        self.prefer(index, &silent);
                        return Ok(Answered { server: self.servers[index].address(), answer });
                    }
                    Ok((index, Err(error))) => {
                        let negative = error.kind().is_negative();
                        self.count(index, Err(&error));
                        errors.push(error);
                        if negative {
                            self.prefer(index, &silent);
                        } else {
                            self.put_aside([index]);
                        }
                        if negative && !self.doubt_negative {
                            return Err(outcome(errors));
                        }
                        silent.retain(|asked| *asked != index);
                        next_at = Instant::now();
                    }
                    Err(stopped) => {
                        // The client panicked, or the runtime ends: who of the silent it was is not told.
                        let server = silent.first().map_or(0, |index| *index);
                        errors.push(self.error(server, name, kind, ResolveErrorKind::Other).with_cause(stopped));
                        return Err(outcome(errors));
                    }
                },
                () = sleep_until(wake) => {
                    if Instant::now() >= deadline {
                        self.put_aside(silent.iter().copied());
                        for index in silent {
                            let error = self.error(index, name, kind, ResolveErrorKind::Timeout);
                            self.count(index, Err(&error));
                            errors.push(error);
                        }
                        // Not put aside: at the next lookup it is their turn.
                        errors.extend(order.map(|index| {
                            let error = self.error(index, name, kind, ResolveErrorKind::Timeout);
                            error.with_cause("not asked in time, as packets are held back while lookups fail")
                        }));
                        return Err(outcome(errors));
                    }
                }
            }
        }
    }

    fn error(&self, index: usize, name: &Name, kind: RecordType, why: ResolveErrorKind) -> ServerError {
        ServerError::new(self.servers[index].address(), name, kind, why)
    }

    /// Asks one of the servers once, whatever the answer says of its health. `None` where it does not know in time.
    pub(super) async fn ask_one(
        &self,
        address: SocketAddr,
        name: &Name,
        kind: RecordType,
        within: Duration,
    ) -> Option<Answer> {
        let server = self.servers.iter().find(|server| server.address() == address)?;
        lock(&self.rate_limit).reserve(Instant::now(), false).ok()?;
        match timeout(within, server.ask(name, kind, false)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a question beside the lookup was not answered");
                None
            }
            Err(_) => {
                tracing::debug!(server = %address, %name, "a question beside the lookup was not answered in time");
                None
            }
        }
    }

    fn count(&self, index: usize, result: Result<(), &ServerError>) {
        lock(&self.stats).server(self.servers[index].address(), result);
    }

    /// The servers as they are asked: those put aside last.
    fn order(&self, now: Instant) -> Vec<usize> {
        let mut aside = lock(&self.aside);
        for until in aside.iter_mut() {
            if until.is_some_and(|until| until <= now) {
                *until = None;
            }
        }
        let mut order: Vec<_> = (0..aside.len()).collect();
        order.sort_by_key(|index| aside[*index].is_some());
        order
    }

    fn put_aside(&self, indices: impl IntoIterator<Item = usize>) {
        let until = Instant::now() + ASIDE;
        let mut aside = lock(&self.aside);
        for index in indices {
            aside[index] = Some(until);
        }
    }

    /// This server has answered: whoever was asked earlier and is silent still is slow.
    fn prefer(&self, index: usize, silent: &[usize]) {
        self.put_aside(silent.iter().copied().take_while(|asked| *asked != index));
        lock(&self.aside)[index] = None;
    }
}

/// A negative answer stands, whatever else failed beside it.
fn outcome(mut errors: Vec<ServerError>) -> Vec<ServerError> {
    if errors.iter().any(|error| error.kind().is_negative()) {
        errors.retain(|error| error.kind().is_negative());
    }
    errors
}
