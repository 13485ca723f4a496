//! The names of the pool's spans.
//!
//! All spans have the target `podpool`, the level `DEBUG`, and OpenTelemetry's field `db.system.name`. A checkout that
//! finds an idle connection creates no span.
//!
//! [Events](crate::Event) are logged with the target `podpool`, at `INFO` or `WARN`. The field `event` is the event's
//! [name](crate::Event::name). Events about a Pod have the fields `server.address` and `server.port`. For a
//! Unix socket, the first is the path, and the second is missing. Other log lines
//! are not stable between versions.

/// The slow path of a checkout that found no usable idle connection. The span ends when the checkout succeeds or fails.
/// Field: `target`, the requested [`Target`](crate::Target).
pub const WAIT: &str = "podpool.wait";
/// Opening a connection. Fields: `server.address`, `server.port`.
pub const CONNECT: &str = "podpool.connect";
/// Probing a Pod. Fields: `server.address`, `server.port`.
pub const PROBE: &str = "podpool.probe";
/// Resolving the Service's name. Field: `source`, the resolver.
pub const RESOLVE: &str = "podpool.resolve";

/// The names of all spans.
pub const ALL: &[&str] = &[WAIT, CONNECT, PROBE, RESOLVE];

/// The `tracing` target of all spans and of the log lines about events.
pub const TARGET: &str = "podpool";

/// The value of `db.system.name`: OpenTelemetry's name for PostgreSQL.
pub(crate) const SYSTEM: &str = "postgresql";

/// Creates a span for one Pod. Its fields contain the Pod's address and port.
macro_rules! endpoint_span {
    ($name:expr, $endpoint:expr) => {{
        let address = $endpoint.address();
        tracing::debug_span!(
            target: $crate::trace::TARGET,
            $name,
            "db.system.name" = $crate::trace::SYSTEM,
            "server.address" = address.host_text(),
            "server.port" = address.port(),
        )
    }};
}
pub(crate) use endpoint_span;
