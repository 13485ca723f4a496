//! Opens a shared connection in a background task, so that the cancellation of a caller wastes no handshake.

use std::sync::{Arc, Weak};

use tokio::time::timeout;

use super::{
    connection::{Parts, SharedConnection},
    place::Opening,
    supervise::{Supervised, supervise},
};
use crate::{
    config::{Limits, Target},
    error::Phase,
    pool::{
        inner::Inner,
        owned::{Owned, connect},
        pod::{
            conn::{ConnHandle, Permit, Reason},
            connect::{failed, shortened},
            jitter::random,
            shared::count,
        },
    },
    sync::lock,
    system::{spawn, spawn_on},
    time::Instant,
    wire::{CancelToken, Class, dial::Dialled, record::Record},
};

/// Starts a task that opens a connection.
pub(super) fn start(pool: &Arc<Inner>, permit: Permit, opening: Opening) {
    drop(spawn_on(&pool.shared.runtime, run(Arc::downgrade(pool), permit, opening)));
}

async fn run(pool: Weak<Inner>, permit: Permit, opening: Opening) {
    let is_open = open(&pool, permit).await;
    drop(opening); // before the callers look for a connection
    let Some(pool) = pool.upgrade() else { return };
    if is_open {
        pool.serve_shared();
    } else {
        pool.reevaluate_shared();
    }
}

/// Opens a connection and adds it to those of its Pod. Returns false if that has failed.
async fn open(pool: &Weak<Inner>, permit: Permit) -> bool {
    let pod = Arc::clone(&permit);
    let shared = pod.shared().clone();
    // Read before the wait, during which the Pod may be ejected or fenced.
    let generation = pod.generation();
    let began = Instant::now();
    // The semaphore is never closed, so `acquire_owned` cannot fail.
    let Ok(handshake) = shared.owned_handshakes.clone().acquire_owned().await else { return false };
    // The failure of a dial is recorded at the Pod, and is part of the error of callers that wait until their deadline.
    let Ok((dialled, dialer)) = connect(&pod, generation, handshake).await else { return false };
    if !is_clean_soon(&dialled.record).await {
        let (phase, cause) = match dialled.record.has_ended() {
            true => (Phase::Startup, "the session ended immediately after startup"),
            false => (Phase::AfterConnect, "the hook `after_connect` left a transaction or a request open"),
        };
        failed(&pod, Class::NotReady, pod.endpoint.attempt(phase, cause), began);
        return false;
    }
    lock(&pod.last_failure).clear();
    let Dialled { endpoint, client, record, driver, security } = dialled;
    record.set_pipelined();
    let token = client.cancel_token();
    let token = CancelToken::new(token, endpoint, security.is_encrypted(), dialer, shared.runtime.clone());
    // The target is `any`: the role is compared with the target of each statement instead.
    let owned = Arc::new(Owned::shared(Target::Any));
    let now = shared.clock.now();
    pod.connections.add(ConnHandle::owned(record.shared(), driver.abort_handle(), token.clone(), owned.clone(), now));
    count(&shared.counters.opened);
    // Checked after the connection was added to the list, so that the Pod's next change closes it.
    if generation != pod.generation() || pod.slot.is_closed() {
        owned.set_reason(Reason::Ejected);
        driver.abort();
    }
    let expires_at = Instant::now() + shortened(shared.limits.max_lifetime, random());
    let (record_of, driver_of) = (record.shared(), driver.abort_handle());
    let parts = Parts { client, record: record_of, owned, token, driver: driver_of, expires_at };
    let connection = SharedConnection::new(parts, &shared.limits, pod.shared_connections.round_trip());
    pod.shared_connections.add(connection.clone());
    drop(spawn(supervise(Supervised { connection, record, driver, permit, pool: pool.clone() })));
    true
}

/// Returns true if no transaction is open and every request is answered. Waits a moment for the end of the driver's
/// poll.
async fn is_clean_soon(record: &Record) -> bool {
    drop(timeout(Limits::RECYCLE_GRACE, record.wait_until_idle()).await);
    record.is_clean()
}
