//! The names, labels and descriptions of the metrics. With the crate feature `metrics`, the pool records them through
//! the [`metrics`] facade.
//!
//! Connection metrics follow OpenTelemetry's semantic conventions for database clients, version [`SEMCONV_VERSION`], in
//! which connection pool metrics have the status Development. Exporters for the facade do not append the unit to a
//! metric's name by default. Therefore the names here already contain it, in the form that OpenTelemetry's Prometheus
//! exporter generates: `db.client.connection.create_time` in seconds becomes
//! `db_client_connection_create_time_seconds`. Metrics without a convention have the prefix `podpool_`.
//!
//! A background task reads the pool's own counters once a second and passes their values to the recorder. A checkout
//! that finds an idle connection touches no metric, so it costs the same with and without a recorder. The values are
//! exported again when the pool begins to close, and a last time before [`Pool::close`](crate::Pool::close) returns. At
//! that point the gauges of every Pod are zero. The counters are then final unless callers still hold connections.
//! Those connections are counted when the last of them is closed. Install the recorder before the pool is built,
//! because increments that are exported without a recorder are lost.
//!
//! Every metric has the labels [`POOL_LABELS`]. Their values are the pool as `host:port/database`, and `postgresql`. A
//! per-Pod metric also has the labels [`POD_LABELS`]. The value of `podpool_pod` is the Pod's name if discovery
//! provides one (SRV records), and the Pod's address if not. Names and labels are stable, but a new version may add
//! label values.
//!
//! [`metrics`]: https://docs.rs/metrics

/// Version of OpenTelemetry's semantic conventions that the `db_client_connection_` metrics follow.
pub const SEMCONV_VERSION: &str = "1.43.0";

/// The labels of every metric.
pub const POOL_LABELS: &[&str] = &["db_client_connection_pool_name", "db_system_name"];

/// The labels of every per-Pod metric, in addition to [`POOL_LABELS`].
pub const POD_LABELS: &[&str] = &["podpool_pod", "server_address", "server_port"];

/// The type of a metric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the facade has exactly these types")]
pub enum MetricKind {
    /// A sum that only increases.
    Counter,
    /// A value that can increase and decrease.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// The description of one metric.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// The metric's name.
    pub name: &'static str,
    /// The metric's type.
    pub kind: MetricKind,
    /// The metric's labels in addition to [`POOL_LABELS`].
    pub labels: &'static [&'static str],
    /// The metric's description, which Prometheus exporters write as the `HELP` line.
    pub help: &'static str,
}

// Expands to the labels of one metric in addition to `POOL_LABELS`.
macro_rules! labels {
    ($($label:literal),* of_pod) => { &["podpool_pod", "server_address", "server_port" $(, $label)*] };
    ($($label:literal),*) => { &[$($label),*] };
}

// Declares the metrics: a constant with the name of each one, and the list `ALL`. An entry has this form:
//
//     Type CONSTANT = "name" ["label", "label"] of_pod, "help";
//
// `of_pod` marks a per-Pod metric and adds `POD_LABELS` to its labels.
macro_rules! metrics {
    ($($kind:ident $name:ident = $text:literal [$($label:literal),*] $($pod:ident)?, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: &str = $text;
        )*

        /// Every metric.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: MetricKind::$kind, labels: labels!($($label),* $($pod)?), help: $help },)*
        ];
    };
}

metrics! {
    Gauge CONNECTION_COUNT = "db_client_connection_count" ["db_client_connection_state"] of_pod,
        "Open connections to the Pod by state: `idle`, or `used` (checked out, or being recycled after use). Probe \
         connections are not included.";
    Gauge CONNECTION_MAX = "db_client_connection_max" [] of_pod,
        "Maximum number of open connections to the Pod, not counting the probe connection.";
    Gauge CONNECTION_PENDING_REQUESTS = "db_client_connection_pending_requests" [],
        "Callers that are waiting for a connection to any Pod.";
    Counter CONNECTION_TIMEOUTS = "db_client_connection_timeouts_total" [],
        "Checkouts that failed because no connection became available before the deadline.";
    Histogram CONNECTION_CREATE_TIME = "db_client_connection_create_time_seconds" [],
        "Time to open a connection, from dialing to the end of authentication, in seconds. Failed dials are not \
         included.";
    Histogram CONNECTION_WAIT_TIME = "db_client_connection_wait_time_seconds" ["outcome"],
        "Time that checkouts waited for a connection, in seconds. Checkouts that took an idle connection immediately \
         are not included. `outcome` is `ok` or the kind of the error.";
    Histogram CONNECTION_USE_TIME = "db_client_connection_use_time_seconds" [] of_pod,
        "Time between the checkout of a connection and its return, in seconds. Each connection is measured at most \
         once per 100 ms.";
    Gauge ENDPOINT_UP = "podpool_endpoint_up" [] of_pod,
        "1 if the Pod is healthy, not fenced and not detached, so that callers get connections to it; otherwise 0.";
    Gauge ENDPOINT_STATE = "podpool_endpoint_state" ["state"] of_pod,
        "1 for the current health state of the Pod, 0 for the other states. A healthy Pod that is absent from DNS has \
         the state `retained` or `detached` instead of `healthy`.";
    Gauge ENDPOINT_ROLE = "podpool_endpoint_role" ["role"] of_pod,
        "1 for the current role of the Pod's server, 0 for the other roles.";
    Gauge ENDPOINT_TIMELINE = "podpool_endpoint_timeline" [] of_pod,
        "Timeline of the Pod's write-ahead log, which increases with each promotion.";
    Gauge ENDPOINT_FENCED = "podpool_endpoint_fenced" [] of_pod,
        "1 if the Pod passes its probes but is fenced: a former primary, a second primary, or a server of another \
         cluster; otherwise 0.";
    Gauge ENDPOINT_LATE = "podpool_endpoint_late" [] of_pod,
        "1 if the Pod is a standby that exceeds `max_lag` or `max_lag_bytes`, or follows a former primary; otherwise \
         0.";
    Gauge ENDPOINT_WAITING = "podpool_endpoint_waiting" [] of_pod,
        "Waiting callers that this Pod could serve. A caller is counted once for every Pod that fits its target.";
    Gauge ENDPOINT_LAG_BYTES = "podpool_endpoint_lag_bytes" [] of_pod,
        "Write-ahead log that the standby has not replayed yet, in bytes.";
    Gauge ENDPOINT_LAG_SECONDS = "podpool_endpoint_lag_seconds" [] of_pod,
        "Estimated age of the standby's data at its last probe, in seconds; 0 if it had caught up.";
    Gauge ENDPOINT_LATENCY_SECONDS = "podpool_endpoint_latency_seconds" [] of_pod,
        "Moving average of the Pod's response time per request, in seconds.";
    Counter ENDPOINT_CHECKOUTS = "podpool_endpoint_checkouts_total" [] of_pod,
        "Checkouts of connections to the Pod.";
    Counter CHECKOUTS = "podpool_checkouts_total" [], "Checkouts of connections, over all Pods.";
    Counter WAITS = "podpool_waits_total" [],
        "Checkouts that could not take an idle connection immediately: none was idle, or the connection needed a ping \
         first.";
    Counter TIMEOUTS = "podpool_timeouts_total" ["phase"],
        "Operations that timed out. `phase` is `wait` for a checkout, otherwise the phase of opening or checking a \
         connection.";
    Counter RETRIES = "podpool_retries_total" [], "Retries of failed work on another connection.";
    Counter CONNECTIONS_OPENED = "podpool_connections_opened_total" [],
        "Connections opened, not counting probe connections.";
    Counter CONNECTIONS_FAILED = "podpool_connections_failed_total" ["phase"],
        "Failed attempts to open a connection. `phase` is the phase that failed.";
    Counter CONNECTIONS_CLOSED = "podpool_connections_closed_total" ["reason"],
        "Connections closed. `reason` is `ended` (by the server or the network), `drained` (the Pod left, or the pool \
         closed), `ejected` (the Pod was ejected or fenced), `lifetime`, `idle`, or `discarded` (a ping failed, the \
         server's role did not fit, recycling failed, or the Pod had more connections than its limit).";
    Counter CONNECTIONS_RECYCLED = "podpool_connections_recycled_total" [],
        "Connections that had to be recycled, because they were returned with an open transaction or an unfinished \
         statement.";
    Counter CONNECTIONS_RESET = "podpool_connections_reset_total" [],
        "Connections whose session was reset after use (`reset=auto` or `reset=discard`).";
    Counter STATEMENT_CACHES_CLEARED = "podpool_statement_caches_cleared_total" [],
        "Connections whose prepared statement cache was cleared, because it was too large or a statement was outdated.";
    Counter EJECTIONS = "podpool_ejections_total" ["cause"],
        "Pods that were ejected from load balancing. `cause` is the phase that failed: `query` if traffic showed the \
         failure.";
    Counter PANICS = "podpool_panics_total" ["source"],
        "Panics in code that the application supplies or in a task of the pool. The pool has survived each of them. \
         `source` is the code that panicked.";
    Counter EVENTS = "podpool_events_total" ["event"],
        "Events of the pool by name, such as `endpoint_added` or `role_changed`.";
    Counter RESOLVE_ANSWERS = "podpool_resolve_answers_total" [], "Successful lookups of the Service name.";
    Counter RESOLVE_FAILURES = "podpool_resolve_failures_total" [], "Failed lookups of the Service name.";
    Gauge RESOLVE_AGE_SECONDS = "podpool_resolve_age_seconds" [],
        "Time since the last successful lookup of the Service name, in seconds.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_follow_prometheus_conventions() {
        for metric in ALL {
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            let prefixed = ["podpool_", "db_client_connection_"].iter().any(|prefix| metric.name.starts_with(prefix));
            assert!(prefixed && metric.name.chars().all(plain), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
            assert!(metric.kind != MetricKind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
        }
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn per_pod_metrics_have_all_pod_labels() {
        for metric in ALL.iter().filter(|metric| metric.labels.contains(&POD_LABELS[0])) {
            assert_eq!(&metric.labels[..POD_LABELS.len()], POD_LABELS, "{}", metric.name);
        }
    }
}
