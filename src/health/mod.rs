//! Decides which Pods receive traffic, based on observations. All code here is pure: it reads no clock, starts no task
//! and does no I/O.
//!
//! DNS determines which Pods exist. This module determines which of these Pods receive traffic:
//!
//! * [`state`] holds the health state of one Pod and its transitions.
//! * [`fencing`] finds Pods that must not be used: Pods of another database cluster, former primaries, and second
//!   primaries.
//! * [`suspicion`] decides whether ended sessions are evidence about their Pod.
//! * [`local`] detects that this client itself is stopped or starved of CPU.
//! * [`lag`] finds standbys that are too far behind their primary.
//! * [`absence`] decides which Pods that are absent from DNS are still used.
//! * [`alternative`] recognizes several addresses of one server.
//! * [`outlier`] finds Pods on which too many statements fail through a fault of the server.
//! * [`latency`] assigns Pods to classes by their latency relative to the fastest Pods.
//! * [`target`] defines which Pods each [`Target`](crate::config::Target) accepts. The target is the kind of server
//!   that a checkout requests, such as the primary.
//! * [`candidates`] combines these results into the lists of Pods from which checkouts choose.

pub(crate) mod absence;
pub(crate) mod alternative;
pub(crate) mod candidates;
pub(crate) mod fencing;
pub(crate) mod lag;
pub(crate) mod latency;
pub(crate) mod local;
pub(crate) mod outlier;
pub(crate) mod state;
pub(crate) mod suspicion;
pub(crate) mod target;

pub use state::State;
