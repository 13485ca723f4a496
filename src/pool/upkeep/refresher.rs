//! The refresher: the task that looks up a configured host periodically, and when its resolver announces a change, and
//! sends each result to the directory. Each host has its own refresher.

use std::{future::ready, sync::Arc};

use tokio::{
    select,
    sync::{Notify, oneshot},
    time::{sleep_until, timeout},
};
use tracing::Instrument as _;

use crate::{
    discovery::{Resolve, ResolveError, Schedule},
    pool::pod::{group::Group, message::Message, shared::count},
    system::random,
    time::{Duration, Instant},
    trace::{RESOLVE, SYSTEM, TARGET},
};

/// Timeout for one lookup. The resolvers of this crate have shorter timeouts, but a resolver of the application may
/// have none.
const LIMIT: Duration = Duration::from_secs(15);

/// Discards a lookup that was requested while another lookup was in progress, because that lookup's result may already
/// explain the request. If not, the lookups are frequent now.
async fn discard_notification(wanted: &Notify) {
    select! {
        biased;
        () = wanted.notified() => {}
        () = ready(()) => {}
    }
}

/// Runs the refresher of the host with this index until its task is aborted.
pub(crate) async fn run(host: usize, resolver: Arc<dyn Resolve>, group: Arc<Group>) {
    let wanted = &group.lookup_wanted[host];
    let mut schedule = Schedule::new(group.limits.refresh_min, group.limits.refresh_max);
    loop {
        let span = tracing::debug_span!(
            target: TARGET,
            RESOLVE,
            "db.system.name" = SYSTEM,
            "db.client.connection.pool.name" = &*group.name(),
            source = resolver.source()
        );
        let result = match timeout(LIMIT, resolver.resolve()).instrument(span).await {
            Ok(result) => result,
            Err(_) => Err(ResolveError::other(format!("no response from {} within {LIMIT:?}", resolver.source()))),
        };
        let now = Instant::now();
        let mut next = match &result {
            Ok(resolution) => {
                count(&group.counters.resolve_ok);
                schedule.after_success(now, resolution.valid_until, &mut random::rng())
            }
            Err(_) => {
                count(&group.counters.resolve_failed);
                schedule.after_failure(now, &mut random::rng())
            }
        };
        let (next_lookup, reply) = oneshot::channel();
        group.send(Message::Resolved { host, result, next_lookup });
        if let Ok(Some(earlier)) = reply.await {
            next = next.min(earlier);
        }
        discard_notification(wanted).await;
        // A change during the lookup completes this future immediately. Further announcements are awaited after the
        // next lookup, so that a flood of them causes only as many lookups as the schedule permits.
        let mut changed = resolver.changed();
        let mut announced = false;
        let mut frequent = schedule.frequent(now, group.lookups.since().unwrap_or(now), &mut random::rng());
        loop {
            select! {
                () = sleep_until(next) => break,
                () = sleep_until(frequent), if frequent < next => match group.lookups.since() {
                    Some(_) => break,
                    None => frequent = next,
                },
                () = wanted.notified() => next = next.min(schedule.early(Instant::now())),
                () = &mut changed, if !announced => {
                    announced = true;
                    next = next.min(schedule.announced(Instant::now()));
                }
            }
        }
    }
}
