//! ProbeFactory the name again and again, off the hot path, and tells the directory what came.

use std::sync::Arc;

use tokio::{
    select,
    sync::oneshot,
    time::{sleep_until, timeout},
};
use tracing::Instrument as _;

use crate::{
    discovery::{Resolve, ResolveError, Schedule},
    pool::pod::{
        message::Message,
        shared::{Shared, count},
    },
    time::{Duration, Instant},
    trace::{RESOLVE, SYSTEM, TARGET},
};

/// The longest that a resolver may take: ours keeps to its own, shorter, deadline, a user's may forget to.
const LIMIT: Duration = Duration::from_secs(15);

/// Refreshes until cut short.
pub(crate) async fn run(resolver: Arc<dyn Resolve>, shared: Arc<Shared>) {
    let mut schedule = Schedule::new(shared.limits.refresh_min, shared.limits.refresh_max);
    loop {
        let span = tracing::debug_span!(target: TARGET, RESOLVE, "db.system.name" = SYSTEM, source = resolver.source());
        let result = match timeout(LIMIT, resolver.resolve()).instrument(span).await {
            Ok(result) => result,
            Err(_) => Err(ResolveError::other(format!("no answer from {} within {LIMIT:?}", resolver.source()))),
        };
        let now = Instant::now();
        let mut next = match &result {
            Ok(resolution) => {
                count(&shared.counters.resolve_ok);
                schedule.after_success(now, resolution.valid_until, &mut rand::rng())
            }
            Err(_) => {
                count(&shared.counters.resolve_failed);
                schedule.after_failure(now, &mut rand::rng())
            }
        };
        let (answer, again) = oneshot::channel();
        shared.tell(Message::Resolved { result, again: answer });
        if let Ok(Some(again)) = again.await {
            next = next.min(again);
        }
        loop {
            select! {
                () = sleep_until(next) => break,
                () = shared.last_failure.notified() => next = next.min(schedule.early(Instant::now())),
            }
        }
    }
}
