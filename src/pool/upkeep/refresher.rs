//! Asks the name again and again, off the hot path, and tells the directory what came.

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
        shared::{Common, count},
    },
    time::{Duration, Instant},
    trace::{RESOLVE, SYSTEM, TARGET},
};

/// The longest that a resolver may take: ours keeps to its own, shorter, deadline, a user's may forget to.
const LIMIT: Duration = Duration::from_secs(15);

/// Refreshes until cut short.
pub(crate) async fn run(resolver: Arc<dyn Resolve>, common: Arc<Common>) {
    let mut schedule = Schedule::new(common.limits.refresh_min, common.limits.refresh_max);
    loop {
        let span = tracing::debug_span!(target: TARGET, RESOLVE, "db.system.name" = SYSTEM, source = resolver.source());
        let result = match timeout(LIMIT, resolver.resolve()).instrument(span).await {
            Ok(result) => result,
            Err(_) => Err(ResolveError::other(format!("no answer from {} within {LIMIT:?}", resolver.source()))),
        };
        let now = Instant::now();
        let mut next = match &result {
            Ok(resolution) => {
                count(&common.counters.resolve_ok);
                schedule.after_success(now, resolution.valid_until, &mut rand::rng())
            }
            Err(_) => {
                count(&common.counters.resolve_failed);
                schedule.after_failure(now, &mut rand::rng())
            }
        };
        let (answer, again) = oneshot::channel();
        common.tell(Message::Resolved { result, again: answer });
        if let Ok(Some(again)) = again.await {
            next = next.min(again);
        }
        loop {
            select! {
                () = sleep_until(next) => break,
                () = common.trouble.notified() => next = next.min(schedule.early(Instant::now())),
            }
        }
    }
}
