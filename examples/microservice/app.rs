use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use podpool::{Applied, Pool};

use crate::{
    drain::Drain,
    endpoints, events,
    failure::Failure,
    limit::{Limit, limit},
    metrics, query, ready, write,
};

/// The state that request handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) pool: Pool,
    /// True if `/query` without a sleep runs on connections that several requests share.
    pub(crate) shared: bool,
    pub(crate) drain: Arc<Drain>,
    pub(crate) limit: Arc<Limit>,
    pub(crate) metrics: PrometheusHandle,
}

/// Time limit for a statement, not counting the wait for a connection and the requested sleep.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

impl App {
    /// Runs work on the database with a time limit, so that a request does not hang if a server hangs. If the limit
    /// expires, the returned failure contains the result of `applied`: whether the work may have been applied.
    pub(crate) async fn with_timeout<T>(
        &self,
        sleep: Duration,
        work: impl Future<Output = Result<T, podpool::Error>>,
        applied: impl FnOnce() -> Applied,
    ) -> Result<T, Failure> {
        let limit = self.pool.config().limits().acquire_timeout + sleep + STATEMENT_TIMEOUT;
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map_err(Failure::Database),
            Err(_) => Err(Failure::Timeout { limit, applied: applied() }),
        }
    }
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/query", get(query::query))
        .route("/write", post(write::write))
        // The limit applies to the routes above. The other ones do not use the database, and monitoring needs them
        // during an overload.
        .route_layer(from_fn_with_state(app.clone(), limit))
        .route("/", get(page))
        .route("/endpoints", get(endpoints::endpoints))
        .route("/events", get(events::events))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(ready::healthz))
        .route("/readyz", get(ready::readyz))
        .fallback(|| async { Failure::request(StatusCode::NOT_FOUND, "unknown path") })
        .method_not_allowed_fallback(|| async {
            Failure::request(StatusCode::METHOD_NOT_ALLOWED, "this path does not support this method")
        })
        .layer(from_fn_with_state(app.clone(), track))
        .with_state(app)
}

/// Holds a token during each request, so that the shutdown waits for running requests. During the shutdown, adds
/// `Connection: close` to responses, so that clients reconnect to another instance.
async fn track(State(app): State<App>, request: Request, next: Next) -> Response {
    let token = app.drain.enter();
    let mut response = next.run(request).await;
    drop(token);
    if app.drain.has_started() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns the live page with its styles and scripts. The page sends requests only to this service.
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
