//! Throttling by a quota of processor time, as `limits.cpu` does in Kubernetes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    time::{Duration, Instant},
};

use super::cgroup::Cgroup;
use crate::testkit::{Error, processes::Processes};

/// So long it is looked at what the processes use without a quota.
const LOOK: Duration = Duration::from_secs(1);

/// What the kernel counts a quota by, where nothing else is said; and Kubernetes.
const PERIOD: Duration = Duration::from_millis(100);
/// The longest that the kernel takes, and the least that it lets run in it.
const LONGEST: Duration = Duration::from_secs(1);
const LEAST: Duration = Duration::from_millis(1);

/// Processes that may use only so much, until it is dropped.
pub(super) struct Quota {
    group: Cgroup,
    runs: Duration,
    period: Duration,
}

impl Quota {
    /// Leaves these processes a share of what they use in the next second.
    #[expect(clippy::disallowed_methods, reason = "the kernel's time goes on where a test's is paused")]
    pub(super) async fn start(group: Cgroup, processes: &Processes, share: f64) -> Result<Self, Error> {
        let failed = |source| Error::io("limit the processor time of a server", source);
        let (from, before) = (Instant::now(), used(&processes.list().await?).map_err(failed)?);
        let waited = tokio::task::spawn_blocking(|| std::thread::sleep(LOOK)).await;
        waited.map_err(|error| failed(io::Error::other(error)))?;
        let after = used(&processes.list().await?).map_err(failed)?;
        let more = after.iter().map(|(pid, used)| used.saturating_sub(before.get(pid).copied().unwrap_or_default()));
        let part = more.sum::<Duration>().as_secs_f64() / from.elapsed().as_secs_f64() * share;
        let (runs, period) = quota(part);
        group.limit(runs, period).map_err(failed)?;
        // Who is here takes his children with him.
        processes.each(|pid| group.take(pid).map_err(failed)).await?;
        Ok(Self { group, runs, period })
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, runs, period } = self;
        write!(f, "Quota({runs:?} of {period:?}, {group:?})")
    }
}

/// So long, of such a period, for this part of a processor.
fn quota(part: f64) -> (Duration, Duration) {
    let runs = PERIOD.mul_f64(part);
    if runs >= LEAST {
        return (runs, PERIOD);
    }
    let period = LEAST.as_secs_f64() / part.max(LEAST.as_secs_f64() / LONGEST.as_secs_f64());
    (LEAST, Duration::from_secs_f64(period))
}

/// The processor time that each of these has used; those that have ended are left out. Of one thread, which is all that a
/// server's processes have.
pub(super) fn used(pids: &BTreeSet<i32>) -> io::Result<BTreeMap<i32, Duration>> {
    // Documented in `scheduler/sched-stats`: nanoseconds on a processor, nanoseconds waiting for one, times it ran.
    fs::metadata("/proc/self/schedstat")?;
    let of = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        Some((*pid, Duration::from_nanos(line.split_whitespace().next()?.parse().ok()?)))
    };
    Ok(pids.iter().filter_map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_of_the_usual_period_where_the_kernel_takes_it() {
        let ms = Duration::from_millis;
        assert_eq!(quota(0.5), (ms(50), ms(100)));
        assert_eq!(quota(0.01), (ms(1), ms(100)));
        assert_eq!(quota(0.005), (ms(1), ms(200)));
        assert_eq!(quota(0.0), (ms(1), ms(1000)));
    }
}
