use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use podpool::{Applied, Pool};

use crate::{drain::Drain, endpoints, events, failure::Failure, metrics, query, ready, write};

/// What every request can reach.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) pool: Pool,
    pub(crate) drain: Arc<Drain>,
}

/// How long a statement may take, beyond the wait for a connection and what it was asked to sleep.
const PATIENCE: Duration = Duration::from_secs(5);

impl App {
    /// Work on the database, with an end: a server that hangs does not hang this service. `applied` is asked when the
    /// time is up.
    pub(crate) async fn in_time<T>(
        &self,
        sleep: Duration,
        work: impl Future<Output = Result<T, podpool::Error>>,
        applied: impl FnOnce() -> Applied,
    ) -> Result<T, Failure> {
        let limit = self.pool.config().limits().acquire_timeout + sleep + PATIENCE;
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done.map_err(Failure::Database),
            Err(_) => Err(Failure::Timeout { limit, applied: applied() }),
        }
    }
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/query", get(query::query))
        .route("/write", post(write::write))
        .route("/endpoints", get(endpoints::endpoints))
        .route("/events", get(events::events))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(ready::healthz))
        .route("/readyz", get(ready::readyz))
        .fallback(|| async { Failure::request(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Failure::request(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .layer(from_fn_with_state(app.clone(), counted))
        .with_state(app)
}

/// Lets the end wait for every request that runs, and asks clients to go elsewhere once it has begun.
async fn counted(State(app): State<App>, request: Request, next: Next) -> Response {
    let token = app.drain.enter();
    let mut response = next.run(request).await;
    drop(token);
    if app.drain.has_begun() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The live page: one answer with everything in it, which asks nobody but this service.
async fn page() -> impl IntoResponse {
    const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; \
                          script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    let page = concat!(
        include_str!("page/head.html"),
        include_str!("page/style.css"),
        include_str!("page/body.html"),
        include_str!("page/plot.js"),
        include_str!("page/page.js"),
        include_str!("page/tail.html"),
    );
    (headers, page)
}
