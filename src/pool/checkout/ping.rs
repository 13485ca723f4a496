//! A ping that was not answered at once is left to a task of the pool, so that no caller pays for a Pod that hangs.
//!
//! A connection that nobody has used for a while answers a ping before it is lent out. A server that hangs answers
//! nothing, and nobody knows yet: so a caller waits for [`HEDGE`] and then goes elsewhere. The task waits for the answer
//! in the caller's place. When it comes, the connection goes back, which is to whoever is first in the queue; when it
//! does not, the connection is closed and the Pod is probed. Until then the Pod is mute, and those who have a choice
//! take another.

use deadpool::unmanaged::Object;
use tokio::time::timeout_at;

use crate::{
    error::Phase,
    pool::pod::{Pod, client::Client, conn::Conn},
    time::{Duration, Instant},
};

/// How long a caller waits for the answer to a ping before it goes elsewhere: some round trips within a zone, and with
/// the clock's own millisecond and a second Pod that is slow to answer still under 5 ms. Where a round trip takes longer,
/// more than one Pod is pinged and the first answer is taken.
pub(crate) const HEDGE: Duration = Duration::from_millis(1);

/// How long a caller with no other Pod to go to waits before a new connection is opened beside the one that was pinged.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// A connection whose ping is waited for. Dropped on the way (the runtime has ended), it is closed.
struct Left(Option<Object<Box<Conn>>>);

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            object.pod().end_pending_ping();
            Pod::check_out_for_good(object);
        }
    }
}

/// Waits for the answer to a ping that was sent on this connection, in a task of the pool's runtime, until `limit`.
pub(crate) fn leave(client: Client, limit: Instant) {
    let object = client.into_object();
    object.pod().begin_pending_ping();
    let runtime = object.pod().shared().runtime.clone();
    drop(runtime.spawn(run(Left(Some(object)), limit)));
}

async fn run(mut left: Left, limit: Instant) {
    let Some(object) = left.0.as_ref() else { return };
    let rested = timeout_at(limit, object.record.rest()).await.is_ok();
    if !rested {
        object.pod().shared().counters.timed_out.count(Phase::Ping);
        tracing::debug!(endpoint = %object.pod().endpoint, "closed a connection that did not answer a ping");
    }
    if !rested || object.record.has_ended() {
        object.pod().suspect.notify_one();
        return;
    }
    let keep = object.record.is_clean() && object.is_current() && !object.is_old() && !object.pod().is_over();
    if let Some(object) = left.0.take_if(|_| keep) {
        let pod = object.pod().clone();
        Pod::check_in(object);
        pod.end_pending_ping();
    }
}
