//! One connection to one Pod: dialling it, watching it, cancelling on it, and what its errors mean.
//!
//! ```text
//! Client ⇄ driver task ⇄ start-up, protocol ⇄ tap ⇄ (TLS) ⇄ TCP
//!             │                              │
//!             └────────── record ◀───────────┘ ──▶ observer: what the pool must hear at once
//! ```
//!
//! The guard that a caller holds derefs to the driver's client and never sees a statement, so what happens on a
//! connection is learnt here: the [`tap`] reads message headers as they pass, the [`driver`] runs the connection, and
//! both write what they see into the connection's [`record`].

mod backend;
mod bounds;
mod cancel;
pub(crate) mod classify;
pub(crate) mod connection_observer;
pub(crate) mod credentials;
pub(crate) mod dial;
mod dial_error;
mod driver;
pub(crate) mod facts;
mod frontend;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
pub(crate) mod record;
pub(crate) mod reset;
mod tap;
pub(crate) mod tls;

pub use cancel::CancelToken;
pub use classify::{Class, Verdict, classify};
pub use credentials::{Credentials, CredentialsError, CredentialsRequest, ProvideCredentials};
