//! A model of CloudNativePG: a controller that chooses the primary, and one instance manager on the host of each
//! server that carries the choice out.
//!
//! The controller observes all instances. If the primary fails, it first sets no target, waits until no standby
//! receives from the old primary any more, and then chooses the most advanced standby. A primary that is no longer the
//! target stops, and becomes a standby of the new one.

mod controller;
mod instance;
mod rollout;

use std::time::Duration;

pub use self::{
    controller::Controller,
    instance::Instance,
    rollout::{Rollout, roll_out},
};

/// The settings of a group.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time between two observations of the controller, and of an instance manager.
    pub interval: Duration,
    /// Time for which the primary must be failing before a failover (`failoverDelay`).
    pub failover_delay: Duration,
    /// Maximum duration of a shutdown before it becomes an immediate one (`stopDelay`).
    pub stop_delay: Duration,
    /// Duration of a smart shutdown, when a Pod is deleted, before it becomes a fast one (`smartShutdownTimeout`).
    pub smart_shutdown: Duration,
    /// Time after which a primary stops that reaches neither the store nor another instance (`isolationCheck`).
    pub isolation: Duration,
    /// Number of standbys that must confirm each commit. Zero for asynchronous replication.
    pub synchronous: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            failover_delay: Duration::ZERO,
            stop_delay: Duration::from_secs(30),
            smart_shutdown: Duration::from_secs(180),
            isolation: Duration::from_secs(30),
            synchronous: 0,
        }
    }
}
