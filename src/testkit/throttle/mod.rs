//! A Pod that gets a part of its processor time: by the kernel's quota where it grants one, else by signals.

mod cgroup;
mod quota;
mod turns;

use std::fmt;

use cgroup::Cgroup;
use quota::Quota;
use tracing::info;
use turns::Turns;

use super::{Error, processes::Processes};

/// A Pod that gets only a part of its processor time, until this is dropped. See
/// [`Cluster::throttle`](super::Cluster::throttle). `Debug` tells by which means.
#[must_use = "dropped, it ends the throttling"]
pub struct Throttle(Means);

enum Means {
    Quota(Quota),
    Turns(Turns),
}

impl Throttle {
    /// Leaves these processes that share.
    pub(super) async fn start(processes: Processes, share: f64) -> Result<Self, Error> {
        let quota = match Cgroup::create() {
            Ok(group) => Quota::start(group, &processes, share).await,
            Err(source) => Err(Error::io("make a control group", source)),
        };
        match quota {
            Ok(quota) => return Ok(Self(Means::Quota(quota))),
            Err(error) => info!(%error, cause = ?error, "no quota of processor time here: a Pod is stopped in turns"),
        }
        let pids = processes.list().await?;
        Ok(Self(Means::Turns(Turns::start(processes, pids, share))))
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Means::Quota(quota) => quota.fmt(f),
            Means::Turns(turns) => turns.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use tokio::time::sleep;

    use super::*;
    use crate::time::{Duration, Instant};

    /// A process that wants a whole processor, in a directory of its own.
    struct Spin {
        child: Child,
        processes: Processes,
    }

    impl Spin {
        fn start(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("podpool-spin-{}-{name}", std::process::id()));
            std::fs::create_dir(&directory).unwrap();
            let directory = directory.canonicalize().unwrap();
            let child = Command::new("sh").args(["-c", "while :; do :; done"]).current_dir(&directory).spawn().unwrap();
            Self { child, processes: Processes { directory, account: None } }
        }

        /// The part of a processor that it gets over two seconds.
        async fn part(&self) -> f64 {
            let used = async || {
                let pids = self.processes.list().await.unwrap();
                quota::used(&pids).unwrap().into_values().sum::<Duration>()
            };
            let (from, before) = (Instant::now(), used().await);
            sleep(Duration::from_secs(2)).await;
            (used().await - before).as_secs_f64() / from.elapsed().as_secs_f64()
        }
    }

    impl Drop for Spin {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            std::fs::remove_dir(&self.processes.directory).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn turns_leave_a_share() {
        let spin = Spin::start("turns");
        let pids = spin.processes.list().await.unwrap();
        let turns = Turns::start(spin.processes.clone(), pids, 0.2);
        let part = spin.part().await;
        assert!(part > 0.0 && part < 0.4, "{part} by {turns:?}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    #[allow(clippy::print_stdout, reason = "a test says what it could not do")]
    async fn a_quota_leaves_a_share_and_no_group() {
        let spin = Spin::start("quota");
        let group = match Cgroup::create() {
            Ok(group) => group,
            Err(error) => return println!("skipped: no control group can be made here: {error}"),
        };
        let directory = group.directory.clone();
        let quota = Quota::start(group, &spin.processes, 0.2).await.unwrap();
        let part = spin.part().await;
        assert!(part > 0.0 && part < 0.4, "{part} by {quota:?}");
        drop(quota);
        assert!(!directory.exists(), "{directory:?} stays behind");
    }
}
