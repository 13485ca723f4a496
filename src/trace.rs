//! The spans that a pool makes, by name.
//!
//! All have the target `podpool` and the level `DEBUG`, and carry OpenTelemetry's `db.system.name`. Each is made where the pool
//! works anyway: a checkout that finds an idle connection makes none.
//!
//! The log lines of the set of Pods have the target `podpool` too, at `INFO` or `WARN`, with the event's
//! [name](crate::Event::name) in the field `event`, and the Pod's `server.address` and `server.port` where it is about
//! one. Other lines come and go with versions.

/// A checkout that found nothing idle, from then to its connection or its error. Fields: `target`, the target asked for.
pub const WAIT: &str = "podpool.wait";
/// A connection is opened. Fields: `server.address`, `server.port`.
pub const CONNECT: &str = "podpool.connect";
/// A Pod is probed. Fields: `server.address`, `server.port`.
pub const PROBE: &str = "podpool.probe";
/// The Service's name is resolved. Fields: `source`, what is asked.
pub const RESOLVE: &str = "podpool.resolve";

/// Every span there is.
pub const ALL: &[&str] = &[WAIT, CONNECT, PROBE, RESOLVE];

/// The target of every span, and of the events' log lines.
pub const TARGET: &str = "podpool";

/// OpenTelemetry's name of the database system: the value of `db.system.name`.
pub(crate) const SYSTEM: &str = "postgresql";

/// A span of this name about one Pod.
macro_rules! endpoint_span {
    ($name:expr, $endpoint:expr) => {{
        let address = $endpoint.address();
        tracing::debug_span!(
            target: $crate::trace::TARGET,
            $name,
            "db.system.name" = $crate::trace::SYSTEM,
            "server.address" = %address.ip(),
            "server.port" = address.port(),
        )
    }};
}
pub(crate) use endpoint_span;
