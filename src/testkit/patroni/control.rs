//! Operations on a running Patroni cluster: by `patronictl`, and faults.

use std::sync::atomic::Ordering;

use rustix::process::Signal;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::{PatroniCluster, readiness::status, settings::SCOPE};
use crate::{
    testkit::{Error, command, processes::POLL_INTERVAL},
    time::{Duration, Instant},
};

/// Timeout for a command of `patronictl`.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Timeout for the cluster to become stable. A former leader may have to be copied from the new one.
const STABLE_DEADLINE: Duration = Duration::from_secs(90);

/// Operations by `patronictl`.
impl PatroniCluster {
    /// Makes a standby the leader by `patronictl switchover`. With synchronous replication, Patroni accepts only a
    /// [synchronous standby](Self::synchronous_standby).
    ///
    /// # Errors
    ///
    /// [`Error::Program`] if Patroni refuses, [`Error::Timeout`].
    pub async fn switchover(&self, candidate: usize) -> Result<(), Error> {
        self.patronictl(&["switchover", SCOPE, "--candidate", self.name(candidate), "--force"]).await
    }

    /// Makes a standby the leader by `patronictl failover`.
    ///
    /// # Errors
    ///
    /// The same as for [`switchover`](Self::switchover).
    pub async fn failover(&self, candidate: usize) -> Result<(), Error> {
        self.patronictl(&["failover", SCOPE, "--candidate", self.name(candidate), "--force"]).await
    }

    /// Restarts a Pod's server by `patronictl restart`.
    ///
    /// # Errors
    ///
    /// The same as for [`switchover`](Self::switchover).
    pub async fn restart(&self, ordinal: usize) -> Result<(), Error> {
        self.patronictl(&["restart", SCOPE, self.name(ordinal), "--force"]).await
    }

    /// Replaces the data of a standby with a copy of the leader by `patronictl reinit`.
    ///
    /// # Errors
    ///
    /// The same as for [`switchover`](Self::switchover).
    pub async fn reinitialize(&self, ordinal: usize) -> Result<(), Error> {
        self.patronictl(&["reinit", SCOPE, self.name(ordinal), "--force", "--wait"]).await
    }

    /// Turns synchronous replication on or off, and waits until the cluster is [stable](Self::stable). It is on at
    /// first.
    ///
    /// # Errors
    ///
    /// [`Error::Program`], [`Error::Timeout`].
    pub async fn set_synchronous(&self, synchronous: bool) -> Result<(), Error> {
        let setting = format!("synchronous_mode={synchronous}");
        self.patronictl(&["edit-config", SCOPE, "--set", &setting, "--quiet", "--force"]).await?;
        // Relaxed: the flag orders no other memory access.
        self.synchronous.store(synchronous, Ordering::Relaxed);
        self.stable().await.map(drop)
    }

    async fn patronictl(&self, arguments: &[&str]) -> Result<(), Error> {
        let mut program = command::program(&self.patronictl, self.config.account);
        program.current_dir(&self.config.directory).env("HOME", &self.config.directory);
        program.arg("-c").arg(self.members[0].settings()).args(arguments);
        match timeout(COMMAND_DEADLINE, command::output(&mut program)).await {
            Ok(output) => output.map(drop),
            Err(_) => {
                let waiting_for = format!("patronictl {}", arguments.join(" "));
                Err(Error::Timeout { waiting_for, after: COMMAND_DEADLINE, log: self.logs() })
            }
        }
    }
}

/// Faults.
impl PatroniCluster {
    /// Kills all processes of a Pod, Patroni and PostgreSQL, with SIGKILL.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Timeout`].
    pub async fn kill(&self, ordinal: usize) -> Result<(), Error> {
        self.members[ordinal].kill().await
    }

    /// Kills a Pod's Patroni with SIGKILL. Its server continues, and accepts writes if it is the primary.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn kill_patroni(&self, ordinal: usize) -> Result<(), Error> {
        self.members[ordinal].patroni.kill()
    }

    /// Starts a Pod's Patroni, which takes over the Pod's server or starts it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn start_patroni(&self, ordinal: usize) -> Result<(), Error> {
        self.members[ordinal].start()
    }

    /// Stops a Pod's Patroni with SIGSTOP. Its server continues, and accepts writes if it is the primary.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn pause_patroni(&self, ordinal: usize) -> Result<(), Error> {
        self.members[ordinal].patroni.signal(Signal::STOP)
    }

    /// Resumes a Pod's Patroni after [`pause_patroni`](Self::pause_patroni).
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn resume_patroni(&self, ordinal: usize) -> Result<(), Error> {
        self.members[ordinal].patroni.signal(Signal::CONT)
    }

    /// Kills etcd with SIGKILL. Its data remains.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn kill_etcd(&self) -> Result<(), Error> {
        self.etcd.kill()
    }

    /// Starts etcd after [`kill_etcd`](Self::kill_etcd), and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Exited`], [`Error::Timeout`].
    pub async fn start_etcd(&self) -> Result<(), Error> {
        self.etcd.start().await
    }
}

/// The state of the cluster.
impl PatroniCluster {
    /// Returns the ordinal of the Pod that holds the leader's lock and accepts writes.
    pub async fn leader(&self) -> Option<usize> {
        self.with_status("leader").await
    }

    /// Returns the ordinal of a standby that has every acknowledged write.
    pub async fn synchronous_standby(&self) -> Option<usize> {
        self.with_status("synchronous").await
    }

    /// Waits until there is a leader, all other Pods stream from it, DNS names all of them, and one of them is
    /// synchronous unless synchronous replication is off. Returns the leader's ordinal.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with the end of each Pod's log.
    pub async fn stable(&self) -> Result<usize, Error> {
        let deadline = Instant::now() + STABLE_DEADLINE;
        loop {
            let leader = self.replicating().await?;
            // Relaxed: see `set_synchronous`.
            let synchronous = self.synchronous.load(Ordering::Relaxed);
            if self.synchronous_standby().await.is_some() == synchronous
                && self.waits_for_standbys(leader).await == Some(synchronous)
                && self.dns.pods(&self.service)?.len() == self.len()
            {
                return Ok(leader);
            }
            self.check(deadline, "all Pods to be ready")?;
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until there is a leader and all other Pods stream from it, whether or not DNS names them. Returns the
    /// leader's ordinal.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with the end of each Pod's log.
    pub async fn replicating(&self) -> Result<usize, Error> {
        let deadline = Instant::now() + STABLE_DEADLINE;
        loop {
            if let Some(leader) = self.leader().await
                && self.follow(leader).await
            {
                return Ok(leader);
            }
            self.check(deadline, "all Pods to follow a leader")?;
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns true if all other Pods stream from the leader.
    async fn follow(&self, leader: usize) -> bool {
        for (ordinal, member) in self.members.iter().enumerate() {
            if ordinal != leader && status(member.api(), "replica").await != Some(200) {
                return false;
            }
        }
        let Ok(client) = self.client(leader).await else { return false };
        streams(&client, self.len() - 1).await.unwrap_or(false)
    }

    /// Returns true if the commits of this server wait for a standby. Patroni changes the server's setting some time
    /// after it has announced the change.
    async fn waits_for_standbys(&self, ordinal: usize) -> Option<bool> {
        let client = self.client(ordinal).await.ok()?;
        let row = client.query_one("SHOW synchronous_standby_names", &[]).await.ok()?;
        Some(!row.get::<_, &str>(0).is_empty())
    }

    async fn with_status(&self, path: &str) -> Option<usize> {
        for (ordinal, member) in self.members.iter().enumerate() {
            if status(member.api(), path).await == Some(200) {
                return Some(ordinal);
            }
        }
        None
    }

    /// Returns an error if the deadline has passed.
    pub(super) fn check(&self, deadline: Instant, waiting_for: &str) -> Result<(), Error> {
        if Instant::now() < deadline {
            return Ok(());
        }
        Err(Error::Timeout { waiting_for: waiting_for.to_owned(), after: STABLE_DEADLINE, log: self.logs() })
    }
}

/// Returns true if this number of standbys stream.
async fn streams(leader: &Client, standbys: usize) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    let row = leader.query_one(sql, &[]).await?;
    Ok(row.try_get::<_, i64>(0)? >= i64::try_from(standbys).unwrap_or(i64::MAX))
}
