//! The state of one server: its disk and its process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    error::Report,
    log::Log,
    lsn::{Lsn, Timeline},
    session::Handle,
    settings::Settings,
};

/// The phase of a server process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// A standby replays its log, but has not reached a consistent state yet.
    Inconsistent,
    /// The server recovers after the crash of one of its processes.
    Recovering,
    /// The server accepts sessions.
    Running,
    /// The server was just started.
    Starting,
    /// No process runs.
    Stopped,
    /// The server waits for the end of its sessions, and then stops.
    Stopping,
}

impl Phase {
    /// Returns the error with which a server in this phase refuses a session.
    pub(super) fn refusal(self) -> Option<Report> {
        let report = |message| Some(Report::fatal("57P03", message));
        match self {
            Self::Running => None,
            Self::Inconsistent => report("the database system is not yet accepting connections")
                .map(|it| it.with_detail("Consistent recovery state has not been yet reached.")),
            Self::Recovering => report("the database system is in recovery mode"),
            Self::Starting => report("the database system is starting up"),
            Self::Stopped | Self::Stopping => report("the database system is shutting down"),
        }
    }
}

/// The reason why a process of the server ended, as far as its sessions are informed about it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum End {
    /// Another server process has crashed. The sessions receive a warning.
    BackendCrash,
    /// An immediate shutdown. The sessions receive a warning.
    Immediate,
    /// The host has crashed, or all sessions had ended before. Nothing is sent.
    #[default]
    Silent,
}

/// The standbys for which a commit waits (`synchronous_standby_names`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Synchronous {
    /// The names of the candidates. Empty if commits wait for no standby.
    pub names: Vec<String>,
    /// Number of candidates that must confirm a commit (`ANY n`).
    pub required: usize,
}

/// The WAL receiver of a standby.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Receiver {
    pub(super) host: String,
    pub(super) port: u16,
}

/// A standby that receives the log of this server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Sender {
    /// The position up to which the standby has confirmed the log.
    pub(super) flushed: Lsn,
    /// Distinguishes the connections of one standby.
    pub(super) connection: u64,
}

/// The last checkpoint or restartpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) timeline: Timeline,
    pub(super) position: Lsn,
    pub(super) at: Instant,
}

/// The state of one server.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,

    // The disk. It survives the end of the process.
    pub(super) log: Log,
    /// True if `standby.signal` exists.
    pub(super) standby: bool,
    /// The server from which a standby receives its log (`primary_conninfo`).
    pub(super) upstream: Option<String>,
    pub(super) synchronous: Synchronous,
    /// `default_transaction_read_only`.
    pub(super) read_only: bool,
    /// False if the data directory is incomplete, because a copy was interrupted.
    pub(super) usable: bool,
    /// True if the process ended with a shutdown checkpoint.
    pub(super) clean: bool,
    pub(super) checkpoint: Checkpoint,
    /// The end of the log that a standby must replay before it is consistent, and its timeline.
    pub(super) minimum_recovery: (Timeline, Lsn),
    /// The position up to which a standby has replayed the log.
    pub(super) replayed: Lsn,

    // The process.
    pub(super) phase: Phase,
    /// Incremented whenever processes end. A task of an earlier generation must do nothing any more.
    pub(super) generation: u64,
    pub(super) end: End,
    /// Wall-clock time of the start, in microseconds since 1970.
    pub(super) started: i64,
    pub(super) in_recovery: bool,
    /// Wall-clock time of the last commit that was replayed since the start, in microseconds since 1970.
    pub(super) replayed_stamp: Option<i64>,
    pub(super) replay_paused: bool,
    pub(super) promoting: bool,
    pub(super) receiver: Option<Receiver>,
    pub(super) standbys: BTreeMap<String, Sender>,
    /// The positions of commits that wait for synchronous standbys. They are not visible yet.
    pub(super) waiting: BTreeSet<Lsn>,
    pub(super) sessions: BTreeMap<i32, Arc<Handle>>,
    pub(super) next_pid: i32,
    /// True if the server accepts connections but does nothing.
    pub(super) hung: bool,
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        let log = Log::default();
        let end = log.end();
        Self {
            settings,
            standby: false,
            upstream: None,
            synchronous: Synchronous::default(),
            read_only: false,
            usable: true,
            clean: true,
            checkpoint: Checkpoint { timeline: 1, position: end, at: Instant::now() },
            minimum_recovery: (1, Lsn::default()),
            replayed: end,
            log,
            phase: Phase::Stopped,
            generation: 0,
            end: End::Silent,
            started: 0,
            in_recovery: false,
            replayed_stamp: None,
            replay_paused: false,
            promoting: false,
            receiver: None,
            standbys: BTreeMap::new(),
            waiting: BTreeSet::new(),
            sessions: BTreeMap::new(),
            next_pid: 100,
            hung: false,
        }
    }

    /// Ends all processes of the server.
    pub(super) fn end(&mut self, end: End, phase: Phase) {
        if !self.in_recovery {
            self.replayed = self.log.end();
        }
        self.generation += 1;
        self.end = end;
        self.phase = phase;
        self.promoting = false;
        self.receiver = None;
        self.standbys.clear();
        self.waiting.clear();
        self.sessions.clear();
        self.hung = false;
    }

    /// Returns the position up to which the data is visible: the replayed log of a standby, or the whole log of a
    /// primary.
    pub(super) fn position(&self) -> Lsn {
        if self.in_recovery { self.replayed } else { self.log.end() }
    }

    /// Returns the ids that a new snapshot contains, in the order of their commits.
    pub(super) fn visible(&self) -> impl Iterator<Item = i64> + '_ {
        let records = self.log.until(self.position()).iter();
        records.filter(|record| !self.waiting.contains(&record.end)).flat_map(|record| record.ids()).copied()
    }

    /// Returns the highest id that a new snapshot contains.
    pub(super) fn highest(&self) -> Option<i64> {
        // All commits before the first one that still waits are visible.
        let first = self.waiting.first().map_or(Lsn(u64::MAX), |first| Lsn(first.0 - 1));
        let before = self.log.highest(first.min(self.position()));
        if self.waiting.is_empty() {
            return before;
        }
        let after = self.log.until(self.position()).iter().rev().take_while(|record| record.end > first);
        let visible = after.filter(|record| !self.waiting.contains(&record.end));
        visible.flat_map(|record| record.ids()).copied().max().max(before)
    }

    /// Returns true if enough synchronous standbys have the log up to a position.
    pub(super) fn is_confirmed(&self, position: Lsn) -> bool {
        let Synchronous { names, required } = &self.synchronous;
        let has = |name: &&String| self.standbys.get(*name).is_some_and(|sender| sender.flushed >= position);
        names.is_empty() || names.iter().filter(has).count() >= *required
    }

    /// Records a checkpoint or restartpoint at a position.
    pub(super) fn checkpoint_at(&mut self, position: Lsn) {
        let timeline = self.log.timeline_at(position);
        self.checkpoint = Checkpoint { timeline, position, at: Instant::now() };
        if self.in_recovery {
            self.minimum_recovery = self.minimum_recovery.max((timeline, position));
        }
    }
}
