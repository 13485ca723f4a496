//! What a probe asks beside the bare Sync: where a server stands in its cluster's history, by functions that any role
//! may call (PostgreSQL manual, "Recovery Information Functions", "Control Data Functions").

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::{
    classify::{Class, classify},
    dial::Dialled,
};
use crate::{
    endpoint::Role,
    time::{Duration, Instant},
};

/// A position in the write-ahead log, in bytes since the beginning.
pub(crate) type Lsn = u64;

/// Where a server stands. What it did not tell is `None`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ServerFacts {
    pub(crate) role: Role,
    /// Which cluster it belongs to: made by `initdb`, shared by a primary and its standbys.
    pub(crate) system: Option<u64>,
    /// A primary's timeline. Not from `pg_control_checkpoint`, which lags until the checkpoint after a promotion.
    pub(crate) timeline: Option<u32>,
    /// How far a primary has written, and how far a standby has replayed.
    pub(crate) position: Option<Lsn>,
    /// Whether a standby is connected to somebody who sends.
    pub(crate) receiving: Option<bool>,
    /// How long ago the last transaction that a standby has replayed was committed.
    pub(crate) replayed_ago: Option<Duration>,
    /// How many connections there can be of roles like ours to this database.
    pub(crate) slots: Option<u32>,
}

/// One row. Recovery only ever ends, so a function that a primary alone has is called only where recovery had ended.
const QUESTION: &str = "\
SELECT pg_catalog.pg_is_in_recovery(), \
(SELECT system_identifier FROM pg_catalog.pg_control_system()), \
CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END, \
CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
ELSE pg_catalog.pg_current_wal_lsn() END, \
EXISTS (SELECT 1 FROM pg_catalog.pg_stat_wal_receiver), \
EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()), \
LEAST(pg_catalog.current_setting('max_connections')::int4 - pg_catalog.current_setting('superuser_reserved_connections')::int4 \
- COALESCE(pg_catalog.current_setting('reserved_connections', true)::int4, 0), \
(SELECT NULLIF(rolconnlimit, -1) FROM pg_catalog.pg_roles WHERE rolname = session_user), \
(SELECT NULLIF(datconnlimit, -1) FROM pg_catalog.pg_database WHERE datname = current_database()))";

/// Whether the server answers, and how soon: a bare Sync, which also brings the role of a server that has just been
/// promoted. Then, where it stands; one that does not tell is as well as one that does.
pub(crate) async fn probe(open: &Dialled) -> Result<(Duration, ServerFacts), tokio_postgres::Error> {
    let asked = Instant::now();
    open.client.check_connection().await?;
    let took = asked.elapsed();
    match ask(&open.client).await {
        Err(error) if classify(&error).class == Class::Statement => {
            tracing::debug!(%error, "the server does not tell where it stands");
            Ok((took, ServerFacts { role: open.record.role(), ..ServerFacts::default() }))
        }
        facts => Ok((took, facts?)),
    }
}

async fn ask(client: &Client) -> Result<ServerFacts, tokio_postgres::Error> {
    let answer = client.simple_query(QUESTION).await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(row.map(read).unwrap_or_default())
}

fn read(row: &SimpleQueryRow) -> ServerFacts {
    let text = |column| row.try_get(column).ok().flatten();
    let standby = text(0) == Some("t");
    ServerFacts {
        role: if standby { Role::Standby } else { Role::Primary },
        system: text(1).and_then(|id| id.parse().ok()),
        timeline: text(2).and_then(|digits| u32::from_str_radix(digits, 16).ok()),
        position: text(3).and_then(lsn),
        receiving: standby.then(|| text(4) == Some("t")),
        replayed_ago: text(5)
            .and_then(|seconds| seconds.parse().ok())
            .and_then(|seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
        slots: text(6).and_then(|slots| slots.parse().ok()),
    }
}

/// Two hexadecimal numbers with a slash between them (PostgreSQL manual, "pg_lsn Type").
fn lsn(text: &str) -> Option<Lsn> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_position() {
        assert_eq!(lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(lsn("0/0"), Some(0));
        assert_eq!(lsn("FFFFFFFF/FFFFFFFF"), Some(u64::MAX));
        for bad in ["", "0", "0/", "/0", "g/0", "100000000/0"] {
            assert_eq!(lsn(bad), None, "{bad}");
        }
    }
}
