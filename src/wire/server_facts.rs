//! Implements the health check of a server. The check sends a bare Sync, and then queries the server's role, system
//! identifier, timeline, WAL position and connection limit. By default, every database role may execute the functions
//! that the query calls (PostgreSQL manual, "Recovery Information Functions", "Control Data Functions"). If a server
//! refuses some of them, the check still passes, and only those facts are missing.

use std::{
    future::poll_fn,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    net::IpAddr,
    task::Poll,
};

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    classify::{Class, classify},
    record::Record,
};
use crate::{
    endpoint::{Endpoint, Role},
    time::{Duration, Instant},
};

/// The error of a query for the state of a server.
pub(crate) type QueryError = tokio_postgres::Error;

/// A position in the write-ahead log (WAL), in bytes since the beginning of the log.
pub(crate) type Lsn = u64;

/// The state of a server. Fields are `None` if the server did not report them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ServerFacts {
    pub(crate) role: Role,
    /// The identifier of the cluster: assigned by `initdb`, shared by a primary and its standbys.
    pub(crate) system: Option<u64>,
    /// The timeline of a primary. For a standby, the highest timeline of its log, as far as the server reports it.
    pub(crate) timeline: Option<u32>,
    /// The timeline that a standby receives from its upstream server. `None` if it receives nothing, or if the
    /// session's role may not read it (`pg_read_all_stats`).
    pub(crate) receiving_timeline: Option<u32>,
    /// A position of a standby's log up to which `timeline` is known to be the highest, even if the standby does not
    /// report the timeline that it receives.
    pub(crate) recorded: Option<Lsn>,
    /// The last WAL position that a primary has written, or that a standby has replayed.
    pub(crate) position: Option<Lsn>,
    /// True if a standby has a WAL receiver, which means that it is connected to an upstream server.
    pub(crate) receiving: Option<bool>,
    /// Time since the commit of the last transaction that a standby has replayed.
    pub(crate) replayed_ago: Option<Duration>,
    /// Maximum number of connections to this database that the session's role may open.
    pub(crate) slots: Option<u32>,
    /// Time at which the server started, in microseconds since 1970.
    pub(crate) started: Option<u64>,
    /// The server from which a standby receives its log. `None` if it receives nothing, or if the session's role may
    /// not read it (`pg_read_all_stats`).
    pub(crate) upstream: Option<Upstream>,
}

/// The server from which a standby receives its log. Only a hint, because the address may be that of a proxy, and names
/// may be ambiguous.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Upstream {
    /// The IP address. `None` if the standby knows the server by name.
    ip: Option<IpAddr>,
    /// The hash of the first label of the host name.
    label: u64,
    port: u16,
}

impl Upstream {
    /// Parses a host and a port, with a space between them.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(' ')?;
        Some(Self { ip: host.parse().ok(), label: hash_of_label(host), port: port.parse().ok()? })
    }

    /// Returns true if this is probably the server at `endpoint`.
    pub(crate) fn is(&self, endpoint: &Endpoint) -> bool {
        let address = endpoint.address();
        let same_name = || endpoint.name().is_some_and(|name| hash_of_label(name) == self.label);
        address.port() == Some(self.port) && self.ip.map_or_else(same_name, |ip| address.ip() == Some(ip))
    }
}

fn hash_of_label(name: &str) -> u64 {
    let label = name.split('.').next().unwrap_or(name);
    BuildHasherDefault::<DefaultHasher>::default().hash_one(label.to_ascii_lowercase())
}

/// An open session on which a server can be checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a> {
    pub(crate) client: &'a Client,
    pub(crate) record: &'a Record,
    /// True if callers use the session too. If the server rejects a statement, the reason may then be a setting of the
    /// session, such as its role.
    pub(crate) pooled: bool,
}

/// The expressions that return the server's state, one column for each. Functions that fail on a standby are called
/// only after `pg_is_in_recovery` has returned false. This condition remains valid during the query, because recovery
/// never begins during a session.
///
/// The timeline of a primary is not read from `pg_control_checkpoint`, because that function returns the old timeline
/// until the first checkpoint after a promotion.
const COLUMNS: [&str; 12] = [
    "pg_catalog.pg_is_in_recovery()",
    "(SELECT system_identifier FROM pg_catalog.pg_control_system())",
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
     ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END",
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
     ELSE pg_catalog.pg_current_wal_lsn() END",
    "EXISTS (SELECT 1 FROM pg_catalog.pg_stat_wal_receiver)",
    "EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())",
    "LEAST(pg_catalog.current_setting('max_connections')::int4 \
     - pg_catalog.current_setting('superuser_reserved_connections')::int4 \
     - COALESCE(pg_catalog.current_setting('reserved_connections', true)::int4, 0), \
     (SELECT NULLIF(rolconnlimit, -1) FROM pg_catalog.pg_roles WHERE rolname = session_user), \
     (SELECT NULLIF(datconnlimit, -1) FROM pg_catalog.pg_database WHERE datname = current_database()))",
    "(SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)",
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN GREATEST( \
     (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), \
     (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())) END",
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN GREATEST( \
     (SELECT checkpoint_lsn FROM pg_catalog.pg_control_checkpoint()), \
     (SELECT min_recovery_end_lsn FROM pg_catalog.pg_control_recovery())) END",
    "(EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::int8",
    "(SELECT sender_host || ' ' || sender_port FROM pg_catalog.pg_stat_wal_receiver)",
];

/// Time after which columns that a server has refused are queried again.
const RETRY_REFUSED: Duration = Duration::from_secs(600);

/// The query for the state of one server. It leaves out the columns that the server has refused: some servers do not
/// have all functions, and the session's role may lack privileges.
#[derive(Debug, Default)]
pub(crate) struct FactQuery {
    /// Bit set of the refused columns.
    refused: u32,
    /// Time at which the refused columns are queried again.
    retry_at: Option<Instant>,
}

impl FactQuery {
    /// Returns the statement, in which refused columns are NULL.
    fn statement(&self) -> String {
        let column = |(i, column): (usize, &&'static str)| if self.refuses(i) { "NULL" } else { *column };
        let columns: Vec<_> = COLUMNS.iter().enumerate().map(column).collect();
        format!("SELECT {}", columns.join(", "))
    }

    fn refuses(&self, column: usize) -> bool {
        self.refused & 1 << column != 0
    }

    /// Queries all columns that the server has not refused. If the server rejects the statement, queries each column
    /// with a statement of its own, and remembers the refused ones. In a pooled session, a rejection is an error.
    async fn run(&mut self, client: &Client, pooled: bool) -> Result<Columns, tokio_postgres::Error> {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            *self = Self::default();
        }
        match columns(client, &self.statement()).await {
            Err(error) if classify(&error).class == Class::Statement && !pooled => {}
            result => return result,
        }
        let asked: Vec<_> = (0..COLUMNS.len()).filter(|&i| !self.refuses(i)).collect();
        let statements: Vec<_> = asked.iter().map(|&i| format!("SELECT {}", COLUMNS[i])).collect();
        // The statements are pipelined, so they take one round trip.
        let mut pending: Vec<_> =
            statements.iter().map(|statement| (Box::pin(columns(client, statement)), None)).collect();
        poll_fn(|context| {
            for (future, result) in pending.iter_mut().filter(|(_, result)| result.is_none()) {
                if let Poll::Ready(ready) = future.as_mut().poll(context) {
                    *result = Some(ready);
                }
            }
            if pending.iter().all(|(_, result)| result.is_some()) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let results = pending.into_iter().filter_map(|(_, result)| result);
        let (mut found, mut refused) = (Columns::default(), self.refused);
        for (&i, result) in asked.iter().zip(results) {
            match result {
                Ok(mut column) => found.0[i] = column.0[0].take(),
                Err(error) if classify(&error).class == Class::Statement => {
                    tracing::info!(%error, column = COLUMNS[i], "the server refuses a part of the health check");
                    refused |= 1 << i;
                }
                Err(error) => return Err(error),
            }
        }
        // If the server has refused everything, the reason is temporary, such as a canceled statement.
        if refused != self.refused && found != Columns::default() {
            *self = Self { refused, retry_at: Some(Instant::now() + RETRY_REFUSED) };
        }
        Ok(found)
    }
}

/// The values of [`COLUMNS`] in one row.
#[derive(Debug, Default, Eq, PartialEq)]
struct Columns([Option<String>; COLUMNS.len()]);

async fn columns(client: &Client, statement: &str) -> Result<Columns, tokio_postgres::Error> {
    let messages = client.simple_query(statement).await?;
    let mut columns = Columns::default();
    if let Some(SimpleQueryMessage::Row(row)) = messages.iter().find(|it| matches!(it, SimpleQueryMessage::Row(_))) {
        for (i, column) in columns.0.iter_mut().enumerate().take(row.len()) {
            *column = row.try_get(i).ok().flatten().map(str::to_owned);
        }
    }
    Ok(columns)
}

/// Checks that the server responds. Returns the response time of a bare Sync, and the facts that the server reports
/// about itself.
///
/// A server that was just promoted reports its new role with the response to the Sync. If the server rejects parts of
/// the query for its state, the check still passes. If it rejects the role too, the facts contain the role that the
/// server has reported on the connection.
pub(crate) async fn probe(
    session: Session<'_>,
    query: &mut FactQuery,
) -> Result<(Duration, ServerFacts), tokio_postgres::Error> {
    let Session { client, record, pooled } = session;
    let started = Instant::now();
    client.check_connection().await?;
    let took = started.elapsed();
    let columns = query.run(client, pooled).await?;
    Ok((took, parse(&columns, record.role())))
}

/// Parses the columns. `reported` is the role if the columns do not contain it.
fn parse(columns: &Columns, reported: Role) -> ServerFacts {
    let text = |column: usize| columns.0[column].as_deref();
    let role = match text(0) {
        Some("t") => Role::Standby,
        Some(_) => Role::Primary,
        None => reported,
    };
    let standby = role == Role::Standby;
    // PostgreSQL has no timeline 0: it stands for an unknown timeline.
    let number = |column| text(column).and_then(|digits| digits.parse::<u32>().ok()).filter(|timeline| *timeline > 0);
    let receiving_timeline = number(7);
    ServerFacts {
        role,
        system: text(1).and_then(|id| id.parse().ok()),
        timeline: match standby {
            true => receiving_timeline.max(number(8)),
            false => text(2).and_then(|digits| u32::from_str_radix(digits, 16).ok()),
        },
        receiving_timeline,
        recorded: text(9).and_then(parse_lsn),
        position: text(3).and_then(parse_lsn),
        receiving: text(4).filter(|_| standby).map(|receiving| receiving == "t"),
        replayed_ago: text(5)
            .and_then(|seconds| seconds.parse().ok())
            .and_then(|seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
        slots: text(6).and_then(|slots| slots.parse().ok()),
        started: text(10).and_then(|micros| micros.parse().ok()),
        upstream: text(11).filter(|_| standby).and_then(Upstream::parse),
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
    fn an_upstream_matches_an_endpoint_by_address_or_by_the_first_label_of_its_name() {
        let address = Endpoint::new(([10, 0, 0, 7], 5432).into());
        let named = Endpoint::named("postgresql-0", ([10, 0, 0, 8], 5432).into());
        for (upstream, is_address, is_named) in [
            ("10.0.0.7 5432", true, false),
            ("10.0.0.8 5432", false, true),
            ("10.0.0.7 5433", false, false),
            ("postgresql-0 5432", false, true),
            ("PostgreSQL-0.postgresql-svc.k8s-training.svc 5432", false, true),
            ("postgresql-rw 5432", false, false),
        ] {
            let upstream = Upstream::parse(upstream).unwrap();
            assert_eq!((upstream.is(&address), upstream.is(&named)), (is_address, is_named), "{upstream:?}");
        }
        for bad in ["", " ", "10.0.0.7", "10.0.0.7 x", "10.0.0.7 70000"] {
            assert_eq!(Upstream::parse(bad), None, "{bad}");
        }
    }

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
