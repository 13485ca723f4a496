//! Manages one connection to one Pod: dialing, TLS, authentication, observation of the protocol, cancellation of
//! statements, and classification of errors.
//!
//! ```text
//! Client ⇄ driver task ⇄ startup, protocol ⇄ tap ⇄ (TLS) ⇄ TCP
//!             │                              │
//!             └────────── record ◀───────────┘ ──▶ connection observer: reports to the pool
//! ```
//!
//! A caller uses tokio-postgres's `Client` directly, so the statements do not pass through the pool's code. This module
//! observes the protocol instead. The [`tap`] is the stream between tokio-postgres and the socket, and parses the
//! message headers that pass through it. The [`driver`] is the task that runs the connection. Both update the
//! [`record`], which holds the observed state of the connection, such as its transaction status. The pool reads the
//! record when the connection is returned. Events to which the pool must react earlier go to the
//! [`connection_observer`].

mod auth;
mod backend;
#[cfg(feature = "bench")]
pub(crate) mod bench;
mod cancel;
pub(crate) mod classify;
mod connect;
pub(crate) mod connection_observer;
pub(crate) mod credentials;
pub(crate) mod dial;
mod dial_error;
mod driver;
mod frontend;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
pub(crate) mod login_security;
mod message_limits;
mod notifications;
#[cfg(feature = "otel")]
pub(crate) mod operations;
#[cfg(not(feature = "otel"))]
#[path = "operations_noop.rs"]
pub(crate) mod operations;
pub(crate) mod outcome;
pub(crate) mod record;
mod reported_parameters;
pub(crate) mod reset;
pub(crate) mod server_facts;
mod session_statements;
mod session_text;
mod socket_options;
mod stale_statements;
mod tap;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod type_lookup;

pub use auth::{AuthError, AuthRefusal};
pub use cancel::CancelToken;
pub use classify::{Class, Verdict, classify};
pub use credentials::{Credentials, CredentialsError, CredentialsRequest, ProvideCredentials};
pub use notifications::Notification;
pub(crate) use tokio_postgres::IsolationLevel;
pub(crate) use type_lookup::is_type_lookup;
