//! Queries for the state of sessions on the server.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use podpool::{
    Client,
    tokio_postgres::{self, SimpleQueryMessage},
};

/// Result of a caller's first query.
pub(crate) struct FirstQuery {
    /// Process id of the backend.
    pub(crate) pid: i32,
    /// True if the session was not in a transaction.
    pub(crate) clean: bool,
    pub(crate) took: Duration,
}

/// Runs a caller's first query, which detects an open transaction in the session.
pub(crate) async fn first_query(client: &Client) -> FirstQuery {
    let began = Instant::now();
    // `now()` is the start time of the transaction. Outside a transaction block, that is the start of the statement.
    let sql = "SELECT pg_backend_pid(), txid_current_if_assigned() IS NULL AND now() = statement_timestamp()";
    let messages = client.simple_query(sql).await.expect("the query succeeds");
    let took = began.elapsed();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.expect("the result has a row");
    let pid = row.get(0).and_then(|pid| pid.parse().ok()).expect("the process id parses");
    FirstQuery { pid, clean: row.get(1) == Some("t"), took }
}

/// A session in `pg_stat_activity`.
pub(crate) struct Session {
    /// True if the session is idle and not in a transaction.
    pub(crate) is_idle: bool,
    /// The session's state and its last query.
    pub(crate) description: String,
}

/// Returns the server's client sessions, keyed by process id.
pub(crate) async fn sessions(observer: &tokio_postgres::Client) -> BTreeMap<i32, Session> {
    let sql = "SELECT pid, coalesce(state, '') = 'idle' AND xact_start IS NULL AND backend_xid IS NULL, \
               coalesce(state, '?') || ': ' || query FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let rows = observer.query(sql, &[]).await.expect("the query succeeds");
    rows.iter().map(|row| (row.get(0), Session { is_idle: row.get(1), description: row.get(2) })).collect()
}
