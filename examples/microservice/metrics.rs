//! Exports the library's metrics in the Prometheus text format.

use std::time::Duration;

use axum::{extract::State, http::header, response::IntoResponse};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use podpool::metrics::BUCKETS;

use crate::app::App;

/// Interval between calls to `run_upkeep`, which compacts the recorded histogram values.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the Prometheus metrics recorder. Must be called before the pool is built.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().set_buckets(BUCKETS)?.install_recorder()?;
    let recorder = handle.clone();
    // Compact the histograms regularly. Otherwise, the recorder keeps every single value in memory until the next
    // scrape.
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(UPKEEP);
        loop {
            interval.tick().await;
            recorder.run_upkeep();
        }
    });
    Ok(handle)
}

/// Returns the current metrics. The pool exports its metrics once a second. This handler exports them too, so that
/// every scrape is up to date.
pub(crate) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    app.pool.export_metrics();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}
