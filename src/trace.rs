//! The names of the pool's spans.
//!
//! All spans have the target `podpool`, the level `DEBUG`, and OpenTelemetry's fields `db.system.name` and
//! `db.client.connection.pool.name`, the pool's [name](crate::Pool::name). A checkout that finds an idle connection
//! creates no span.
//!
//! [`WAIT`] and [`RETRY`] are children of the caller's current span. All other work runs in tasks of the pool, whose
//! spans have no parent. The bridge `tracing-opentelemetry` exports spans to OpenTelemetry, and turns
//! `follows_from` into a link.
//!
//! [Events](crate::Event) are logged with the target `podpool`, at `INFO` or `WARN`. The field `event` is the event's
//! [name](crate::Event::name). Events about a Pod have the fields `server.address` and `server.port`. For a
//! Unix socket, the first is the path, and the second is missing. Other log lines are not stable between versions.
//! Each log line about a pool has the field `db.client.connection.pool.name`. Log lines about the protocol and about
//! DNS queries have it on their spans instead.

/// The slow path of a checkout that found no usable idle connection. The span ends when the checkout succeeds or fails.
/// Field: `target`, the requested [`Target`](crate::Target).
pub const WAIT: &str = "podpool.wait";
/// The work of [`retry`](crate::Pool::retry), `retry_unapplied` or `transaction`, with all its repetitions. Fields:
/// `target`, and `operation`, the name of the method.
pub const RETRY: &str = "podpool.retry";
/// Opening a connection. Follows from the spans of the checkouts that wait. Fields: `server.address`, `server.port`.
pub const CONNECT: &str = "podpool.connect";
/// Probing a Pod. Fields: `server.address`, `server.port`.
pub const PROBE: &str = "podpool.probe";
/// Resolving the Service's name. Field: `source`, the resolver.
pub const RESOLVE: &str = "podpool.resolve";

/// The names of all spans.
pub const ALL: &[&str] = &[WAIT, RETRY, CONNECT, PROBE, RESOLVE];

/// The `tracing` target of all spans and of the log lines about events.
pub const TARGET: &str = "podpool";

/// The value of `db.system.name`: OpenTelemetry's name for PostgreSQL.
pub(crate) const SYSTEM: &str = "postgresql";

/// Creates a span for one Pod. Its fields contain the name of the pool, and the Pod's address and port.
macro_rules! endpoint_span {
    ($name:expr, $pool:expr, $endpoint:expr) => {{
        let address = $endpoint.address();
        tracing::debug_span!(
            target: $crate::trace::TARGET,
            $name,
            "db.system.name" = $crate::trace::SYSTEM,
            "db.client.connection.pool.name" = &**$pool,
            "server.address" = address.host_text(),
            "server.port" = address.port(),
        )
    }};
}
pub(crate) use endpoint_span;

/// Writes a log line with the name of the pool.
macro_rules! pool_line {
    ($level:ident, $pool:expr, $($rest:tt)+) => {
        tracing::$level!("db.client.connection.pool.name" = &$pool.name()[..], $($rest)+)
    };
}
pub(crate) use pool_line;

/// Writes a log line about a Pod, with the name of its pool.
macro_rules! pod_line {
    ($level:ident, $pod:expr, $($rest:tt)+) => {
        $crate::trace::pool_line!($level, $pod.shared(), endpoint = %$pod.endpoint, $($rest)+)
    };
}
pub(crate) use pod_line;
