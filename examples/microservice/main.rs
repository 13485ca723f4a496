//! A service on top of the pool: what one copies to start one's own.
//!
//! `DATABASE_URL=postgres://user:password@postgresql-svc.k8s-training.svc.cluster.local/database \
//!     cargo run --example microservice`, and open <http://127.0.0.1:8080/>.
//!
//! `LISTEN_ADDR` says where to serve HTTP, `RUST_LOG` what to log. It starts with the name servers and every Pod down.
//! SIGTERM and Ctrl-C end it in order: `/readyz` turns 503, running requests finish, the pool closes.

mod app;
mod drain;
mod endpoints;
mod events;
mod failure;
mod metrics;
mod query;
mod ready;
mod settings;
mod write;

use std::{error::Error, process::ExitCode, sync::Arc};

use app::App;
use drain::Drain;
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
            eprintln!("microservice: {}", failure::with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let settings = Settings::from_environment()?;
    settings.start_log();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);

    // Touches no network: with nothing up yet, the service runs and says so.
    let pool = Pool::builder(settings.database).build()?;
    let drain = Arc::new(Drain::new());
    let listener = TcpListener::bind(settings.listen).await.map_err(|error| format!("{}: {error}", settings.listen))?;
    tracing::info!("listening on http://{}", listener.local_addr()?);

    let asked_to_end = async move {
        select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let router = app::router(App { pool: pool.clone(), drain: drain.clone() });
    let serving = axum::serve(listener, router).with_graceful_shutdown(drain.clone().run(asked_to_end));
    select! {
        served = async { serving.await } => served?,
        () = drain.overdue() => tracing::warn!("requests did not finish in time, their connections are cut"),
    }
    match pool.close().await {
        0 => tracing::info!("every request has finished and the pool is closed"),
        cut => tracing::warn!("the pool is closed; {cut} connections were still in use"),
    }
    Ok(())
}
