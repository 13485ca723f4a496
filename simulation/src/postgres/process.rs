//! The life of a server process: start, recovery, service, promotion, shutdown and crash.

use std::sync::Arc;

use tokio::{
    select,
    time::{sleep, timeout},
};

use super::{
    error::Report,
    log::Content,
    server::Server,
    session::Interrupt,
    state::{End, Phase},
};

/// A way to stop a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shutdown {
    /// Terminates the sessions, and stops after a checkpoint.
    Fast,
    /// Stops without a checkpoint. The next start recovers.
    Immediate,
    /// Refuses new sessions, and stops when the last session has ended.
    Smart,
}

impl Server {
    /// Starts the server. Does nothing if it runs already, or if its data directory is incomplete.
    pub fn start(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.phase != Phase::Stopped || !state.usable {
            return;
        }
        state.phase = Phase::Starting;
        state.in_recovery = state.standby;
        state.replayed_stamp = None;
        state.replay_paused = false;
        let generation = state.generation;
        drop(state);
        let started = self.wall_clock();
        self.lock().started = started;
        self.event("starts");
        self.lifecycle_changed();
        self.spawn_process(generation);
    }

    fn spawn_process(self: &Arc<Self>, generation: u64) {
        let server = self.clone();
        self.spawn(async move {
            select! {
                biased;
                () = server.ended(generation) => {}
                () = server.run() => {}
            }
        });
    }

    /// Waits until the processes of this generation have ended.
    pub(super) async fn ended(&self, generation: u64) {
        self.wait_for(&self.lifecycle, |state| (state.generation != generation).then_some(())).await;
    }

    /// Waits until the server is stopped.
    pub async fn stopped(&self) {
        self.wait_for(&self.lifecycle, |state| (state.phase == Phase::Stopped).then_some(())).await;
    }

    /// Waits until the server accepts sessions.
    pub async fn running(&self) {
        self.wait_for(&self.lifecycle, |state| (state.phase == Phase::Running).then_some(())).await;
    }

    /// Begins to stop the server. [`stopped`](Self::stopped) waits for the end. A fast shutdown may follow a smart one,
    /// and an immediate one may follow both.
    pub fn stop(&self, mode: Shutdown) {
        let mut state = self.lock();
        match (state.phase, mode) {
            (Phase::Stopped, _) => return,
            (_, Shutdown::Immediate) => {
                state.clean = false;
                state.end(End::Immediate, Phase::Stopped);
            }
            (Phase::Running | Phase::Stopping, _) => {
                state.phase = Phase::Stopping;
                if mode == Shutdown::Fast {
                    let report = "terminating connection due to administrator command";
                    for session in state.sessions.values() {
                        session.interrupt(Interrupt::Terminate(Report::fatal("57P01", report)));
                    }
                }
            }
            // No session exists, and the recovery can be repeated.
            (Phase::Inconsistent | Phase::Recovering | Phase::Starting, _) => state.end(End::Silent, Phase::Stopped),
        }
        drop(state);
        self.event(format!("shutdown: {mode:?}"));
        self.lifecycle_changed();
        self.replication_changed();
    }

    /// Ends all processes without a message to any session, as the crash of the host does.
    pub fn crash(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Stopped {
            return;
        }
        state.clean = false;
        state.end(End::Silent, Phase::Stopped);
        drop(state);
        self.event("crashes");
        self.lifecycle_changed();
        self.replication_changed();
    }

    /// Crashes one process of the server. All sessions end, and the server recovers without a new start.
    pub fn crash_backend(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.phase != Phase::Running {
            return;
        }
        state.clean = false;
        state.end(End::BackendCrash, Phase::Recovering);
        let generation = state.generation;
        drop(state);
        self.event("a backend crashes");
        self.lifecycle_changed();
        self.replication_changed();
        self.spawn_process(generation);
    }

    /// Promotes a standby. Does nothing on other servers.
    pub fn promote(&self) {
        let mut state = self.lock();
        if !state.in_recovery || !matches!(state.phase, Phase::Running | Phase::Inconsistent) {
            return;
        }
        state.promoting = true;
        drop(state);
        self.event("promotion begins");
        self.replication_changed();
    }

    /// Waits until a requested promotion has ended: the server is a primary, or its process has ended.
    pub async fn wait_promoted(&self) {
        self.wait_for(&self.lifecycle, |state| (!state.promoting).then_some(())).await;
    }

    /// Ends one session with FATAL 57P01, as `pg_terminate_backend` does. Returns false if there is no such session.
    pub fn terminate(&self, pid: i32) -> bool {
        self.terminate_with(pid, Report::fatal("57P01", "terminating connection due to administrator command"))
    }

    /// Ends one session with any report, for example of a timeout. Returns false if there is no such session.
    pub fn terminate_with(&self, pid: i32, report: Report) -> bool {
        let session = self.lock().sessions.get(&pid).cloned();
        session.inspect(|session| session.interrupt(Interrupt::Terminate(report))).is_some()
    }

    /// Returns the process ids of the sessions.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        self.lock().sessions.keys().copied().collect()
    }

    /// Returns true if a user has the session.
    #[must_use]
    pub fn is_session_of(&self, pid: i32, user: &str) -> bool {
        self.lock().sessions.get(&pid).is_some_and(|session| session.is_of(user))
    }

    /// Returns the number of sessions of a user.
    #[must_use]
    pub fn sessions_of(&self, user: &str) -> usize {
        self.lock().sessions.values().filter(|session| session.is_of(user)).count()
    }

    /// Runs one process from its start until it has stopped.
    async fn run(self: &Arc<Self>) {
        let recovering = self.lock().phase == Phase::Recovering;
        if !recovering {
            let startup = self.lock().settings.startup;
            sleep(startup).await;
        }
        let (recovery, standby) = {
            let state = self.lock();
            let unclean = !state.clean && !state.standby;
            ((unclean || recovering).then_some(state.settings.crash_recovery), state.in_recovery)
        };
        if let Some(duration) = recovery {
            sleep(duration).await;
        }
        if standby {
            select! {
                biased;
                () = self.stop_requested() => return self.shut_down().await,
                () = self.recover() => self.finish_promotion().await,
            }
        } else {
            self.open();
        }
        self.stop_requested().await;
        self.shut_down().await;
    }

    /// Makes a primary accept sessions.
    fn open(&self) {
        let (serial, stamp) = (self.cluster.history.next_serial(), self.wall_clock());
        let mut state = self.lock();
        state.clean = false;
        let position = state.log.append(Content::Checkpoint, serial, stamp);
        state.checkpoint_at(position);
        state.phase = Phase::Running;
        drop(state);
        self.event("accepts sessions as primary");
        self.lifecycle_changed();
        self.replication_changed();
    }

    /// Runs a standby until its promotion is requested.
    async fn recover(self: &Arc<Self>) {
        self.lock().clean = false;
        select! {
            biased;
            () = self.wait_for(&self.replication, |state| state.promoting.then_some(())) => {}
            () = self.replay() => {}
            () = self.receive() => {}
        }
        self.lock().receiver = None;
    }

    async fn finish_promotion(&self) {
        let duration = self.lock().settings.promotion;
        sleep(duration).await;
        let (serial, stamp) = (self.cluster.history.next_serial(), self.wall_clock());
        let mut state = self.lock();
        state.replayed = state.log.end();
        state.log.switch();
        let position = state.log.append(Content::Promotion, serial, stamp);
        state.in_recovery = false;
        state.standby = false;
        state.promoting = false;
        state.replay_paused = false;
        state.checkpoint_at(position);
        if state.phase == Phase::Inconsistent {
            state.phase = Phase::Running;
        }
        let timeline = state.log.timeline();
        drop(state);
        self.event(format!("promoted to timeline {timeline}"));
        self.lifecycle_changed();
        self.replication_changed();
    }

    async fn stop_requested(&self) {
        self.wait_for(&self.lifecycle, |state| (state.phase == Phase::Stopping).then_some(())).await;
    }

    /// Waits until no session is left, and stops with a checkpoint.
    async fn shut_down(&self) {
        self.wait_for(&self.departures, |state| state.sessions.is_empty().then_some(())).await;
        let (duration, limit) = {
            let state = self.lock();
            (state.settings.shutdown_checkpoint, state.settings.replication_timeout)
        };
        sleep(duration).await;
        let (serial, stamp) = (self.cluster.history.next_serial(), self.wall_clock());
        let position = {
            let mut state = self.lock();
            let position = match state.in_recovery {
                true => state.replayed,
                false => state.log.append(Content::Checkpoint, serial, stamp),
            };
            state.checkpoint_at(position);
            state.clean = true;
            position
        };
        self.replication_changed();
        // A primary stops only after its standbys have received the checkpoint. A standby that no longer confirms
        // anything is disconnected after the timeout.
        let primary = !self.lock().in_recovery;
        if primary {
            let sent = self.wait_for(&self.replication, |state| {
                state.standbys.values().all(|sender| sender.flushed >= position).then_some(())
            });
            let _ = timeout(limit, sent).await;
        }
        self.lock().end(End::Silent, Phase::Stopped);
        self.event("stopped");
        self.lifecycle_changed();
        self.replication_changed();
    }
}
