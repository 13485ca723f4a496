use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use podpool::{Applied, SharedResponse, Target, tokio_postgres};
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    failure::{Failure, ReadFailure},
};

/// Targets that a request can select: the roles of the Pods that may execute the statement.
const TARGETS: [Target; 4] = [Target::Any, Target::Primary, Target::Standby, Target::PreferStandby];

/// Maximum value of `sleep_ms`. Limits the time for which a request occupies a connection.
const SLEEP_MAX_MS: u32 = 60_000;

/// Sleeps, then reads the server's role: PostgreSQL evaluates the FROM clause, which sleeps, before the columns.
const STATEMENT: &str = "SELECT host(inet_server_addr()), current_setting('cluster_name'), pg_is_in_recovery() \
                         FROM pg_sleep($1::float8 / 1000)";

#[derive(Deserialize)]
pub(crate) struct Params {
    target: Option<String>,
    sleep_ms: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Row {
    server_addr: Option<String>,
    pod: String,
    in_recovery: bool,
    attempts: u32,
    us: u128,
}

/// Executes one statement on a Pod that the pool picks.
pub(crate) async fn query(
    State(app): State<App>,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Json<Row>, ReadFailure> {
    execute(&app, params).await.map(Json).map_err(Failure::into_read)
}

async fn execute(app: &App, params: Result<Query<Params>, QueryRejection>) -> Result<Row, Failure> {
    let Query(params) = params.map_err(|rejection| Failure::bad(rejection.body_text()))?;
    let target = target(params.target.as_deref())?;
    let sleep_ms = sleep_ms(params.sleep_ms.as_deref())?;
    let begun = Instant::now();
    if app.shared && sleep_ms == 0 {
        return execute_shared(app, target, begun).await;
    }
    let attempts = AtomicU32::new(0);
    let work = app.pool.retry(target, |client| {
        attempts.fetch_add(1, Ordering::Relaxed);
        async move {
            let statement = client.prepare_cached(STATEMENT).await?;
            let row = client.query_one(&statement, &[&f64::from(sleep_ms)]).await?;
            Ok::<_, tokio_postgres::Error>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        }
    });
    let sleep = Duration::from_millis(sleep_ms.into());
    let (server_addr, pod, in_recovery) = app.with_timeout(sleep, work, || Applied::No).await?;
    let attempts = attempts.into_inner();
    Ok(Row { server_addr, pod, in_recovery, attempts, us: begun.elapsed().as_micros() })
}

/// Executes the statement on a connection that several requests share.
async fn execute_shared(app: &App, target: Target, begun: Instant) -> Result<Row, Failure> {
    let work = async { app.pool.shared(target).repeatable().send(STATEMENT, &[&0f64]).await };
    let SharedResponse { rows, attempts, .. } = app.with_timeout(Duration::ZERO, work, || Applied::No).await?;
    let attempts = attempts.len() as u32 + 1;
    // `pg_sleep` returns one row.
    let row = &rows[0];
    Ok(Row {
        server_addr: row.get(0),
        pod: row.get(1),
        in_recovery: row.get(2),
        attempts,
        us: begun.elapsed().as_micros(),
    })
}

fn target(name: Option<&str>) -> Result<Target, Failure> {
    let name = name.unwrap_or(Target::Any.as_str());
    let found = TARGETS.into_iter().find(|target| target.as_str() == name);
    found.ok_or_else(|| {
        let known = TARGETS.map(Target::as_str).join(", ");
        Failure::bad(format!("target: expected one of {known}, got {name:?}"))
    })
}

fn sleep_ms(text: Option<&str>) -> Result<u32, Failure> {
    let Some(text) = text else { return Ok(0) };
    let found = text.parse().ok().filter(|millis| *millis <= SLEEP_MAX_MS);
    found.ok_or_else(|| Failure::bad(format!("sleep_ms: expected an integer from 0 to {SLEEP_MAX_MS}, got {text:?}")))
}
