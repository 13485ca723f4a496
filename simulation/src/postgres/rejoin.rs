//! The ways in which a server becomes a standby of another one: `pg_rewind`, and a new base backup.

use std::{fmt, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    lsn::Lsn,
    server::Server,
    state::{Checkpoint, Phase},
};

/// A reason why a server could not become a standby.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RejoinError {
    /// The data directory is incomplete, so only a base backup can restore it.
    Incomplete,
    /// The server that would be changed is running.
    Running,
    /// The source is not reachable, or does not accept sessions.
    Source,
}

impl fmt::Display for RejoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "the data directory is incomplete",
            Self::Running => "the server is running",
            Self::Source => "the source is not available",
        })
    }
}

impl std::error::Error for RejoinError {}

/// Time within which the source must respond.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Server {
    /// Removes the part of the log that `source` does not have, and copies the log of `source` (`pg_rewind`). The
    /// server must be stopped, and becomes a standby of `source`.
    ///
    /// # Errors
    ///
    /// Fails if the source is not available. If it fails during the copy, the data directory stays incomplete.
    pub async fn rewind(&self, source: &str) -> Result<(), RejoinError> {
        if !self.lock().usable {
            return Err(RejoinError::Incomplete);
        }
        self.reachable(source).await?;
        let (mut duration, clean) = {
            let state = self.lock();
            (state.settings.rewind, state.clean)
        };
        if !clean {
            // The recovery must end before the files can be compared.
            duration += self.lock().settings.crash_recovery;
        }
        self.event(format!("rewind to {source} begins"));
        self.copy(source, duration, |own, other| own.fork(other)).await
    }

    /// Replaces the data directory with a base backup of `source`. The server must be stopped, and becomes a standby of
    /// `source`.
    ///
    /// # Errors
    ///
    /// Fails if the source is not available. If it fails during the copy, the data directory stays incomplete.
    pub async fn base_backup(&self, source: &str) -> Result<(), RejoinError> {
        self.reachable(source).await?;
        let duration = self.lock().settings.clone;
        self.event(format!("base backup of {source} begins"));
        let begin = self.cluster.server(source).map_or(Lsn::default(), |peer| peer.status().replayed);
        self.copy(source, duration, |_, _| begin).await
    }

    /// Fails if the server runs, or if the source does not respond.
    async fn reachable(&self, source: &str) -> Result<(), RejoinError> {
        if self.lock().phase != Phase::Stopped {
            return Err(RejoinError::Running);
        }
        let links = self.cluster.links.clone();
        for (from, to) in [(self.name(), source), (source, self.name())] {
            if timeout(TIMEOUT, links.deliver(from, to)).await != Ok(true) {
                return Err(RejoinError::Source);
            }
        }
        match self.cluster.server(source) {
            Some(peer) if peer.is_ready() => Ok(()),
            _ => Err(RejoinError::Source),
        }
    }

    /// Copies the log of `source`. `fork` returns the position from which the copy must be replayed.
    async fn copy(
        &self,
        source: &str,
        duration: Duration,
        fork: impl FnOnce(&super::log::Log, &super::log::Log) -> Lsn,
    ) -> Result<(), RejoinError> {
        self.lock().usable = false;
        sleep(duration).await;
        self.reachable(source).await?;
        let peer = self.cluster.server(source).ok_or(RejoinError::Source)?;
        let log = peer.log();
        let mut state = self.lock();
        let replayed = fork(&state.log, &log).min(log.end());
        let timeline = log.timeline_at(replayed);
        state.checkpoint = Checkpoint { timeline, position: replayed, at: tokio::time::Instant::now() };
        state.minimum_recovery = (log.timeline(), log.end());
        state.replayed = replayed;
        state.log = log;
        state.standby = true;
        state.upstream = Some(source.to_owned());
        state.usable = true;
        drop(state);
        self.event(format!("is a copy of {source}"));
        Ok(())
    }

    /// Removes the data directory, as the loss of a volume does. The server must be stopped.
    pub fn destroy(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Stopped {
            state.log.truncate(Lsn::default());
            state.usable = false;
        }
    }
}
