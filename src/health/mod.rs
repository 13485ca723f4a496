//! Decides which Pods receive traffic, based on observations. All code here is pure: it reads no clock, starts no task
//! and does no I/O.
//!
//! DNS determines which Pods exist. This module determines which of them serve:
//!
//! * [`state`] holds the health state of one Pod and its transitions.
//! * [`fencing`] finds Pods that must not be used: those of another cluster, and former or second primaries.
//! * [`lag`] finds standbys that are too far behind their primary.
//! * [`outlier`] finds Pods whose statements fail because of the server.
//! * [`latency`] assigns Pods to classes by their latency relative to the fastest Pods.
//! * [`target`] defines which Pods each [`Target`](crate::config::Target) accepts.
//! * [`candidates`] combines all of these into the lists that checkouts choose from.

pub(crate) mod candidates;
pub(crate) mod fencing;
pub(crate) mod lag;
pub(crate) mod latency;
pub(crate) mod outlier;
pub(crate) mod state;
pub(crate) mod target;

pub use state::State;
