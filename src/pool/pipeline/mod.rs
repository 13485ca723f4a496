//! Statements of several callers on shared connections: [`Pool::shared`](crate::Pool::shared).
//!
//! ```text
//! call ─▶ gate ─▶ reserve ─▶ prepare, encode ─▶ send ─▶ flight ─▶ outcome
//!                 │   ▲                          number n        nth Execute
//!                 ▼   │ place
//!                queue (FIFO, for all Pods)
//! ```
//!
//! The [`gate`] decides from the text whether a statement may share a connection. [`reserve`] takes a [`place`] on a
//! shared [`connection`] of the Pod that the policy picks, or waits in the [`queue`]. Statements that wait are bound to
//! no connection, so the driver holds at most `shared_depth` statements of each connection. The statement is prepared
//! ([`statements`]), its parameters are encoded ([`params`]), and the connection gives it a number when it enters the
//! driver's channel. Its caller then polls the [`flight`]. If it fails, [`outcome`] compares the number with the number
//! of statements that the tap has seen. This is one [`attempt`]; [`run`] makes another one if it had no effect, and
//! [`batch`] begins those of several statements together. [`load`] decides whether a
//! connection is slow, and which statements move or are cancelled.
//!
//! A shared connection is opened ([`open`]) like one that belongs to the application ([`owned`](super::owned)): it
//! counts towards `pool_size` and `max_connections`. When its Pod is ejected, fenced or drained, no further statement
//! is sent, and the connection is closed after the last response. One task [supervises](supervise) each.

mod attempt;
mod batch;
mod client;
mod connection;
mod flight;
mod gate;
mod load;
mod open;
mod outcome;
mod params;
mod place;
mod queue;
mod reserve;
mod run;
mod statements;
mod supervise;

pub use client::{SharedClient, SharedResponse};
pub(crate) use place::{Place, SharedConnections};
pub(crate) use queue::Queue;
