//! An HTTP service with axum: the pool is the state, each request has a deadline, Kubernetes' readiness probe queries
//! `/ready`, and the shutdown finishes the requests in flight.

use std::{future::Future, io, time::Duration};

use axum::{
    BoxError, Router,
    error_handling::HandleErrorLayer,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use podpool::{Error, Pool, Target};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, timeout::TimeoutLayer};

/// Serves requests until `shutdown` completes. Then finishes the requests in flight and closes the pool. Returns the
/// number of connections that were still in use, and were closed.
pub async fn serve(
    listener: TcpListener,
    pool: Pool,
    deadline: Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<usize> {
    axum::serve(listener, router(pool.clone(), deadline)).with_graceful_shutdown(shutdown).await?;
    Ok(pool.close().await)
}

/// Returns the routes. At the deadline, a request is dropped together with its statement, which podpool cancels on the
/// server, so the connection can be reused.
pub fn router(pool: Pool, deadline: Duration) -> Router {
    let with_deadline = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_: BoxError| async { StatusCode::GATEWAY_TIMEOUT }))
        .layer(TimeoutLayer::new(deadline));
    Router::new()
        .route("/orders/{item}", get(count).post(create))
        .layer(with_deadline)
        .route("/ready", get(ready))
        .with_state(pool)
}

/// Returns 200 while a Pod is usable. Asks no server, so the probes cost nothing.
async fn ready(State(pool): State<Pool>) -> StatusCode {
    match pool.status().endpoints.iter().any(|pod| pod.is_usable()) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn count(State(pool): State<Pool>, Path(item): Path<String>) -> Result<String, StatusCode> {
    let sql = "SELECT count(*) FROM orders WHERE item = $1";
    let item = &item;
    let work = |client: podpool::Client| async move {
        let statement = client.prepare_cached(sql).await?;
        client.query_one(&statement, &[item]).await.map(|row| row.get::<_, i64>(0))
    };
    // A read can be repeated on another Pod.
    pool.retry(Target::PreferStandby, work).await.map(|count| count.to_string()).map_err(|error| status(&error))
}

async fn create(State(pool): State<Pool>, Path(item): Path<String>) -> Result<StatusCode, StatusCode> {
    let item = &item;
    let work = |client: podpool::Client| async move {
        let statement = client.prepare_cached("INSERT INTO orders (item) VALUES ($1)").await?;
        client.execute(&statement, &[item]).await
    };
    // A write is repeated only if it was certainly not applied.
    pool.retry_unapplied(Target::Primary, work).await.map(|_| StatusCode::CREATED).map_err(|error| status(&error))
}

fn status(error: &Error) -> StatusCode {
    eprintln!("{error}");
    StatusCode::SERVICE_UNAVAILABLE
}
