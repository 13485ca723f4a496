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
//! Every metric has the labels [`POOL_LABELS`]. Their values are the pool's [name](crate::Pool::name), which is
//! `user@service:port/database` unless the application sets another, and `postgresql`. A per-Pod metric also has the
//! label `podpool_pod` ([`POD_LABELS`]). Its value is the Pod's name if discovery provides one (SRV records), and the
//! Pod's address if not. Names and labels are stable, but a new version may add label values.
//!
//! The gauges of the pool exist from its construction on, and so does each counter, for all known values of its label.
//! The series of a Pod exist from its first export on, and cannot be removed. `podpool_pod_info` is 1 while the Pod is
//! known, and then 0, and it has the Pod's address.
//!
//! # OpenTelemetry
//!
//! With the crate feature `otel`, the pool also has these metrics as instruments of OpenTelemetry's API
//! ([`Metric::otel_name`], [`Metric::unit`]), and the histogram [`OPERATION_DURATION`]. Counters and gauges are
//! observable instruments that read the same counts. OpenTelemetry's exporters to Prometheus derive the names and
//! labels of this module from the names and attributes of the instruments ([`ATTRIBUTES`]).
//!
//! [`metrics`]: https://docs.rs/metrics

/// Version of OpenTelemetry's semantic conventions that the `db_client_connection_` metrics follow.
pub const SEMCONV_VERSION: &str = "1.43.0";

/// The labels of every metric.
pub const POOL_LABELS: &[&str] = &["db_client_connection_pool_name", "db_system_name"];

/// The label of every per-Pod metric, in addition to [`POOL_LABELS`].
pub const POD_LABELS: &[&str] = &["podpool_pod"];

/// The labels of [`POD_INFO`] with the Pod's address, in addition to [`POOL_LABELS`] and [`POD_LABELS`].
pub const ADDRESS_LABELS: &[&str] = &["server_address", "server_port"];

/// The labels whose OpenTelemetry attribute has another name, with that name. All other names are equal.
pub const ATTRIBUTES: &[(&str, &str)] = &[
    ("db_client_connection_pool_name", "db.client.connection.pool.name"),
    ("db_client_connection_state", "db.client.connection.state"),
    ("db_system_name", "db.system.name"),
    ("podpool_pod", "podpool.pod"),
    ("server_address", "server.address"),
    ("server_port", "server.port"),
];

/// The OpenTelemetry histogram of the durations of callers' requests, in seconds. Only the feature `otel` has it.
pub const OPERATION_DURATION: &str = "db.client.operation.duration";

/// Upper bounds that OpenTelemetry's conventions advise for the buckets of [`OPERATION_DURATION`], in seconds.
pub const OPERATION_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Upper bounds that are advised for the buckets of the other histograms, in seconds.
pub const BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

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
    /// The name of the OpenTelemetry instrument, from which a Prometheus exporter derives [`name`](Self::name).
    pub otel_name: &'static str,
    /// The unit of the OpenTelemetry instrument, in UCUM. Empty if the values have none.
    pub unit: &'static str,
    /// The metric's description, which Prometheus exporters write as the `HELP` line.
    pub help: &'static str,
}

// Expands to the labels of one metric in addition to `POOL_LABELS`.
macro_rules! labels {
    ($($label:literal),* of_pod) => { &["podpool_pod" $(, $label)*] };
    ($($label:literal),*) => { &[$($label),*] };
}

// Declares the metrics: a constant with the name of each one, and the list `ALL`. An entry has this form:
//
//     Type CONSTANT = "name" ["label", "label"] of_pod, "OpenTelemetry name" "unit", "help";
//
// `of_pod` marks a per-Pod metric and adds `POD_LABELS` to its labels. Exporters append the unit to the OpenTelemetry
// name, except for a unit in braces.
macro_rules! metrics {
    ($(
        $kind:ident $name:ident = $text:literal [$($label:literal),*] $($pod:ident)?, $otel:literal $unit:literal,
        $help:literal;
    )*) => {
        $(
            #[doc = $help]
            pub const $name: &str = $text;
        )*

        /// Every metric.
        pub const ALL: &[Metric] = &[
            $(Metric {
                name: $name,
                kind: MetricKind::$kind,
                labels: labels!($($label),* $($pod)?),
                otel_name: $otel,
                unit: $unit,
                help: $help,
            },)*
        ];
    };
}

metrics! {
    Gauge CONNECTION_COUNT = "db_client_connection_count" ["db_client_connection_state"] of_pod,
        "db.client.connection.count" "{connection}",
        "Open connections to the Pod by state: `idle`, or `used` (checked out, pinged for a caller, or being \
         recycled after use). Probe connections are not included.";
    Gauge CONNECTION_IDLE_MAX = "db_client_connection_idle_max" [] of_pod,
        "db.client.connection.idle.max" "{connection}",
        "Maximum number of idle connections to the Pod: all open ones may be idle.";
    Gauge CONNECTION_IDLE_MIN = "db_client_connection_idle_min" [] of_pod,
        "db.client.connection.idle.min" "{connection}",
        "Number of connections to the Pod that are kept open even if they are idle. 0 for a Pod that is not used for \
         callers.";
    Gauge CONNECTION_MAX = "db_client_connection_max" [] of_pod,
        "db.client.connection.max" "{connection}",
        "Maximum number of open connections to the Pod, not counting the probe connection.";
    Gauge CONNECTION_PENDING_REQUESTS = "db_client_connection_pending_requests" [],
        "db.client.connection.pending_requests" "{request}",
        "Callers that are waiting for a connection to any Pod.";
    Counter CONNECTION_TIMEOUTS = "db_client_connection_timeouts_total" [],
        "db.client.connection.timeouts" "{timeout}",
        "Checkouts that failed because no connection became available before the deadline.";
    Histogram CONNECTION_CREATE_TIME = "db_client_connection_create_time_seconds" [],
        "db.client.connection.create_time" "s",
        "Time to open a connection, from dialing to the end of authentication, in seconds. Failed dials are not \
         included.";
    Histogram CONNECTION_WAIT_TIME = "db_client_connection_wait_time_seconds" ["outcome"],
        "db.client.connection.wait_time" "s",
        "Time that checkouts waited for a connection, in seconds. Checkouts that took an idle connection immediately \
         are not included. `outcome` is `ok` or the kind of the error.";
    Histogram CONNECTION_USE_TIME = "db_client_connection_use_time_seconds" [] of_pod,
        "db.client.connection.use_time" "s",
        "Time between the checkout of a connection and its return, in seconds. Each connection is measured at most \
         once per 100 ms.";
    Gauge ENDPOINT_UP = "podpool_endpoint_up" [] of_pod,
        "podpool.endpoint.up" "",
        "1 if the Pod is healthy, not fenced and not detached, so that callers get connections to it; otherwise 0.";
    Gauge ENDPOINT_STATE = "podpool_endpoint_state" ["state"] of_pod,
        "podpool.endpoint.state" "",
        "1 for the current health state of the Pod, 0 for the other states. A healthy Pod that is absent from DNS has \
         the state `retained` or `detached` instead of `healthy`.";
    Gauge ENDPOINT_ROLE = "podpool_endpoint_role" ["role"] of_pod,
        "podpool.endpoint.role" "",
        "1 for the current role of the Pod's server, 0 for the other roles.";
    Gauge ENDPOINT_TIMELINE = "podpool_endpoint_timeline" [] of_pod,
        "podpool.endpoint.timeline" "",
        "Timeline of the Pod's write-ahead log, which increases with each promotion.";
    Gauge ENDPOINT_FENCED = "podpool_endpoint_fenced" [] of_pod,
        "podpool.endpoint.fenced" "",
        "1 if the Pod passes its probes but is fenced: a former primary, a second primary, or a server of another \
         cluster; otherwise 0.";
    Gauge ENDPOINT_LATE = "podpool_endpoint_late" [] of_pod,
        "podpool.endpoint.late" "",
        "1 if the Pod is a standby that exceeds `max_lag` or `max_lag_bytes`, or follows a former primary; otherwise \
         0.";
    Gauge ENDPOINT_WAITING = "podpool_endpoint_waiting" [] of_pod,
        "podpool.endpoint.waiting" "{request}",
        "Waiting callers that this Pod could serve. A caller is counted once for every Pod that fits its target.";
    Gauge SHARED_CONNECTIONS = "podpool_shared_connections" [] of_pod,
        "podpool.shared.connections" "{connection}",
        "Open connections to the Pod that several callers share.";
    Gauge SHARED_IN_FLIGHT = "podpool_shared_in_flight" [] of_pod,
        "podpool.shared.in_flight" "{statement}",
        "Statements on the shared connections to the Pod that were sent and have not ended, or will be sent now.";
    Gauge ENDPOINT_LAG_BYTES = "podpool_endpoint_lag_bytes" [] of_pod,
        "podpool.endpoint.lag_bytes" "{byte}",
        "Write-ahead log that the standby has not replayed yet, in bytes.";
    Gauge ENDPOINT_LAG_SECONDS = "podpool_endpoint_lag_seconds" [] of_pod,
        "podpool.endpoint.lag" "s",
        "Estimated age of the standby's data at its last probe, in seconds; 0 if it had caught up.";
    Gauge ENDPOINT_LATENCY_SECONDS = "podpool_endpoint_latency_seconds" [] of_pod,
        "podpool.endpoint.latency" "s",
        "Moving average of the Pod's response time per request, in seconds.";
    Counter ENDPOINT_CHECKOUTS = "podpool_endpoint_checkouts_total" [] of_pod,
        "podpool.endpoint.checkouts" "{checkout}",
        "Checkouts of connections to the Pod.";
    Counter CHECKOUTS = "podpool_checkouts_total" [],
        "podpool.checkouts" "{checkout}",
        "Checkouts of connections, over all Pods.";
    Counter WAITS = "podpool_waits_total" [],
        "podpool.waits" "{checkout}",
        "Checkouts that could not take an idle connection immediately: none was idle, or the connection needed a ping \
         first.";
    Counter TIMEOUTS = "podpool_timeouts_total" ["phase"],
        "podpool.timeouts" "{timeout}",
        "Operations that timed out. `phase` is `wait` for a checkout, otherwise the phase of opening or checking a \
         connection.";
    Counter RETRIES = "podpool_retries_total" [],
        "podpool.retries" "{retry}",
        "Retries of failed work on another connection.";
    Counter CONNECTIONS_OPENED = "podpool_connections_opened_total" [],
        "podpool.connections.opened" "{connection}",
        "Connections opened, not counting probe connections.";
    Counter CONNECTIONS_FAILED = "podpool_connections_failed_total" ["phase"],
        "podpool.connections.failed" "{attempt}",
        "Failed attempts to open a connection. `phase` is the phase that failed.";
    Counter CONNECTIONS_CLOSED = "podpool_connections_closed_total" ["reason"],
        "podpool.connections.closed" "{connection}",
        "Connections closed. `reason` is `ended` (by the server or the network), `drained` (the Pod left, or the pool \
         closed), `ejected` (the Pod was ejected or fenced), `lifetime`, `idle`, or `discarded` (a ping failed, the \
         server's role did not fit, recycling failed, or the Pod had more connections than its limit).";
    Counter CONNECTIONS_RECYCLED = "podpool_connections_recycled_total" [],
        "podpool.connections.recycled" "{connection}",
        "Connections that had to be recycled, because they were returned with an open transaction or an unfinished \
         statement.";
    Counter CONNECTIONS_RESET = "podpool_connections_reset_total" [],
        "podpool.connections.reset" "{connection}",
        "Connections whose session was reset after use (`reset=auto` or `reset=discard`).";
    Counter STATEMENT_CACHES_CLEARED = "podpool_statement_caches_cleared_total" [],
        "podpool.statement_caches.cleared" "{connection}",
        "Connections whose prepared statement cache was cleared, because it was too large or a statement was outdated.";
    Counter EJECTIONS = "podpool_ejections_total" ["cause"] of_pod,
        "podpool.ejections" "{ejection}",
        "Ejections of the Pod from load balancing. `cause` is `sessions_ended` (the server ended sessions, or \
         connections broke), `outlier` (too many statements failed with errors of the server), or the phase of a \
         failed probe: `tcp`, `tls`, `startup`, `after_connect` or `probe`.";
    Counter ABANDONED = "podpool_abandoned_total" ["phase"],
        "podpool.abandoned" "{call}",
        "Calls whose future was dropped before they ended, for example at a timeout of the application. `phase` is \
         what they were waiting for: `wait` (a connection), `ping`, `before_checkout`, or `query` (the work of \
         `retry` or `transaction`).";
    Gauge POD_INFO = "podpool_pod_info" ["server_address", "server_port"] of_pod,
        "podpool.pod.info" "",
        "1 while the Pod is known at this address, and 0 after it has left. The other gauges of a Pod are meaningful \
         only while this is 1.";
    Gauge PODS = "podpool_pods" ["role", "state"],
        "podpool.pods" "{pod}",
        "Number of Pods by role and health state.";
    Gauge NO_PRIMARY_SECONDS = "podpool_no_primary_seconds" [],
        "podpool.no_primary" "s",
        "Time since a Pod last served as the primary, or since the pool was built, in seconds. 0 while one serves.";
    Counter PANICS = "podpool_panics_total" ["source"],
        "podpool.panics" "{panic}",
        "Panics in code that the application supplies or in a task of the pool. The pool has survived each of them. \
         `source` is the code that panicked.";
    Counter EVENTS = "podpool_events_total" ["event"],
        "podpool.events" "{event}",
        "Events of the pool by name, such as `endpoint_added` or `role_changed`.";
    Counter RESOLVE_ANSWERS = "podpool_resolve_answers_total" [],
        "podpool.resolve.answers" "{lookup}",
        "Successful lookups of the Service name.";
    Counter RESOLVE_FAILURES = "podpool_resolve_failures_total" [],
        "podpool.resolve.failures" "{lookup}",
        "Failed lookups of the Service name.";
    Gauge RESOLVE_AGE_SECONDS = "podpool_resolve_age_seconds" [],
        "podpool.resolve.age" "s",
        "Time since the last successful lookup of the Service name, or since the pool was built, in seconds.";
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
    fn opentelemetry_names_and_attributes_become_the_names_and_labels() {
        for metric in ALL {
            let unit = if metric.unit == "s" { "_seconds" } else { "" };
            let total = if metric.kind == MetricKind::Counter { "_total" } else { "" };
            assert_eq!(metric.otel_name.replace('.', "_") + unit + total, metric.name);
            let known = ["", "s"].contains(&metric.unit) || metric.unit.starts_with('{') && metric.unit.ends_with('}');
            assert!(known, "an exporter may append the unit {} to the name of {}", metric.unit, metric.name);
        }
        for (label, attribute) in ATTRIBUTES {
            assert_eq!(attribute.replace('.', "_"), *label);
        }
    }

    #[test]
    fn per_pod_metrics_have_all_pod_labels() {
        for metric in ALL.iter().filter(|metric| metric.labels.contains(&POD_LABELS[0])) {
            assert_eq!(&metric.labels[..POD_LABELS.len()], POD_LABELS, "{}", metric.name);
        }
    }
}
