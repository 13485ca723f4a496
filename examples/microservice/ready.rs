use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::app::App;

/// The process works, whatever the database does.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "ok": true }))
}

/// Requests are welcome: a Pod is usable, and the service is not ending.
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let usable = app.pool.status().endpoints.iter().filter(|pod| pod.is_usable()).count();
    let error = match usable {
        _ if app.drain.has_begun() => "the service is ending",
        0 => "no Pod is usable",
        _ => return Json(json!({ "ready": true, "usable": usable })).into_response(),
    };
    let body = json!({ "ready": false, "usable": usable, "error": error });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
