//! One connection to one Pod: dialing, authentication and TLS, observation, cancellation, and the meaning of its
//! errors.
//!
//! ```text
//! Client ⇄ driver task ⇄ startup, protocol ⇄ tap ⇄ (TLS) ⇄ TCP
//!             │                              │
//!             └────────── record ◀───────────┘ ──▶ connection observer: reports to the pool
//! ```
//!
//! A caller's guard dereferences to the driver's client, so the pool never sees the statements that run on it. This
//! module observes the protocol instead: the [`tap`] parses message headers as they pass, the [`driver`] runs the
//! connection, and both keep the [`record`] of the connection up to date. The pool reads the record when the connection
//! is returned. Events that the pool has to know earlier go to the [`connection_observer`].

mod backend;
mod cancel;
pub(crate) mod classify;
pub(crate) mod connection_observer;
pub(crate) mod credentials;
pub(crate) mod dial;
mod dial_error;
mod driver;
mod frontend;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod message_limits;
pub(crate) mod record;
pub(crate) mod reset;
pub(crate) mod server_facts;
mod tap;
pub(crate) mod tls;

pub use cancel::CancelToken;
pub use classify::{Class, Verdict, classify};
pub use credentials::{Credentials, CredentialsError, CredentialsRequest, ProvideCredentials};
