//! Throttles processes with a CPU quota, like `limits.cpu` in Kubernetes.
//!
//! The quota is a share of the CPU time that the processes use without a limit, which is measured first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    time::{Duration, Instant},
};

use super::cgroup::Cgroup;
use crate::testkit::{Error, processes::Processes};

/// Time over which the unlimited CPU use of the processes is measured.
const SAMPLE: Duration = Duration::from_secs(1);

/// The default period of the kernel and of Kubernetes. A quota is CPU time per period.
const DEFAULT_PERIOD: Duration = Duration::from_millis(100);
/// The kernel's maximum period.
const MAX_PERIOD: Duration = Duration::from_secs(1);
/// The kernel's minimum quota.
const MIN_QUOTA: Duration = Duration::from_millis(1);

/// A CPU quota for a set of processes. Dropping it lifts the limit.
pub(super) struct Quota {
    group: Cgroup,
    quota: Duration,
    period: Duration,
}

impl Quota {
    /// Limits the processes to a share of the total CPU time that they use in the next second.
    #[expect(
        clippy::disallowed_methods,
        reason = "CPU time is measured against real time, also when a test pauses tokio's clock"
    )]
    pub(super) async fn start(group: Cgroup, processes: &Processes, share: f64) -> Result<Self, Error> {
        let failed = |source| Error::io("limit the CPU time of a server", source);
        let (from, before) = (Instant::now(), cpu_times(&processes.list().await?).map_err(failed)?);
        let waited = tokio::task::spawn_blocking(|| std::thread::sleep(SAMPLE)).await;
        waited.map_err(|error| failed(io::Error::other(error)))?;
        let after = cpu_times(&processes.list().await?).map_err(failed)?;
        let deltas = after.iter().map(|(pid, used)| used.saturating_sub(before.get(pid).copied().unwrap_or_default()));
        let cpus = deltas.sum::<Duration>().as_secs_f64() / from.elapsed().as_secs_f64() * share;
        let (quota, period) = quota_and_period(cpus);
        group.set_quota(quota, period).map_err(failed)?;
        // A child starts in the group of its parent, so later children need not be moved.
        processes.for_each(|pid| group.add(pid).map_err(failed)).await?;
        Ok(Self { group, quota, period })
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, quota, period } = self;
        write!(f, "Quota({quota:?} per {period:?}, {group:?})")
    }
}

/// Returns the quota and the period that limit processes to this number of CPUs. The kernel does not accept arbitrarily
/// small limits, so a smaller number is rounded up to the kernel's minimum.
pub(super) fn quota_and_period(cpus: f64) -> (Duration, Duration) {
    let quota = DEFAULT_PERIOD.mul_f64(cpus);
    if quota >= MIN_QUOTA {
        return (quota, DEFAULT_PERIOD);
    }
    let period = MIN_QUOTA.as_secs_f64() / cpus.max(MIN_QUOTA.as_secs_f64() / MAX_PERIOD.as_secs_f64());
    (MIN_QUOTA, Duration::from_secs_f64(period))
}

/// Returns the CPU time that each process has used. Omits processes that have ended.
///
/// Counts the main thread only, because PostgreSQL's processes have no other threads.
pub(super) fn cpu_times(pids: &BTreeSet<i32>) -> io::Result<BTreeMap<i32, Duration>> {
    // The file `schedstat` contains nanoseconds on a CPU, nanoseconds in the run queue, and the number of timeslices
    // (Linux documentation, scheduler/sched-stats). Fail if the kernel does not provide it.
    fs::metadata("/proc/self/schedstat")?;
    let cpu_time = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        Some((*pid, Duration::from_nanos(line.split_whitespace().next()?.parse().ok()?)))
    };
    Ok(pids.iter().filter_map(cpu_time).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengthens_the_period_for_quotas_below_the_minimum() {
        let ms = Duration::from_millis;
        assert_eq!(quota_and_period(0.5), (ms(50), ms(100)));
        assert_eq!(quota_and_period(0.01), (ms(1), ms(100)));
        assert_eq!(quota_and_period(0.005), (ms(1), ms(200)));
        assert_eq!(quota_and_period(0.0), (ms(1), ms(1000)));
    }
}
