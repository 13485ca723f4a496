//! The prepared statements of one shared connection.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::OnceCell;
use tokio_postgres::{Client, Statement};

use crate::{
    sync::{Mutex, lock},
    wire::classify::DriverError,
};

/// The prepared statements of one shared connection, by their texts. Callers with the same text share one statement,
/// and only one of them prepares it.
#[derive(Debug)]
pub(super) struct Statements {
    /// Maximum number of statements. If it is reached, all are forgotten.
    limit: usize,
    entries: Mutex<HashMap<Box<str>, Entry>>,
}

/// A statement that is or will be prepared.
pub(super) type Entry = Arc<OnceCell<Statement>>;

impl Statements {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::default() }
    }

    /// Returns the statement with this text if it is prepared.
    pub(super) fn get(&self, text: &str) -> Option<Statement> {
        lock(&self.entries).get(text)?.get().cloned()
    }

    /// Returns the entry of a text. Adds it if there is none.
    pub(super) fn entry(&self, text: &str) -> Entry {
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.get(text) {
            return entry.clone();
        }
        let forgotten = if entries.len() >= self.limit { std::mem::take(&mut *entries) } else { HashMap::new() };
        let entry = Entry::default();
        if self.limit > 0 {
            entries.insert(text.into(), entry.clone());
        }
        drop(entries);
        drop(forgotten); // after the lock: dropping a statement sends a request
        entry
    }

    /// Forgets an entry whose statement could not be prepared.
    pub(super) fn forget(&self, text: &str, entry: &Entry) {
        let mut entries = lock(&self.entries);
        if entries.get(text).is_some_and(|other| Arc::ptr_eq(other, entry) && !other.initialized()) {
            entries.remove(text);
        }
    }

    /// Forgets all statements, because they are stale.
    pub(super) fn clear(&self) {
        let forgotten = std::mem::take(&mut *lock(&self.entries));
        drop(forgotten);
    }
}

/// Prepares the statement of an entry, unless another task has prepared it.
pub(super) async fn prepare(client: &Client, text: &str, entry: &Entry) -> Result<Statement, DriverError> {
    entry.get_or_try_init(|| client.prepare(text)).await.cloned()
}
