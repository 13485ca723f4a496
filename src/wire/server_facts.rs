//! Implements the health check of a server. The check sends a bare Sync, and then queries the server's role, system
//! identifier, timeline, WAL position and connection limit. The query calls only functions that every database role may
//! execute (PostgreSQL manual, "Recovery Information Functions", "Control Data Functions").

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::{
    classify::{Class, classify},
    record::Record,
};
use crate::{
    endpoint::Role,
    time::{Duration, Instant},
};

/// A position in the write-ahead log (WAL), in bytes since the beginning of the log.
pub(crate) type Lsn = u64;

/// The state of a server. Fields are `None` if the server did not report them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ServerFacts {
    pub(crate) role: Role,
    /// The identifier of the cluster: assigned by `initdb`, shared by a primary and its standbys.
    pub(crate) system: Option<u64>,
    /// The timeline of a primary. The query does not use `pg_control_checkpoint`, because that function returns the old
    /// timeline until the first checkpoint after a promotion.
    pub(crate) timeline: Option<u32>,
    /// The last WAL position that a primary has written, or that a standby has replayed.
    pub(crate) position: Option<Lsn>,
    /// True if a standby has a WAL receiver, which means that it is connected to an upstream server.
    pub(crate) receiving: Option<bool>,
    /// Time since the commit of the last transaction that a standby has replayed.
    pub(crate) replayed_ago: Option<Duration>,
    /// Maximum number of connections to this database that the session's role may open.
    pub(crate) slots: Option<u32>,
}

/// An open session on which a server can be checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a> {
    pub(crate) client: &'a Client,
    pub(crate) record: &'a Record,
}

/// The query for the server's state, which returns one row. Functions that fail on a standby are called only after
/// `pg_is_in_recovery` has returned false. This condition remains valid during the query, because recovery never begins
/// during a session.
const QUERY: &str = "\
SELECT pg_catalog.pg_is_in_recovery(), \
(SELECT system_identifier FROM pg_catalog.pg_control_system()), \
CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END, \
CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
ELSE pg_catalog.pg_current_wal_lsn() END, \
EXISTS (SELECT 1 FROM pg_catalog.pg_stat_wal_receiver), \
EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()), \
LEAST(pg_catalog.current_setting('max_connections')::int4 \
- pg_catalog.current_setting('superuser_reserved_connections')::int4 \
- COALESCE(pg_catalog.current_setting('reserved_connections', true)::int4, 0), \
(SELECT NULLIF(rolconnlimit, -1) FROM pg_catalog.pg_roles WHERE rolname = session_user), \
(SELECT NULLIF(datconnlimit, -1) FROM pg_catalog.pg_database WHERE datname = current_database()))";

/// Checks that the server responds. Returns the response time of a bare Sync, and the facts that the server reports
/// about itself.
///
/// A server that was just promoted reports its new role with the response to the Sync. If the server rejects the query
/// for its state, the check still passes, and the facts contain only this role.
pub(crate) async fn probe(session: Session<'_>) -> Result<(Duration, ServerFacts), tokio_postgres::Error> {
    let Session { client, record } = session;
    let started = Instant::now();
    client.check_connection().await?;
    let took = started.elapsed();
    match query(client).await {
        Err(error) if classify(&error).class == Class::Statement => {
            tracing::debug!(%error, "the server rejected the health check's query for its role and replication state");
            Ok((took, ServerFacts { role: record.role(), ..ServerFacts::default() }))
        }
        facts => Ok((took, facts?)),
    }
}

async fn query(client: &Client) -> Result<ServerFacts, tokio_postgres::Error> {
    let messages = client.simple_query(QUERY).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(row.map(parse).unwrap_or_default())
}

fn parse(row: &SimpleQueryRow) -> ServerFacts {
    let text = |column| row.try_get(column).ok().flatten();
    let standby = text(0) == Some("t");
    ServerFacts {
        role: if standby { Role::Standby } else { Role::Primary },
        system: text(1).and_then(|id| id.parse().ok()),
        timeline: text(2).and_then(|digits| u32::from_str_radix(digits, 16).ok()),
        position: text(3).and_then(parse_lsn),
        receiving: standby.then(|| text(4) == Some("t")),
        replayed_ago: text(5)
            .and_then(|seconds| seconds.parse().ok())
            .and_then(|seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
        slots: text(6).and_then(|slots| slots.parse().ok()),
    }
}

/// Parses a WAL position: two hexadecimal numbers with a slash between them (PostgreSQL manual, "pg_lsn Type").
fn parse_lsn(text: &str) -> Option<Lsn> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_wal_positions() {
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(parse_lsn("0/0"), Some(0));
        assert_eq!(parse_lsn("FFFFFFFF/FFFFFFFF"), Some(u64::MAX));
        for bad in ["", "0", "0/", "/0", "g/0", "100000000/0"] {
            assert_eq!(parse_lsn(bad), None, "{bad}");
        }
    }
}
