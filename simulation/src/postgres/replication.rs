//! Streaming replication: the WAL receiver and the replay of a standby.

use std::sync::Arc;

use tokio::{
    select,
    time::{sleep, timeout},
};

use super::{
    log::{Content, Record, Switch},
    lsn::Lsn,
    server::Server,
    state::{Phase, Receiver, Sender},
};

/// Records that an upstream server sends.
struct Batch {
    records: Vec<Record>,
    switches: Vec<Switch>,
}

/// A reason why a standby receives nothing from its upstream server.
#[derive(Debug, Eq, PartialEq)]
enum Loss {
    /// The upstream server has ended, or refuses the standby.
    Closed,
    /// The upstream server's log does not contain the end of the standby's log.
    Diverged,
    /// A message did not arrive in time.
    Timeout,
}

impl Server {
    /// Replays the received log, until the task is dropped.
    pub(super) async fn replay(&self) {
        loop {
            let check = |state: &mut super::state::State| {
                if state.phase == Phase::Starting || state.phase == Phase::Recovering {
                    state.phase = Phase::Inconsistent;
                }
                let consistent = state.replayed >= state.minimum_recovery.1;
                let opened = state.phase == Phase::Inconsistent && consistent;
                if opened {
                    state.phase = Phase::Running;
                }
                let pending = state.log.end() > state.replayed && !state.replay_paused;
                (opened || pending).then(|| (opened, state.log.end(), state.settings.replay))
            };
            let (opened, target, delay) = self.wait_for(&self.replication, check).await;
            if opened {
                self.event("accepts sessions as standby");
                self.lifecycle_changed();
                continue;
            }
            sleep(delay).await;
            self.apply(target);
            self.replication_changed();
        }
    }

    /// Replays the log up to a position, unless the replay was paused.
    fn apply(&self, target: Lsn) {
        let mut state = self.lock();
        if state.replay_paused {
            return;
        }
        let commit = |record: &&Record| matches!(record.content, Content::Commit(_));
        let stamp = state.log.after(state.replayed).iter().filter(|it| it.end <= target).rfind(commit);
        let stamp = stamp.map(|record| record.stamp);
        state.replayed_stamp = stamp.or(state.replayed_stamp);
        state.replayed = target;
        if state.checkpoint.at.elapsed() >= state.settings.checkpoint_interval {
            state.checkpoint_at(target);
        }
    }

    /// Receives the log from the configured upstream server, until the task is dropped.
    pub(super) async fn receive(self: &Arc<Self>) {
        let mut reported = None;
        loop {
            let upstream = self.wait_for(&self.replication, |state| state.upstream.clone()).await;
            let changed =
                self.wait_for(&self.replication, |state| (state.upstream.as_deref() != Some(&upstream)).then_some(()));
            let retry = self.lock().settings.replication_retry;
            let connection = Connection::new(self, &upstream);
            let attempt = async {
                let loss = self.receive_from(&upstream, connection.id).await;
                drop(connection);
                let text = format!("receives nothing from {upstream}: {loss:?}");
                if reported.as_ref() != Some(&text) {
                    self.event(&text);
                    reported = Some(text);
                }
                sleep(retry).await;
            };
            select! {
                biased;
                () = changed => reported = None,
                () = attempt => {}
            }
        }
    }

    /// Receives from one server until the connection is lost. Returns the reason.
    async fn receive_from(&self, upstream: &str, connection: u64) -> Loss {
        let limit = self.lock().settings.replication_timeout;
        let Some(peer) = self.cluster.server(upstream) else {
            return Loss::Closed;
        };
        if let Err(loss) = self.transfer(self.name(), upstream).await {
            return loss;
        }
        let Some((generation, host, port)) = peer.accept(self, connection) else {
            return Loss::Closed;
        };
        if self.has_diverged_from(&peer) {
            return Loss::Diverged;
        }
        if let Err(loss) = self.transfer(upstream, self.name()).await {
            return loss;
        }
        self.lock().receiver = Some(Receiver { host, port });
        self.event(format!("receives from {upstream}"));
        let position = self.lock().log.end();
        if let Err(loss) = self.transfer(self.name(), upstream).await {
            return loss;
        }
        peer.confirm(self.name(), connection, position);
        loop {
            let position = self.lock().log.end();
            let next = peer.wait_for(&peer.replication, |state| {
                if state.generation != generation {
                    return Some(None);
                }
                if state.hung {
                    return None;
                }
                let records = state.log.after(position);
                let batch = || Batch { records: records.to_vec(), switches: state.log.switches().to_vec() };
                (!records.is_empty()).then(|| Some(batch()))
            });
            let batch = match timeout(limit / 2, next).await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Loss::Closed,
                Err(_) => match self.keep_alive(upstream).await {
                    Ok(()) => continue,
                    Err(loss) => return loss,
                },
            };
            if let Err(loss) = self.transfer(upstream, self.name()).await {
                return loss;
            }
            let flush = self.lock().settings.flush;
            sleep(flush).await;
            let position = {
                let mut state = self.lock();
                state.log.extend(&batch.records, &batch.switches);
                state.log.end()
            };
            self.replication_changed();
            if let Err(loss) = self.transfer(self.name(), upstream).await {
                return loss;
            }
            peer.confirm(self.name(), connection, position);
        }
    }

    /// Sends a keepalive to the upstream server and waits for its response.
    async fn keep_alive(&self, upstream: &str) -> Result<(), Loss> {
        self.transfer(self.name(), upstream).await?;
        self.transfer(upstream, self.name()).await
    }

    /// Transfers one message within the replication timeout.
    async fn transfer(&self, from: &str, to: &str) -> Result<(), Loss> {
        let limit = self.lock().settings.replication_timeout;
        let links = self.cluster.links.clone();
        match timeout(limit, links.deliver(from, to)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Loss::Closed),
            Err(_) => Err(Loss::Timeout),
        }
    }

    /// Accepts the WAL receiver of a standby. Returns the generation of this server's processes and its address, or
    /// `None` if the server refuses replication.
    fn accept(&self, standby: &Self, connection: u64) -> Option<(u64, String, u16)> {
        let mut state = self.lock();
        if state.phase != Phase::Running || state.hung {
            return None;
        }
        let sender = Sender { flushed: Lsn::default(), connection };
        state.standbys.insert(standby.name().to_owned(), sender);
        Some((state.generation, state.settings.host.clone(), state.settings.port))
    }

    /// Records that a standby has the log up to a position on its disk.
    fn confirm(&self, standby: &str, connection: u64, position: Lsn) {
        let mut state = self.lock();
        let Some(sender) = state.standbys.get_mut(standby).filter(|sender| sender.connection == connection) else {
            return;
        };
        sender.flushed = position;
        drop(state);
        self.replication_changed();
    }
}

/// The replication connection of a standby. Dropping it disconnects the standby from its upstream server.
struct Connection {
    standby: Arc<Server>,
    upstream: String,
    id: u64,
}

impl Connection {
    fn new(standby: &Arc<Server>, upstream: &str) -> Self {
        let id = standby.cluster.history.next_serial();
        Self { standby: standby.clone(), upstream: upstream.to_owned(), id }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.standby.lock().receiver = None;
        let Some(peer) = self.standby.cluster.server(&self.upstream) else {
            return;
        };
        let mut state = peer.lock();
        if state.standbys.get(self.standby.name()).is_some_and(|sender| sender.connection == self.id) {
            state.standbys.remove(self.standby.name());
            drop(state);
            peer.replication_changed();
        }
    }
}
