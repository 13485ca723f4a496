//! A model of Patroni: one agent on the host of each server, and a lease in a store that determines the leader.
//!
//! Each agent runs a cycle every [`Settings::loop_wait`], and when the store changes. The leader renews its lease, and
//! demotes its server when it cannot. When the lease is free, the agents compare their servers, and the most advanced
//! one acquires the lease and promotes its server. A former leader is rewound.

mod agent;
mod election;
mod switchover;
mod synchronous;

use std::time::Duration;

pub use self::{
    agent::Agent,
    switchover::{pause, switch_over},
};

/// The settings of the agents.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time after which a lease expires that was not renewed.
    pub ttl: Duration,
    /// Time between two cycles.
    pub loop_wait: Duration,
    /// Time within which a server must stop or be promoted.
    pub stop_timeout: Duration,
    /// Maximum lag of the next leader behind the last known position of the leader, in bytes.
    pub maximum_lag: u64,
    /// True if only synchronous standbys may become leaders.
    pub synchronous: bool,
    /// True if commits wait while no synchronous standby is available.
    pub strict: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(60),
            maximum_lag: 1 << 20,
            synchronous: false,
            strict: false,
        }
    }
}
