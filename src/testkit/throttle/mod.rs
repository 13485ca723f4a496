//! Limits the CPU time of a Pod with the kernel's CPU quota if available, otherwise with SIGSTOP and SIGCONT.

mod cgroup;
mod duty_cycle;
mod quota;

use std::fmt;

use cgroup::Cgroup;
use duty_cycle::DutyCycle;
use quota::{Quota, quota_and_period};
use tracing::info;

use super::{Error, processes::Processes};

/// A guard that limits the CPU time of a Pod until it is dropped. See [`Cluster::throttle`](super::Cluster::throttle).
///
/// The `Debug` output names the mechanism in use.
#[must_use = "dropping the guard ends the throttling"]
pub struct Throttle(Mechanism);

enum Mechanism {
    Quota(Quota),
    DutyCycle(DutyCycle),
}

impl Throttle {
    /// Limits the processes to a share of their CPU time.
    pub(super) async fn start(processes: Processes, share: f64) -> Result<Self, Error> {
        let quota = match Cgroup::create() {
            Ok(group) => Quota::start(group, &processes, share).await,
            Err(source) => Err(Error::io("create a control group", source)),
        };
        match quota {
            Ok(quota) => return Ok(Self(Mechanism::Quota(quota))),
            Err(error) => {
                info!(%error, cause = ?error, "no CPU quota available; throttling the Pod with SIGSTOP and SIGCONT");
            }
        }
        let pids = processes.list().await?;
        Ok(Self(Mechanism::DutyCycle(DutyCycle::start(processes, pids, share))))
    }
}

/// A guard that limits the CPU time of a process until it is dropped. See [`limit_cpu`].
#[derive(Debug)]
#[must_use = "dropping the guard lifts the limit"]
pub struct CpuLimit {
    _group: Cgroup,
}

/// Limits the CPU time of a process and its future children, for example of a client, to this number of CPUs. Uses the
/// kernel's CPU quota (cgroup v1 or v2).
///
/// # Errors
///
/// [`Error::Setting`] if `cpus` is not a positive number, and [`Error::Io`] if this process may not create a control
/// group with a quota.
pub fn limit_cpu(pid: u32, cpus: f64) -> Result<CpuLimit, Error> {
    if !(cpus > 0.0 && cpus.is_finite()) {
        return Err(Error::Setting { setting: "cpus", expected: "a positive number" });
    }
    let failed = |source| Error::io("limit the CPU time of a process", source);
    let group = Cgroup::create().map_err(failed)?;
    let (quota, period) = quota_and_period(cpus);
    group.set_quota(quota, period).map_err(failed)?;
    group.add(pid.cast_signed()).map_err(failed)?;
    Ok(CpuLimit { _group: group })
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Mechanism::Quota(quota) => quota.fmt(f),
            Mechanism::DutyCycle(cycle) => cycle.fmt(f),
        }
    }
}

/// Tests that both mechanisms limit a busy process, and that the quota leaves no control group behind.
#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use tokio::time::sleep;

    use super::*;
    use crate::time::{Duration, Instant};

    /// A process that uses a whole CPU and has its own working directory.
    struct BusyProcess {
        child: Child,
        processes: Processes,
    }

    impl BusyProcess {
        fn start(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("podpool-spin-{}-{name}", std::process::id()));
            std::fs::create_dir(&directory).unwrap();
            let directory = directory.canonicalize().unwrap();
            let child = Command::new("sh").args(["-c", "while :; do :; done"]).current_dir(&directory).spawn().unwrap();
            Self { child, processes: Processes { directory, account: None } }
        }

        /// Measures the share of one CPU that the process gets over two seconds.
        async fn cpu_share(&self) -> f64 {
            let used = async || {
                let pids = self.processes.list().await.unwrap();
                quota::cpu_times(&pids).unwrap().into_values().sum::<Duration>()
            };
            let (from, before) = (Instant::now(), used().await);
            sleep(Duration::from_secs(2)).await;
            (used().await - before).as_secs_f64() / from.elapsed().as_secs_f64()
        }
    }

    impl Drop for BusyProcess {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            std::fs::remove_dir(&self.processes.directory).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn duty_cycle_limits_the_cpu_share() {
        let process = BusyProcess::start("turns");
        let pids = process.processes.list().await.unwrap();
        let cycle = DutyCycle::start(process.processes.clone(), pids, 0.2);
        let share = process.cpu_share().await;
        assert!(share > 0.0 && share < 0.4, "got a CPU share of {share} with {cycle:?}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    #[allow(clippy::print_stdout, reason = "reports that the test was skipped")]
    async fn quota_limits_the_cpu_share_and_removes_its_group() {
        let process = BusyProcess::start("quota");
        let group = match Cgroup::create() {
            Ok(group) => group,
            Err(error) => return println!("skipped: cannot create a control group here: {error}"),
        };
        let directory = group.directory.clone();
        let quota = Quota::start(group, &process.processes, 0.2).await.unwrap();
        let share = process.cpu_share().await;
        assert!(share > 0.0 && share < 0.4, "got a CPU share of {share} with {quota:?}");
        drop(quota);
        assert!(!directory.exists(), "the control group {directory:?} was not removed");
    }
}
