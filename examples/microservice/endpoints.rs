use axum::{Json, extract::State};
use podpool::{Endpoint, EndpointStatus, Pool};
use serde_json::{Value, json};

use crate::app::App;

/// Returns the status of every Pod and of the name resolution.
pub(crate) async fn endpoints(State(app): State<App>) -> Json<Value> {
    let status = app.pool.status();
    let endpoints: Vec<_> = status.endpoints.iter().map(|pod| endpoint(&app.pool, pod)).collect();
    let resolve = json!({
        "age_ms": status.resolve.age.map(|age| age.as_millis()),
        "ok": status.resolve.ok,
        "source": status.resolve.source,
        "errors": status.counters.resolve_failed,
    });
    Json(json!({ "endpoints": endpoints, "resolve": resolve }))
}

fn endpoint(pool: &Pool, pod: &EndpointStatus) -> Value {
    json!({
        "addr": address(pool, &pod.endpoint),
        "pod": pod.endpoint.name(),
        // A fenced Pod gets no traffic, even if it is healthy.
        "state": if pod.fenced.is_some() { "fenced" } else { pod.state.as_str() },
        "role": pod.role.as_str(),
        "lag_bytes": pod.lag_bytes,
        "open": pod.open,
        "idle": pod.idle,
        "in_use": pod.in_use,
        "waiting": pod.waiting,
        "latency_us": pod.latency.map(|latency| latency.as_micros()),
    })
}

/// Returns the IP address of a Pod in the format of PostgreSQL's `inet_server_addr()`, or the path of its Unix socket.
/// If the Pod's port differs from the port in the pool's configuration, the port is appended to the IP address.
pub(crate) fn address(pool: &Pool, endpoint: &Endpoint) -> String {
    let address = endpoint.address();
    match address.ip() {
        Some(ip) if address.port() == Some(pool.config().port()) => ip.to_string(),
        _ => address.to_string(),
    }
}
