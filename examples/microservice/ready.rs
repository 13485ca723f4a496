use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::app::App;

/// Returns 200 while the process is running, regardless of the database.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "ok": true }))
}

/// Returns 200 if a Pod is usable and the service is not shutting down, otherwise 503.
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let usable = app.pool.status().endpoints.iter().filter(|pod| pod.is_usable()).count();
    let error = match usable {
        _ if app.drain.has_started() => "the service is shutting down",
        0 => "no Pod is usable",
        _ => return Json(json!({ "ready": true, "usable": usable })).into_response(),
    };
    let body = json!({ "ready": false, "usable": usable, "error": error });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
