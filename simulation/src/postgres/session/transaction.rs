//! The transaction of a session: its state, its pending inserts, and the parameters to restore after a rollback.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Session, parameters::Values};
use crate::postgres::error::Report;

/// The transaction block.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Block {
    /// A statement of the block has failed.
    Failed,
    /// No block is open.
    #[default]
    None,
    Open,
}

/// The transaction of a session.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) block: Block,
    /// True if a transaction has begun: by `BEGIN`, or implicitly by a statement.
    active: bool,
    pub(super) read_only: bool,
    /// True if the transaction has begun on a standby. It stays read-only after a promotion.
    in_recovery: bool,
    pub(super) inserts: Vec<i64>,
    /// The parameters at the beginning of the transaction.
    before: Values,
}

impl Transaction {
    /// Returns the status of a ReadyForQuery.
    pub(super) fn status(&self) -> u8 {
        match self.block {
            Block::Failed => b'E',
            Block::None => b'I',
            Block::Open => b'T',
        }
    }

    /// Returns true if the transaction must not write.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only || self.in_recovery
    }

    /// Returns true if the transaction has begun on a standby.
    pub(super) fn began_in_recovery(&self) -> bool {
        self.in_recovery
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<'_, S> {
    /// Begins a transaction for a statement, unless one has begun.
    pub(super) fn begin(&mut self) {
        if self.transaction.active {
            return;
        }
        let read_only = self.parameters.is_on(self.server, "default_transaction_read_only");
        let in_recovery = self.server.lock().in_recovery;
        let before = self.parameters.session.clone();
        self.transaction =
            Transaction { active: true, read_only, in_recovery, before, ..std::mem::take(&mut self.transaction) };
    }

    /// Commits the transaction. The acknowledgement is recorded when the output is sent.
    pub(super) async fn commit(&mut self) -> Result<(), Report> {
        let Transaction { inserts, .. } = std::mem::take(&mut self.transaction);
        self.parameters.local.clear();
        self.portals.clear();
        if inserts.is_empty() {
            return Ok(());
        }
        let committed = self.server.commit(self.registration.handle(), inserts).await?;
        if let Some(warning) = &committed.warning {
            self.wire.output.report(warning);
        }
        self.unsent.push(committed.serial);
        Ok(())
    }

    /// Rolls the transaction back.
    pub(super) fn roll_back(&mut self) {
        let Transaction { active, before, .. } = std::mem::take(&mut self.transaction);
        if active {
            self.parameters.session = before;
        }
        self.parameters.local.clear();
        self.portals.clear();
    }

    /// Applies the failure of a statement.
    pub(super) fn fail(&mut self) {
        match self.transaction.block {
            Block::None => self.roll_back(),
            Block::Failed | Block::Open => {
                self.transaction.block = Block::Failed;
                self.transaction.inserts.clear();
                self.portals.clear();
            }
        }
    }
}
