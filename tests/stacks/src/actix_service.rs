//! An HTTP service with actix-web: the pool is shared application data, each request has a deadline, Kubernetes'
//! readiness probe queries `/ready`, and the shutdown finishes the requests in flight.

use std::{future::Future, io, net::TcpListener, time::Duration};

use actix_web::{
    App, HttpResponse, HttpServer, Responder, get, post,
    web::{Data, Path},
};
use podpool::{Checkout, Error, Kind, Pool, Target};

/// The state of the service.
struct Service {
    pool: Pool,
    deadline: Duration,
}

/// Serves requests until `shutdown` completes. Then finishes the requests in flight and closes the pool. Returns the
/// number of connections that were still in use, and were closed.
pub async fn serve(
    listener: TcpListener,
    pool: Pool,
    deadline: Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<usize> {
    let service = Data::new(Service { pool: pool.clone(), deadline });
    // The workers' threads have runtimes of their own. All of them use the same pool.
    let app = move || App::new().app_data(service.clone()).service(ready).service(count).service(create);
    let server = HttpServer::new(app).workers(2).disable_signals().listen(listener)?.run();
    let handle = server.handle();
    tokio::spawn(async move {
        shutdown.await;
        handle.stop(true).await;
    });
    server.await?;
    Ok(pool.close().await)
}

/// Returns 200 while a Pod is usable. Asks no server, so the probes cost nothing.
#[get("/ready")]
async fn ready(service: Data<Service>) -> impl Responder {
    match service.pool.status().endpoints.iter().any(|pod| pod.is_usable()) {
        true => HttpResponse::Ok(),
        false => HttpResponse::ServiceUnavailable(),
    }
}

#[get("/orders/{item}")]
async fn count(service: Data<Service>, item: Path<String>) -> HttpResponse {
    let item = &*item;
    let work = |client: podpool::Client| async move {
        let statement = client.prepare_cached("SELECT count(*) FROM orders WHERE item = $1").await?;
        client.query_one(&statement, &[item]).await.map(|row| row.get::<_, i64>(0))
    };
    // At the deadline, the statement is cancelled on the server.
    let read = Checkout::new(Target::PreferStandby).deadline(service.deadline);
    match service.pool.retry(read, work).await {
        Ok(count) => HttpResponse::Ok().body(count.to_string()),
        Err(error) => failure(&error),
    }
}

#[post("/orders/{item}")]
async fn create(service: Data<Service>, item: Path<String>) -> HttpResponse {
    let item = &*item;
    let work = |client: podpool::Client| async move {
        let statement = client.prepare_cached("INSERT INTO orders (item) VALUES ($1)").await?;
        client.execute(&statement, &[item]).await
    };
    let write = Checkout::new(Target::Primary).deadline(service.deadline);
    match service.pool.retry_unapplied(write, work).await {
        Ok(_) => HttpResponse::Created().finish(),
        Err(error) => failure(&error),
    }
}

fn failure(error: &Error) -> HttpResponse {
    eprintln!("{error}");
    match error.kind() {
        Kind::Timeout => HttpResponse::GatewayTimeout().finish(),
        _ => HttpResponse::ServiceUnavailable().finish(),
    }
}
