//! Probes over the network.
//!
//! A probe uses an idle pooled connection if there is one, so that probing costs the server no session of its own. If
//! there is none, the probe uses a connection that only probes use, whose `application_name` ends in `/probe`. That
//! connection is closed as soon as an idle pooled one can replace it.
//!
//! If several pools share the Pod, the probe can use an idle connection of any of them, and opens one with the user and
//! database of the first pool whose login the server does not refuse.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
};

use tokio::time::timeout;

use super::{
    Pod,
    borrowed::Borrowed,
    connect::{connection_observer, emit_refusal, to_attempt},
    message::{Probed, Session as Report},
    prober::{PROBE_GENERATION, Probe, Watched},
    server::Server,
    shared::Shared,
    test_dials::TestDial,
};
use crate::{
    endpoint::Role,
    error::{Attempt, BoxError, Phase},
    sync::lock,
    time::{Duration, Instant},
    trace::{pod_line, pool_line},
    wire::{
        Class, classify,
        connection_observer::ConnectionObserver,
        dial::Dialled,
        record::Record,
        server_facts::{self, FactQuery, QueryError, Session},
    },
};

/// Maximum number of times for which the timeout of a probe is extended while this client is late.
const EXTENSIONS: u32 = 2;

/// Maximum number of pools as which one probe tries to log in. Pools whose login is refused for a permanent reason are
/// tried in addition, because later probes pass over them.
const LOGINS: usize = 3;

/// Probes one Pod.
#[derive(Debug, Default)]
pub(super) struct ConnectionProbe {
    /// The connection that only probes use.
    own: Option<Own>,
    /// True if the last probe could not use an idle connection because of the session state that callers have set.
    needs_own: bool,
    /// True if the last Sync to a standby has not been answered.
    unanswered: bool,
    query: FactQuery,
    /// The number of dials so far for which the logins of all pools were known to be refused.
    refused_dials: usize,
}

/// A connection that only probes use, and the pool with whose user and database it was opened.
#[derive(Debug)]
struct Own {
    dialled: Dialled,
    pod: Arc<Pod>,
}

impl Own {
    /// Returns true if the connection has not ended and its pool is still in the group.
    fn is_usable(&self) -> bool {
        !self.dialled.record.has_ended() && self.pod.server.has(&self.pod)
    }
}

impl Probe for ConnectionProbe {
    fn probe<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>> {
        Box::pin(self.run(pod))
    }

    fn watch_for_promotion<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Watched> + Send + 'a>> {
        Box::pin(self.sync_standby(pod))
    }

    fn dials(&self, pod: &Pod) -> bool {
        // Relaxed: set by this task.
        pod.server.probe_afresh.load(Ordering::Relaxed) || self.lacks_connection(pod)
    }

    fn lacks_connection(&self, pod: &Pod) -> bool {
        !self.own.as_ref().is_some_and(Own::is_usable) && (self.needs_own || !pod.server.has_idle())
    }

    fn release(&mut self, pod: &Pod) {
        if !self.needs_own && pod.server.has_idle() {
            self.own = None;
        }
    }

    fn test_dial<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = TestDial> + Send + 'a>> {
        Box::pin(test_dial(&pod.server))
    }
}

impl ConnectionProbe {
    async fn run(&mut self, pod: &Arc<Pod>) -> Probed {
        let server = &pod.server;
        // Relaxed: a hint, ordered by `probe_wanted`.
        let afresh = server.probe_afresh.swap(false, Ordering::Relaxed);
        // If the previous connection has ended, the probe uses another one: the end of a session alone proves nothing
        // about the Pod.
        self.own = self.own.take().filter(|own| !afresh && own.is_usable());
        if !afresh {
            while let Some((pod, idle)) = server.borrow_idle() {
                match self.run_on_idle(&pod, idle).await {
                    OnIdle::Done(outcome) => {
                        (self.needs_own, self.own) = (false, None);
                        self.unanswered &= !matches!(*outcome, Probed::Passed { .. });
                        return *outcome;
                    }
                    OnIdle::Ended => {}
                    OnIdle::Unsuitable => {
                        self.needs_own = true;
                        break;
                    }
                }
            }
        }
        let own = match self.own.take() {
            Some(own) => own,
            None => match self.dial(server).await {
                Ok(own) => own,
                Err(failed) => return failed,
            },
        };
        let probed = probe_on(&own.pod, dedicated(&own.dialled), &mut self.query).await;
        let outcome = probed.unwrap_or_else(|error| failed_query(&own.pod, error));
        if matches!(outcome, Probed::Passed { .. }) {
            (self.own, self.unanswered) = (Some(own), false);
        }
        outcome
    }

    /// Probes the Pod on an idle pooled connection.
    async fn run_on_idle(&mut self, pod: &Pod, idle: Borrowed) -> OnIdle {
        // Only a new session shows whether a primary is still read-only by default.
        if is_read_only_primary(&idle.record) {
            idle.give_back().await;
            return OnIdle::Unsuitable;
        }
        match probe_on(pod, pooled(&idle), &mut self.query).await {
            Ok(outcome @ Probed::Passed { .. }) => {
                idle.give_back().await;
                OnIdle::Done(Box::new(outcome))
            }
            Ok(_) if idle.record.has_ended() => OnIdle::Ended,
            Ok(outcome) => OnIdle::Done(Box::new(outcome)),
            Err(error) => {
                pod_line!(debug, pod, %error, "the probe needs a connection of its own");
                idle.give_back().await;
                OnIdle::Unsuitable
            }
        }
    }

    /// Sends a bare Sync to a standby. PostgreSQL 14 and later report a promotion with the response (the parameter
    /// `in_hot_standby`).
    async fn sync_standby(&mut self, pod: &Pod) -> Watched {
        if let Some((pod, idle)) = pod.server.borrow_idle() {
            let watched = sync_if_standby(&pod, pooled(&idle)).await;
            self.unanswered = watched == Watched::NoResponse;
            if watched != Watched::NoResponse {
                idle.give_back().await;
            }
            return watched;
        }
        match self.own.as_ref().filter(|own| own.is_usable()) {
            Some(own) => sync_if_standby(&own.pod, dedicated(&own.dialled)).await,
            None => Watched::NotReported,
        }
    }

    /// Opens a probe connection with the user and database of the first pool whose login the server does not refuse. If
    /// the maximum number of probe handshakes are in progress, waits until one has finished.
    async fn dial(&mut self, server: &Server) -> Result<Own, Probed> {
        let unanswered = std::mem::take(&mut self.unanswered);
        let mut pods = server.pods();
        let accepted = pods.iter().filter(|pod| !pod.access.is_refused()).count();
        if accepted == 0 && !pods.is_empty() {
            // One of them in turn, because each one has a check of its own.
            self.refused_dials = self.refused_dials.wrapping_add(1);
            pods = vec![pods.swap_remove(self.refused_dials % pods.len())];
        } else {
            pods.retain(|pod| !pod.access.is_refused());
        }
        let (mut logins, mut last) = (0, None);
        for pod in pods {
            let Some(result) = dial_as(&pod, unanswered).await else { continue };
            let failed = match result {
                Ok(dialled) => return Ok(Own { dialled, pod }),
                Err(failed) => failed,
            };
            let Probed::Failed { class, .. } = failed else { return Err(failed) };
            if !class.is_permanent() {
                logins += 1;
            }
            // Other failures do not depend on the user and the database.
            let depends = class.is_permanent() || matches!(class, Class::Credentials | Class::Full);
            if let Some((pod, Probed::Failed { class, attempt, .. })) = last.replace((pod, failed)) {
                report_refusal(&pod, class, attempt);
            }
            if !depends || logins == LOGINS {
                break;
            }
        }
        Err(match last {
            Some((_, failed)) => failed,
            None => {
                let attempt = server.endpoint.attempt(Phase::Probe, "the pool was dropped");
                let (conclusive, unresponsive_since, class) = (false, None, Class::NotReady);
                Probed::Failed { conclusive, unresponsive_since, class, attempt, pool: None }
            }
        })
    }
}

/// The result of a probe on an idle pooled connection.
#[derive(Debug)]
enum OnIdle {
    Done(Box<Probed>),
    /// The session has ended, which alone proves nothing about the Pod.
    Ended,
    /// The session state that callers have set makes the connection unsuitable.
    Unsuitable,
}

fn pooled(idle: &Borrowed) -> Session<'_> {
    Session { client: &idle.wrapper, record: &idle.record, pooled: true }
}

fn dedicated(own: &Dialled) -> Session<'_> {
    Session { client: &own.client, record: &own.record, pooled: false }
}

async fn sync_if_standby(pod: &Pod, session: Session<'_>) -> Watched {
    let Session { client, record, .. } = session;
    if record.role() != Role::Standby || !record.reports_role() {
        return Watched::NotReported;
    }
    match timeout(pod.shared().limits.probe_timeout, client.check_connection()).await {
        Ok(Ok(())) => Watched::Responded,
        Ok(Err(_)) | Err(_) => Watched::NoResponse,
    }
}

fn is_read_only_primary(record: &Record) -> bool {
    record.read_only() && record.role() == Role::Primary
}

/// Probes the Pod on an open connection. Returns an error only if the server rejects the query on a pooled session.
async fn probe_on(pod: &Pod, session: Session<'_>, query: &mut FactQuery) -> Result<Probed, QueryError> {
    let record = session.record;
    let shared = pod.shared();
    let reads = || pod.server.reads() + if session.pooled { 0 } else { record.reads() };
    let before = reads();
    let sent = Instant::now();
    match with_timeout(shared, shared.limits.probe_timeout, server_facts::probe(session, query)).await {
        Ok(Ok((took, facts))) => {
            let read_only = record.read_only();
            // `ALTER DATABASE … SET default_transaction_read_only` affects only new sessions. While a primary is
            // read-only, each probe opens a new session, which has the setting's current value.
            if is_read_only_primary(record) {
                pod.server.probe_afresh.store(true, Ordering::Relaxed); // read by the next probe, in the same task
            }
            Ok(Probed::Passed { facts, read_only, took, sent, received: Instant::now(), pool: Some(shared.id) })
        }
        Ok(Err(error)) => match classify(&error).class {
            Class::Statement if session.pooled => Err(error),
            _ => Ok(failed_query(pod, error)),
        },
        // A timeout is conclusive only if no connection to the Pod, including the probe's own, received anything during
        // the probe, and if this client was not starved of CPU.
        Err(TimedOut { conclusive }) => {
            shared.counters.timed_out.increment(Phase::Probe);
            let unresponsive = conclusive && reads() == before;
            let cause = format!("no answer within {:?}", sent.elapsed()).into();
            Ok(failed(pod, unresponsive, unresponsive.then_some(sent), Class::NotReady, cause))
        }
    }
}

/// A probe has timed out. The timeout is conclusive unless this client itself was late.
#[derive(Debug)]
struct TimedOut {
    conclusive: bool,
}

/// Waits for the response to a probe. If this client was late while it waited, because it was stopped or starved of
/// CPU, waits again, for a longer time, up to [`EXTENSIONS`] times.
async fn with_timeout<T>(shared: &Shared, limit: Duration, response: impl Future<Output = T>) -> Result<T, TimedOut> {
    let mut response = pin!(response);
    let mut limit = limit;
    for extensions in 0.. {
        let since = Instant::now();
        if let Ok(done) = timeout(limit, response.as_mut()).await {
            return Ok(done);
        }
        let late = lock(&shared.local_health).was_late(since, since + limit, Instant::now());
        if !late || extensions == EXTENSIONS {
            return Err(TimedOut { conclusive: !late });
        }
        pool_line!(debug, shared, "a probe's timeout is extended, because this process did not get enough CPU time");
        limit *= 2;
    }
    unreachable!("the loop ends after the last extension")
}

/// Records and reports that a probe could not log in as one of several pools.
fn report_refusal(pod: &Pod, class: Class, attempt: Attempt) {
    if lock(&pod.last_failure).probe_failed(class, attempt.clone()) {
        emit_refusal(pod, class, &attempt);
    }
    if class.is_permanent() {
        pod.send_session(Report::Refused);
    }
}

/// Opens a probe connection with the user and database of this pool. Returns `None` if the pool was dropped.
///
/// `unanswered` is true if a Sync on another connection has just not been answered.
async fn dial_as(pod: &Arc<Pod>, unanswered: bool) -> Option<Result<Dialled, Probed>> {
    let shared = pod.shared();
    // The semaphore is never closed, so `acquire` cannot fail.
    let _handshake = shared.group.probe_handshakes.acquire().await;
    let dialer = shared.dialer.get()?;
    let is_connected = pod.server.is_connected() || unanswered;
    let limits = &shared.limits;
    // All open connections are in use or do not respond, so the probe tests whether the Pod is unresponsive.
    let limit = if is_connected { limits.probe_timeout } else { limits.connect_timeout };
    let (mut began, mut reads);
    let mut attempts = 0..=EXTENSIONS;
    let dialled = loop {
        (began, reads) = (Instant::now(), pod.server.reads());
        let observer = connection_observer(pod, PROBE_GENERATION);
        let dialled = dialer.dial_for_probe(&pod.current_endpoint(), observer, limit).await;
        attempts.next();
        // A dial that has timed out while this client was late proves nothing and is repeated.
        let is_inconclusive = matches!(&dialled, Err(error) if error.timed_out && shared.was_late_since(began));
        if !is_inconclusive || attempts.is_empty() {
            break dialled;
        }
    };
    Some(dialled.inspect(|dialled| pod.record_login(dialled.security, began)).map_err(|error| {
        // The server may be too busy to accept a connection in time, although it responds on others.
        let timed_out = is_connected && began.elapsed() >= limit;
        let responds = pod.server.reads() != reads || !error.unresponsive;
        let unresponsive_since = (error.unresponsive && !responds).then_some(began);
        if timed_out && error.unresponsive {
            // The Pod owes a response, or does not accept a further connection in time.
            shared.counters.timed_out.increment(Phase::Probe);
            let cause = format!("no answer within {limit:?}").into();
            return failed(pod, !responds, unresponsive_since, Class::NotReady, cause);
        }
        let (class, attempt) = to_attempt(pod, error);
        let (conclusive, pool) = (!(timed_out && responds), Some(shared.id));
        Probed::Failed { conclusive, unresponsive_since, class, attempt, pool }
    }))
}

/// Opens and closes a connection to test whether the server accepts new ones. Obeys the same limit as [`dial_as`].
async fn test_dial(server: &Server) -> TestDial {
    let dialer = server.pods().into_iter().find_map(|pod| Some((pod.shared().dialer.get()?, pod)));
    let Some((dialer, pod)) = dialer else { return TestDial::Accepted };
    let shared = pod.shared();
    // The semaphore is never closed, so `acquire` cannot fail.
    let _handshake = shared.group.probe_handshakes.acquire().await;
    // The connection reports no evidence, because its end proves nothing.
    let observer = ConnectionObserver::new(|_| {});
    let began = Instant::now();
    match dialer.dial_for_probe(&pod.current_endpoint(), observer, shared.limits.connect_timeout).await {
        Ok(dialled) => {
            pod.record_login(dialled.security, began);
            TestDial::Accepted
        }
        Err(error) if error.is_refusal() => TestDial::Refused(to_attempt(&pod, error).1),
        Err(error) if error.unresponsive => TestDial::TimedOut,
        Err(_) => TestDial::Accepted,
    }
}

fn failed_query(pod: &Pod, error: QueryError) -> Probed {
    failed(pod, true, None, classify(&error).class, error.into())
}

fn failed(pod: &Pod, conclusive: bool, unresponsive_since: Option<Instant>, class: Class, cause: BoxError) -> Probed {
    let attempt = pod.endpoint.attempt(Phase::Probe, cause);
    Probed::Failed { conclusive, unresponsive_since, class, attempt, pool: Some(pod.shared().id) }
}
