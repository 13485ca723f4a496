//! Which Pods serve, judged from facts. Everything here is pure: no clock, no task, no I/O.
//!
//! DNS tells who exists, health tells who serves. [`state`] is one Pod's state and the one transition that changes
//! it; [`fencing`] says whom to believe, [`lag`] who is too far behind, [`outlier`] whose statements fail through the
//! server's fault, [`latency`] who is slower than the others; [`candidates`] turns the facts of all Pods into the lists that checkouts choose from.

pub(crate) mod candidates;
pub(crate) mod fencing;
pub(crate) mod lag;
pub(crate) mod latency;
pub(crate) mod outlier;
pub(crate) mod state;

pub use state::State;
