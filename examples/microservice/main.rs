//! An HTTP service that uses the pool, as a template for new services.
//!
//! Run it with `DATABASE_URL="postgres://user@postgresql-svc.k8s-training.svc.cluster.local/database\
//!     ?password_file=/run/secrets/password&sslmode=verify-full&sslrootcert=ca.crt" \
//!     cargo run --features metrics --example microservice` and open <http://127.0.0.1:8080/>.
//!
//! `LISTEN_ADDR` sets the address of the HTTP server, and `RUST_LOG` the log filter. `MAX_REQUESTS` (1,000 by default)
//! limits the number of requests to `/query` and `/write` that run at the same time: further ones get the status 503
//! with a `Retry-After` header. Responses contain no text from a server, only its SQLSTATE: the log contains the rest.
//!
//! With `shared=on` in `DATABASE_URL`, requests to `/query` without a sleep use connections that several requests
//! share.
//!
//! The service starts even if the name servers and all Pods are down. After SIGTERM or Ctrl-C it shuts down gracefully:
//! `/readyz` returns 503, running requests finish, and the pool closes.

mod app;
mod drain;
mod endpoints;
mod events;
mod failure;
mod limit;
mod metrics;
mod query;
mod ready;
mod settings;
mod text;
mod write;

use std::{error::Error, process::ExitCode, sync::Arc};

use app::App;
use drain::Drain;
use limit::Limit;
use podpool::Pool;
use settings::Settings;
use tokio::{
    net::TcpListener,
    select,
    signal::unix::{SignalKind, signal},
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("microservice: {}", text::with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let settings = Settings::from_environment()?;
    settings.start_log();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);

    let listener = TcpListener::bind(settings.listen).await.map_err(|error| format!("{}: {error}", settings.listen))?;

    // The recorder must be installed first, because the pool describes its metrics to the recorder when it is built.
    let metrics = metrics::install()?;
    // Building a pool does not use the network, so the service starts even while the database is down. While no Pod is
    // usable, `/readyz` returns 503.
    let pool = Pool::builder(settings.database).build()?;
    let drain = Arc::new(Drain::new());
    let limit = Arc::new(Limit::new(settings.max_requests));
    tracing::info!("listening on http://{}", listener.local_addr()?);

    let shutdown = async move {
        select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let router = app::router(App { pool: pool.clone(), shared: settings.shared, drain: drain.clone(), limit, metrics });
    let serving = axum::serve(listener, router).with_graceful_shutdown(drain.clone().run(shutdown));
    select! {
        served = async { serving.await } => served?,
        () = drain.overdue() => tracing::warn!("some requests did not finish in time; closing their connections"),
    }
    match pool.close().await {
        0 => tracing::info!("every request has finished and the pool is closed"),
        closed => tracing::warn!("the pool is closed; {closed} connections in use were forcibly closed"),
    }
    Ok(())
}
