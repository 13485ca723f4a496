//! Dials a connection that belongs to the application.

use std::sync::Arc;

use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tracing::Instrument as _;

use super::{
    connection::{Owned, OwnedConnection},
    supervise::{Supervised, supervise},
};
use crate::{
    config::{LagFallback, Limits},
    error::{Attempt, BoxError, Phase},
    pool::{
        hook::{HookClient, Kind},
        pod::{
            Pod,
            conn::{ConnHandle, Permit, Reason},
            connect::{connection_observer, failed, to_attempt},
            requirement::Requirement,
            shared::count,
        },
    },
    system::spawn,
    time::Instant,
    trace::{CONNECT, endpoint_span},
    wire::{
        CancelToken, Class,
        dial::{Dialer, Dialled},
    },
};

/// The beginning of a dial.
pub(super) struct Start {
    pub(super) permit: Permit,
    pub(super) requirement: Requirement,
    /// The Pod's generation before the call waited for other handshakes.
    pub(super) generation: u64,
    /// Released after the login.
    pub(super) handshake: OwnedSemaphorePermit,
}

/// Dials and sets up a connection, and starts the task that supervises it. Runs on the pool's runtime.
///
/// Cancel-safe: dropping the future closes the socket.
pub(super) async fn dial(start: Start) -> Result<OwnedConnection, (Class, Attempt)> {
    let Start { permit, requirement, generation, handshake } = start;
    let pod = Arc::clone(&permit);
    let shared = pod.shared().clone();
    let refused = |phase, cause: BoxError| (Class::NotReady, pod.endpoint.attempt(phase, cause));
    let (dialled, dialer) = connect(&pod, generation, handshake).await?;
    let (role, read_only, target) = (dialled.record.role(), dialled.record.read_only(), requirement.target());
    let replaces_standbys = !target.accepts(role, read_only);
    if replaces_standbys && !is_replacement(&shared.limits, &pod, requirement) {
        pod.server.probe_wanted.notify_one();
        let cause = format!("the server's role is {role}, which `{target}` does not accept");
        return Err(refused(Phase::Startup, cause.into()));
    }
    if !requirement.is_within_limit(&pod.slot) {
        return Err(refused(Phase::Startup, "the server's data has become older than the limit of the call".into()));
    }
    let Dialled { endpoint, client, record, driver, security } = dialled;
    let runtime = shared.runtime.clone();
    let token = client.cancel_token();
    let token = CancelToken::new(token, endpoint, security.is_encrypted(), dialer, runtime);
    let owned = Arc::new(Owned::new(target, read_only, replaces_standbys));
    let now = shared.clock.now();
    let handle = ConnHandle::owned(record.shared(), driver.abort_handle(), token.clone(), owned.clone(), now);
    pod.connections.add(handle);
    count(&shared.counters.opened);
    // Checked after the connection was added to the list, so that the Pod's next change closes it.
    if generation != pod.generation() || pod.slot.is_closed() {
        owned.set_reason(Reason::Ejected);
        driver.abort();
    }
    let is_current = owned.reason().is_none();
    drop(spawn(supervise(Supervised { owned, record, driver, permit })));
    if !is_current {
        return Err(refused(Phase::Startup, "the Pod was ejected or drained while the connection was opened".into()));
    }
    Ok(OwnedConnection { client, cancel_token: token, endpoint: pod.endpoint.clone() })
}

/// Dials and sets up a connection that does not enter the pool. Releases the handshake after the login.
///
/// Cancel-safe: dropping the future closes the socket.
pub(crate) async fn connect(
    pod: &Arc<Pod>,
    generation: u64,
    handshake: OwnedSemaphorePermit,
) -> Result<(Dialled, Arc<Dialer>), (Class, Attempt)> {
    let shared = pod.shared().clone();
    let refused = |phase, cause: BoxError| (Class::NotReady, pod.endpoint.attempt(phase, cause));
    let began = Instant::now();
    let Some(dialer) = shared.dialer.get() else {
        return Err(refused(Phase::Wait, "the pool was dropped".into()));
    };
    let endpoint = pod.current_endpoint();
    let observer = connection_observer(pod, generation).with_operations(shared.metrics.operations(pod));
    let dial = dialer.dial(&endpoint, observer);
    let dialled = dial.instrument(endpoint_span!(CONNECT, shared.name(), pod.endpoint)).await.map_err(|error| {
        if began.elapsed() >= shared.limits.connect_timeout {
            shared.counters.timed_out.increment(error.phase);
        }
        let (class, attempt) = to_attempt(pod, error);
        failed(pod, class, attempt.clone(), began);
        (class, attempt)
    })?;
    drop(handshake);
    dialled.record.set_in_service();
    pod.record_login(dialled.security, began);
    pod.report_session(&dialled.record);
    if let Err(cause) = set_up(pod, &dialled).await {
        let (class, attempt) = refused(Phase::AfterConnect, cause);
        failed(pod, class, attempt.clone(), began);
        return Err((class, attempt));
    }
    Ok((dialled, dialer))
}

/// Returns true if the Pod is a primary that serves the target now, because all standbys lag too far behind.
fn is_replacement(limits: &Limits, pod: &Pod, requirement: Requirement) -> bool {
    let target = requirement.target();
    limits.lag_fallback == LagFallback::Primary && target.excludes_writable_primary() && pod.slot.serves(target.bit())
}

/// Calls the application's hook `after_connect` on a connection outside of the pool, if there is one.
pub(crate) async fn set_up(pod: &Pod, dialled: &Dialled) -> Result<(), BoxError> {
    let (shared, kind) = (pod.shared(), Kind::AfterConnect);
    if !shared.hooks.has(kind) {
        return Ok(());
    }
    let limit = shared.hook_timeout();
    dialled.record.begin_setup();
    let client = HookClient::owned(&dialled.client, &pod.endpoint, &dialled.record);
    timeout(limit, shared.hooks.call(kind, client, &shared.events)).await.unwrap_or_else(|_| {
        shared.counters.timed_out.increment(kind.phase());
        Err(kind.timed_out(limit))
    })?;
    dialled.record.end_setup();
    Ok(())
}
