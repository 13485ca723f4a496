//! Faults that depend on each other, for short plans. Independent draws hardly ever give them.
//!
//! The first Pod is the primary at the start.

use std::time::Duration;

use super::{
    Caller, Fault, Host, LagFallback, Policy, Settings, Topology, Window, draw, fault::StopMode, host::Factor, workload,
};

/// Some faults, and the load, the settings and the topology with which they have consequences.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pattern {
    /// The primary is not ready for a long time, and nothing else is wrong.
    UnreadyPrimary,
    /// The primary, which has left DNS because it is not ready, shuts down while callers wait, and its sessions go on.
    ClosingAbsent,
    /// One Pod does not respond for a long time, and nothing else is wrong.
    Silent,
    /// A standby is promoted when the primary, which was down, is about to return. No caller needs a primary.
    LatePromotion,
    /// The server of a Pod does not run for a long time, and nothing else is wrong.
    Down,
    /// A client is stopped again and again, and nothing else is wrong.
    Starved,
    /// A standby replays nothing for a long time. Its clock may be behind, which hides the time of its last commit.
    Lagging,
    /// The only standby replays nothing for a long time, and the primary replaces it.
    Replaced,
    /// A standby is slow for some seconds, and nothing else is wrong.
    SlowStandby,
}

impl Pattern {
    const ALL: &'static [Self] = &[
        Self::UnreadyPrimary,
        Self::ClosingAbsent,
        Self::Silent,
        Self::LatePromotion,
        Self::Down,
        Self::Starved,
        Self::Lagging,
        Self::Replaced,
        Self::SlowStandby,
    ];

    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        Self::ALL[random.usize(..Self::ALL.len())]
    }

    /// Draws the faults, which end at `end` at the latest.
    pub(super) fn faults(self, topology: &Topology, end: Duration, random: &mut fastrand::Rng) -> Vec<Window> {
        let pod = Host::Pod(random.u32(..topology.pods));
        let (primary, other) = (Host::Pod(0), Host::Pod(random.u32(topology.pods.min(2) - 1..topology.pods)));
        let client = Host::Client(random.u32(..topology.clients));
        let start = draw::WARM_UP + millis(random, 0..2_000);
        let until = |start, end, fault| Window { start, end, fault };
        let mut windows = match self {
            Self::UnreadyPrimary => vec![until(start, end, Fault::Unready { pod: primary })],
            Self::ClosingAbsent => {
                let stop = Fault::Stop { pod: primary, mode: StopMode::Smart };
                let stopped = start + millis(random, 2_000..8_000);
                vec![until(start, end, Fault::Unready { pod: primary }), until(stopped, end, stop)]
            }
            Self::Silent => {
                let fault = if random.bool() { Fault::Hang { pod } } else { Fault::PowerLoss { pod } };
                vec![until(start, end, fault)]
            }
            Self::LatePromotion => {
                let back = start + millis(random, 2_500..6_000);
                let promoted = back + millis(random, 0..1_500);
                vec![
                    until(start - Duration::from_millis(500), end, Fault::OperatorPaused {}),
                    until(start, back, down(primary, random)),
                    until(promoted, promoted, Fault::Promoted { pod: other }),
                ]
            }
            Self::Down => vec![until(start, end, down(pod, random))],
            Self::Starved => {
                let (stopped, running) = ([1_000, 1_500, 2_000][random.usize(..3)], millis(random, 200..600));
                let stopped = Duration::from_millis(stopped);
                vec![until(start, end, Fault::ClientStarved { client, stopped, running })]
            }
            Self::Lagging => {
                let skew = Fault::Skew { host: other, by: Duration::from_secs(3600), ahead: false };
                let skew = random.bool().then(|| until(start, end, skew));
                [until(start, end, Fault::ReplayPaused { pod: other })].into_iter().chain(skew).collect()
            }
            Self::Replaced => vec![until(start, end, Fault::ReplayPaused { pod: Host::Pod(1) })],
            Self::SlowStandby => {
                let by = Factor([10, 30, 100][random.usize(..3)]);
                vec![until(start, start + millis(random, 3_000..5_000), Fault::Slow { pod: other, by })]
            }
        };
        for window in &mut windows {
            (window.start, window.end) = (window.start.min(end), window.end.min(end));
        }
        windows.sort_by_key(|window| window.start);
        windows
    }

    /// Sets the load, the settings and the topology.
    pub(super) fn suit(self, settings: &mut Settings, callers: &mut Vec<Caller>, topology: &mut Topology) {
        if !matches!(self, Self::UnreadyPrimary | Self::ClosingAbsent) {
            settings.suffice();
            // One Pod is a minority, and there are standbys to compare.
            topology.pods = topology.pods.max(3);
        }
        match self {
            Self::UnreadyPrimary => settings.suffice(),
            Self::Silent | Self::Down => {}
            // Many responses arrive while the client is stopped.
            Self::Starved => topology.round_trip = Duration::from_millis(50),
            Self::ClosingAbsent => {
                settings.pool_size = settings.pool_size.min(2);
                settings.min_idle = settings.min_idle.min(settings.pool_size);
                workload::crowd(callers, topology);
            }
            Self::Lagging => {
                settings.max_lag = settings.max_lag.or(Some(Duration::from_secs(3)));
                workload::read_and_write(callers, topology);
            }
            Self::Replaced => {
                (topology.pods, topology.nodes) = (2, topology.nodes.min(2));
                topology.synchronous = topology.synchronous.min(1);
                settings.max_lag = settings.max_lag.or(Some(Duration::from_secs(1)));
                settings.lag_fallback = LagFallback::Primary;
                workload::read_and_write(callers, topology);
            }
            Self::LatePromotion => workload::read_only(callers, topology),
            Self::SlowStandby => {
                settings.policy = Policy::LeastCost;
                workload::read_standbys(callers, topology);
            }
        }
    }
}

/// A fault in which the server of a Pod does not run.
fn down(pod: Host, random: &mut fastrand::Rng) -> Fault {
    if random.bool() { Fault::Crash { pod } } else { Fault::Stop { pod, mode: StopMode::Fast } }
}

fn millis(random: &mut fastrand::Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faults_of_each_pattern_fit_into_the_time() {
        let mut random = fastrand::Rng::with_seed(1);
        for pattern in Pattern::ALL {
            for end in [5, 12, 26, 56].map(Duration::from_secs) {
                let (mut settings, mut topology) = (Settings::default(), Topology { pods: 1, ..Topology::default() });
                let mut callers = vec![Caller::default()];
                pattern.suit(&mut settings, &mut callers, &mut topology);
                let faults = pattern.faults(&topology, end, &mut random);
                assert!(faults.iter().all(|window| window.start <= window.end && window.end <= end), "{faults:?}");
                assert!(faults.is_sorted_by_key(|window| window.start), "{faults:?}");
                assert!(callers.iter().all(|caller| caller.client < topology.clients), "{callers:?}");
            }
        }
    }

    #[test]
    fn every_pattern_is_drawn() {
        let mut random = fastrand::Rng::with_seed(1);
        let drawn: Vec<_> = (0..200).map(|_| Pattern::draw(&mut random)).collect();
        assert!(Pattern::ALL.iter().all(|pattern| drawn.contains(pattern)));
    }
}
