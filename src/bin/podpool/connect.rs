//! Connects to one Pod and reads the facts that its server reports.

use std::{
    error::Error as StdError,
    io,
    iter::successors,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use podpool::{
    Attempt, Client, Config, Endpoint, Error, Phase, Pool, Target, TlsError, discovery::Fixed, tokio_postgres::Row,
};
use tokio::time::{Instant, sleep, timeout};

use crate::facts::{Failure, PodFacts, Server};

/// Time that a caller waits longer than a dial may take, so that the dial's own error is returned.
const MARGIN: Duration = Duration::from_millis(500);
/// Time limit of each query for facts.
const QUERY: Duration = Duration::from_secs(5);

/// The facts that every user may read.
const FACTS: &str = "\
    SELECT current_setting('server_version_num')::int4, current_setting('max_connections')::int4, \
    current_setting('superuser_reserved_connections')::int4 \
      + coalesce(current_setting('reserved_connections', true), '0')::int4, \
    (SELECT sum(numbackends) FROM pg_catalog.pg_stat_database)::int8, \
    current_setting('default_transaction_read_only') = 'on', \
    host(inet_server_addr()), inet_server_port(), \
    (SELECT version || ' ' || cipher FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), \
    extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8, \
    (SELECT count(pid) FROM pg_catalog.pg_stat_wal_receiver) > 0, \
    CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END, pg_backend_pid()";
/// The facts that an administrator or a provider may have restricted.
const CONTROL: &str = "\
    SELECT (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint())";
/// The server's clock.
const CLOCK: &str = "SELECT extract(epoch FROM clock_timestamp())::float8";
/// The position in the write-ahead log.
pub(crate) const POSITION: &str = "\
    SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, \
    '0/0')::int8";

/// A Pod to which a connection is open, or the reason why there is none.
pub(crate) struct Visit {
    pub(crate) facts: PodFacts,
    pub(crate) client: Option<Client>,
    /// The pool of the client.
    pool: Option<Pool>,
}

impl Visit {
    /// Closes the connection.
    pub(crate) async fn end(self) -> PodFacts {
        drop(self.client);
        if let Some(pool) = self.pool {
            pool.close().await;
        }
        self.facts
    }
}

/// Connects to a Pod with the settings of `config`, which has one host. `endpoint` is `None` if the host is a single
/// server that needs no lookup.
pub(crate) async fn visit(config: Config, endpoint: Option<Endpoint>) -> Visit {
    let began = Instant::now();
    let mut limits = *config.limits();
    (limits.pool_size, limits.min_idle) = (1, 0);
    (limits.subset_size, limits.max_connections, limits.clients) = (None, None, None);
    limits.acquire_timeout = limits.connect_timeout + MARGIN;
    let host = config.host().to_string();
    let builder = Pool::builder(config.with_limits(limits));
    let builder = match &endpoint {
        Some(endpoint) => builder.resolver(Fixed::new([endpoint.clone()])),
        None => builder,
    };
    let (pool, result) = match builder.build() {
        Ok(pool) => {
            let result = connect(&pool).await;
            (Some(pool), result)
        }
        Err(error) => (None, Err(Failure { text: error.to_string(), ..Failure::default() })),
    };
    let endpoint = endpoint.or_else(|| Some(pool.as_ref()?.status().endpoints.first()?.endpoint.clone()));
    let (client, visit) = match result {
        Ok((client, server)) => (Some(client), Ok(server)),
        Err(failure) => (None, Err(failure)),
    };
    let pod = endpoint.as_ref().map_or(host, ToString::to_string);
    let address = endpoint.map(|endpoint| endpoint.address().clone());
    Visit { facts: PodFacts { pod, address, visit, took: began.elapsed() }, client, pool }
}

async fn connect(pool: &Pool) -> Result<(Client, Server), Failure> {
    let client = check_out(pool).await.map_err(|error| failure(&error))?;
    let mut server = read(&client).await?;
    let status = pool.status();
    server.slots = status.endpoints.first().and_then(|pod| pod.server_connections);
    Ok((client, server))
}

/// Checks out a connection. Returns at the first failure, because a pool would try again until its deadline.
async fn check_out(pool: &Pool) -> Result<Client, Error> {
    let failed = async {
        while pool.status().endpoints.iter().all(|pod| pod.last_failure.is_none()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = pool.get_for(Target::Any) => result,
        () = failed => pool.get_within(Target::Any, Duration::from_millis(1)).await,
    }
}

async fn read(client: &Client) -> Result<Server, Failure> {
    let row = query(client, FACTS).await?;
    let announced = client.process_id();
    let process = row.try_get::<_, i32>(11).ok().and_then(|id| u32::try_from(id).ok());
    let mut server = facts(&row).map_err(|error| Failure {
        phase: Some(Phase::Query),
        text: chain(&error),
        ..Failure::default()
    })?;
    let began = Instant::now();
    let asked_at = now();
    let clock = query(client, CLOCK).await?;
    server.round_trip = began.elapsed();
    server.clock = clock.get::<_, f64>(0) - (asked_at + server.round_trip.as_secs_f64() / 2.0);
    server.position = position(client).await;
    if let Ok(row) = query(client, CONTROL).await {
        server.system = row.try_get(0).unwrap_or_default();
        server.timeline = row.try_get(1).unwrap_or_default();
    }
    server.role = client.role();
    server.pooled = announced.zip(process).is_some_and(|(announced, process)| announced != process);
    Ok(server)
}

/// Returns the position in the write-ahead log. `None` if the server does not report it.
pub(crate) async fn position(client: &Client) -> Option<i64> {
    query(client, POSITION).await.ok()?.try_get(0).ok()?
}

fn facts(row: &Row) -> Result<Server, podpool::tokio_postgres::Error> {
    let address = row.try_get::<_, Option<String>>(5)?.and_then(|ip| ip.parse::<IpAddr>().ok());
    let port = row.try_get::<_, Option<i32>>(6)?.and_then(|port| u16::try_from(port).ok());
    let seconds = row.try_get::<_, Option<f64>>(8)?.filter(|seconds| *seconds >= 0.0);
    Ok(Server {
        version: row.try_get(0)?,
        max_connections: row.try_get(1)?,
        reserved: row.try_get(2)?,
        sessions: row.try_get(3)?,
        read_only: row.try_get(4)?,
        own_address: address.zip(port).map(Into::into),
        tls: row.try_get(7)?,
        replayed_ago: seconds.map(Duration::from_secs_f64),
        receiving: row.try_get(9)?,
        paused: row.try_get(10)?,
        ..Server::default()
    })
}

/// Executes a query for one row without a named statement, which PgBouncer may not support.
async fn query(client: &Client, sql: &str) -> Result<Row, Failure> {
    let failed = |text: String| Failure { phase: Some(Phase::Query), text, ..Failure::default() };
    match timeout(QUERY, client.query_typed(sql, &[])).await {
        Ok(Ok(rows)) => rows.into_iter().next().ok_or_else(|| failed("the query returned no row".to_owned())),
        Ok(Err(error)) => Err(failed(chain(&error))),
        Err(_) => Err(failed(format!("no response to a query within {QUERY:?}"))),
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn failure(error: &Error) -> Failure {
    let attempts = error.attempts();
    let failed = attempts.iter().rev().find(|attempt| attempt.cause().is_some());
    // At the deadline, an attempt may be in progress without a cause of a failure.
    let phase = failed.or(attempts.last()).map_or(Phase::Wait, Attempt::phase);
    let cause = failed.and_then(Attempt::cause);
    let causes = || causes(cause.map(|cause| cause as _));
    Failure {
        phase: Some(phase),
        sqlstate: error.sqlstate().map(|state| state.code().to_owned()),
        tls: causes().find_map(|error| Some(error.downcast_ref::<TlsError>()?.reason())),
        io: causes().find_map(|error| Some(error.downcast_ref::<io::Error>()?.kind())),
        text: cause.map_or_else(|| error.to_string(), |cause| chain(cause)),
    }
}

/// Returns the text of an error and of its causes.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    // The driver's error only announces that of the server, which follows.
    for text in causes(Some(error)).map(ToString::to_string).filter(|text| text != "db error") {
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

fn causes<'a>(first: Option<&'a (dyn StdError + 'static)>) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(first, |&error| error.source())
}
