//! The strategies that the simulation compares.

use podpool::{
    balance::{LeastCost, LeastInFlight, PeakEwma, Random, RoundRobin},
    bench::SimulatedClient,
};

/// A way to assign statements to Pods: one of the library's policies, or an ideal to compare them with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Strategy {
    LeastCost,
    LeastInFlight,
    PeakEwma,
    RoundRobin,
    Random,
    /// One queue in front of the workers of all Pods, served by the fastest free Pod. This cannot be implemented in a
    /// client, because a client cannot observe the current queues and speeds of all Pods.
    CentralQueue,
}

/// The library's policies.
pub(crate) const POLICIES: [Strategy; 5] =
    [Strategy::LeastCost, Strategy::LeastInFlight, Strategy::PeakEwma, Strategy::RoundRobin, Strategy::Random];

impl Strategy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LeastCost => "LeastCost",
            Self::LeastInFlight => "LeastInFlight",
            Self::PeakEwma => "PeakEwma",
            Self::RoundRobin => "RoundRobin",
            Self::Random => "Random",
            Self::CentralQueue => "central queue",
        }
    }

    /// Returns a client that picks by this policy. With a central queue, the client is not used.
    pub(crate) fn client(self, pods: usize, seed: u64) -> SimulatedClient {
        match self {
            Self::LeastCost | Self::CentralQueue => SimulatedClient::new(pods, LeastCost::new(), seed),
            Self::LeastInFlight => SimulatedClient::new(pods, LeastInFlight::new(), seed),
            Self::PeakEwma => SimulatedClient::new(pods, PeakEwma::new(), seed),
            Self::RoundRobin => SimulatedClient::new(pods, RoundRobin::new(), seed),
            Self::Random => SimulatedClient::new(pods, Random::new(), seed),
        }
    }
}
