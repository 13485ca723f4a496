//! Decides from observations which Pods receive traffic. All code here is pure: no clock, no task, no I/O.
//!
//! DNS determines which Pods exist. This module determines which of them serve:
//!
//! * [`state`] is the health state of one Pod, with its transitions.
//! * [`fencing`] finds Pods of another cluster and former primaries, which must not be used.
//! * [`lag`] finds standbys that are too far behind their primary.
//! * [`outlier`] finds Pods whose statements fail because of the server.
//! * [`latency`] sorts Pods into classes by how much slower they are than the fastest.
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
