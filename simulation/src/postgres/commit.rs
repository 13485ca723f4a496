//! Commits: the flush of the log, and the wait for synchronous standbys.

use tokio::{
    select,
    time::{Instant, sleep},
};

use super::{
    error::Report,
    history::{Confirmation, Write},
    log::Content,
    lsn::Lsn,
    server::Server,
    session::{Handle, Interrupt},
};

/// A commit that can be acknowledged.
#[derive(Debug)]
pub(super) struct Committed {
    /// The serial number of the commit record.
    pub(super) serial: u64,
    /// The warning of a commit whose wait for synchronous standbys was cancelled.
    pub(super) warning: Option<Report>,
}

const NOT_REPLICATED: &str =
    "The transaction has already committed locally, but might not have been replicated to the standby.";

impl Server {
    /// Commits a transaction that has inserted these ids. Returns when the commit can be acknowledged.
    ///
    /// # Errors
    ///
    /// A warning if the session was terminated during the wait for synchronous standbys. The transaction is committed,
    /// and the session must end without another message.
    pub(super) async fn commit(&self, session: &Handle, ids: Vec<i64>) -> Result<Committed, Report> {
        let flush = self.lock().settings.flush;
        sleep(flush).await;
        self.unhung().await;
        let (serial, position, waits) = self.append(session, ids);
        self.replication_changed();
        if !waits {
            self.cluster.history.confirmed(serial, Confirmation::Local);
            return Ok(Committed { serial, warning: None });
        }
        let hidden = Hidden { server: self, position };
        let confirmed = self.wait_for(&self.replication, |state| state.is_confirmed(position).then_some(()));
        let interrupt = select! {
            biased;
            () = confirmed => None,
            interrupt = session.interrupted() => Some(interrupt),
        };
        drop(hidden);
        let confirmation = if interrupt.is_none() { Confirmation::Synchronous } else { Confirmation::Cancelled };
        self.cluster.history.confirmed(serial, confirmation);
        let warning = |code, message| Report::warning(code, message).with_detail(NOT_REPLICATED);
        match interrupt {
            None => Ok(Committed { serial, warning: None }),
            Some(Interrupt::Cancel) => {
                let text = "canceling wait for synchronous replication due to user request";
                Ok(Committed { serial, warning: Some(warning("01000", text)) })
            }
            Some(Interrupt::Terminate(_)) => {
                let text = "canceling the wait for synchronous replication and terminating connection due to \
                            administrator command";
                Err(warning("57P01", text))
            }
        }
    }

    /// Appends a commit record. Returns its serial number and position, and true if the commit must wait for
    /// synchronous standbys.
    fn append(&self, session: &Handle, ids: Vec<i64>) -> (u64, Lsn, bool) {
        let (serial, stamp) = (self.cluster.history.next_serial(), self.wall_clock());
        let ids: std::sync::Arc<[i64]> = ids.into();
        let mut state = self.lock();
        let position = state.log.append(Content::Commit(ids.clone()), serial, stamp);
        let waits = !state.synchronous.names.is_empty();
        if waits {
            state.waiting.insert(position);
        }
        if state.checkpoint.at.elapsed() >= state.settings.checkpoint_interval {
            state.checkpoint_at(position);
        }
        let timeline = state.log.timeline();
        drop(state);
        self.cluster.history.committed(Write {
            serial,
            ids,
            server: self.name().to_owned(),
            session: session.pid,
            timeline,
            position,
            committed: Instant::now(),
            confirmation: Confirmation::None,
            acknowledged: None,
        });
        (serial, position, waits)
    }
}

/// A commit that other sessions do not see yet. Dropping it makes the commit visible.
struct Hidden<'a> {
    server: &'a Server,
    position: Lsn,
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        self.server.lock().waiting.remove(&self.position);
    }
}
