//! One server: the commands with which an operator, a kubelet or the adversary controls it, and its observable state.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    cluster::Cluster,
    error::Report,
    log::Log,
    lsn::{Lsn, Timeline},
    settings::Settings,
    sql::{Parsed, parse},
    state::{Phase, State, Synchronous},
};
use crate::{
    signal::Signal,
    spawn::{Spawn, Spawner},
};

/// A PostgreSQL server: a data directory, and the process that uses it.
///
/// The server belongs to the host on which its tasks run. If the host is killed, the tasks are dropped, and
/// [`crash`](Self::crash) must be called.
pub struct Server {
    name: String,
    pub(super) cluster: Arc<Cluster>,
    host: Spawner,
    state: Mutex<State>,
    /// Raised when a session ends.
    pub(super) departures: Signal,
    /// Raised when the phase, the generation or a fault changes.
    pub(super) lifecycle: Signal,
    /// Raised when the log, a standby or the settings of replication change.
    pub(super) replication: Signal,
    random: Mutex<fastrand::Rng>,
    /// The statements that were parsed before, by their text. Clients repeat a few statements very often.
    parsed: Mutex<BTreeMap<String, Arc<[Parsed]>>>,
}

/// Maximum number of parsed statements that a server keeps.
const MAX_PARSED: usize = 256;

/// The state of a server, as far as an operator can observe it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// The phase of the process.
    pub phase: Phase,
    /// True if the server is a standby.
    pub in_recovery: bool,
    /// The highest timeline of the log.
    pub timeline: Timeline,
    /// The end of the log, on the disk.
    pub position: Lsn,
    /// The position up to which a standby has replayed the log. Equals `position` on a primary.
    pub replayed: Lsn,
    /// True if a WAL receiver is connected.
    pub receiving: bool,
    /// The server from which a standby is configured to receive its log.
    pub upstream: Option<String>,
    /// The standbys that are connected and the positions that they have confirmed.
    pub standbys: Vec<(String, Lsn)>,
    /// The standbys for which commits wait.
    pub synchronous: Synchronous,
    /// True if the data directory is complete.
    pub usable: bool,
    /// True if `default_transaction_read_only` is on.
    pub read_only: bool,
    /// Number of sessions.
    pub sessions: usize,
    /// True if the server hangs.
    pub hung: bool,
}

impl Status {
    /// Returns true if the server is a primary that accepts sessions.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.phase == Phase::Running && !self.in_recovery
    }

    /// Returns true if the server is a standby that accepts sessions.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.phase == Phase::Running && self.in_recovery
    }
}

impl Server {
    /// Creates a stopped server with an empty database, whose tasks run on `host`.
    pub fn new(
        name: impl Into<String>,
        cluster: &Arc<Cluster>,
        host: impl Spawn + Send + Sync + 'static,
        settings: Settings,
        seed: u64,
    ) -> Arc<Self> {
        let server = Arc::new(Self {
            name: name.into(),
            cluster: cluster.clone(),
            host: Spawner::new(host),
            state: Mutex::new(State::new(settings)),
            departures: Signal::default(),
            lifecycle: Signal::default(),
            replication: Signal::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            parsed: Mutex::default(),
        });
        cluster.register(&server);
        server
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the cluster.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Returns the observable state.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.lock();
        Status {
            phase: state.phase,
            in_recovery: if state.phase == Phase::Stopped { state.standby } else { state.in_recovery },
            timeline: state.log.timeline(),
            position: state.log.end(),
            replayed: state.position(),
            receiving: state.receiver.is_some(),
            upstream: state.upstream.clone(),
            standbys: state.standbys.iter().map(|(name, sender)| (name.clone(), sender.flushed)).collect(),
            synchronous: state.synchronous.clone(),
            usable: state.usable,
            read_only: state.read_only,
            sessions: state.sessions.len(),
            hung: state.hung,
        }
    }

    /// Returns a copy of the log.
    #[must_use]
    pub fn log(&self) -> Log {
        self.lock().log.clone()
    }

    /// Returns true if the log has records that the log of `other` does not have. `other` must be another server.
    #[must_use]
    pub fn has_diverged_from(&self, other: &Self) -> bool {
        let other = other.lock();
        let own = self.lock();
        own.log.fork(&other.log) != own.log.end()
    }

    /// Returns true if a client that needs no login succeeds with `pg_isready`: the server accepts sessions.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let state = self.lock();
        state.phase == Phase::Running && !state.hung
    }

    /// Returns the number of changes of the process so far: its start, its end, its promotion, its phase, and whether
    /// it hangs.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lifecycle.count()
    }

    /// Waits until the number of changes of the process is not `seen`. Returns the number.
    pub async fn changed(&self, seen: u64) -> u64 {
        self.lifecycle.changed(seen).await
    }

    /// Changes the settings.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.lock().settings);
    }

    /// Makes the server a standby of `upstream` at its next start, or replaces the upstream server of a standby that
    /// runs. `None` disconnects a standby.
    pub fn follow(&self, upstream: Option<&str>) {
        let mut state = self.lock();
        if !state.in_recovery || state.phase == Phase::Stopped {
            state.standby = true;
        }
        state.upstream = upstream.map(str::to_owned);
        drop(state);
        self.replication_changed();
    }

    /// Sets the standbys for which commits wait. Releases commits that wait for fewer standbys from now on.
    pub fn set_synchronous(&self, synchronous: Synchronous) {
        let text = format!("synchronous standbys: {:?}, required {}", synchronous.names, synchronous.required);
        self.lock().synchronous = synchronous;
        self.event(text);
        self.replication_changed();
    }

    /// Sets `default_transaction_read_only`, which fences a primary for sessions that do not override it.
    pub fn set_read_only(&self, read_only: bool) {
        self.lock().read_only = read_only;
        self.event(format!("default_transaction_read_only={}", if read_only { "on" } else { "off" }));
    }

    /// Pauses or resumes the replay of a standby.
    pub fn pause_replay(&self, paused: bool) {
        self.lock().replay_paused = paused;
        self.event(if paused { "replay paused" } else { "replay resumed" });
        self.replication_changed();
    }

    /// Makes the server accept connections but do nothing, or ends this fault.
    pub fn hang(&self, hung: bool) {
        self.lock().hung = hung;
        self.event(if hung { "hangs" } else { "no longer hangs" });
        self.lifecycle_changed();
        self.replication_changed();
    }

    pub(super) fn event(&self, text: impl AsRef<str>) {
        self.cluster.event(&self.name, text);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the server's wall-clock time, in microseconds since 1970.
    pub(super) fn wall_clock(&self) -> i64 {
        self.cluster.wall_clock() + self.lock().settings.clock_skew
    }

    pub(super) fn random(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parses the statements of a text.
    pub(super) fn parse(&self, text: &str) -> Result<Arc<[Parsed]>, Report> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statements) = parsed.get(text) {
            return Ok(statements.clone());
        }
        let statements: Arc<[Parsed]> = parse(text)?.into();
        if parsed.len() >= MAX_PARSED {
            parsed.clear();
        }
        parsed.insert(text.to_owned(), statements.clone());
        Ok(statements)
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.host.spawn(task);
    }

    pub(super) fn lifecycle_changed(&self) {
        self.lifecycle.raise();
    }

    pub(super) fn replication_changed(&self) {
        self.replication.raise();
    }

    /// Waits until `check` returns a value. Checks again whenever `signal` changes.
    pub(super) async fn wait_for<T>(&self, signal: &Signal, mut check: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let seen = signal.count();
            if let Some(value) = check(&mut self.lock()) {
                return value;
            }
            signal.changed(seen).await;
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}
