//! Tests Pods that are absent from DNS, in the simulated world. Pod 0 is the primary.

use tokio::time::{Duration, Instant};

use super::{PODS, action::Action, simulation::Simulation, world::number};
use crate::{
    config::{Limits, Target},
    health::absence::Standing,
    sync::lock,
};

/// Runs a test in simulated time, with a pool that uses these limits.
pub(super) fn run(limits: Limits, test: impl AsyncFnOnce(Simulation)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut simulation = Simulation::with(limits);
        simulation.pass(Duration::from_secs(2)).await.expect("the invariants hold");
        test(simulation).await;
    });
}

impl Simulation {
    async fn resolve(&mut self, bits: u8, time: Duration) {
        self.apply(Action::Resolve(bits)).await.expect("the action is applied");
        self.pass(time).await.expect("the invariants hold");
    }

    /// Returns the Pods in use, each with its standing if it is absent from DNS.
    pub(super) fn pods(&self) -> Vec<(usize, Option<Standing>)> {
        let view = self.inner.published.load();
        let mut pods: Vec<_> = view.pods().map(|(pod, health)| (number(pod), health.absent)).collect();
        pods.sort_by_key(|(pod, _)| *pod);
        pods
    }

    /// Returns the times of the test dials to a Pod, relative to the first.
    fn test_dials(&self, pod: usize) -> Vec<Duration> {
        let world = lock(&self.world.0);
        let times: Vec<Instant> =
            world.test_dials.iter().filter(|(dialed, _)| *dialed == pod).map(|(_, at)| *at).collect();
        times.iter().map(|at| *at - times[0]).collect()
    }
}

#[track_caller]
fn assert_times(dials: &[Duration], expected: &[u64]) {
    assert_eq!(dials.len(), expected.len(), "{dials:?}");
    for (dial, expected) in dials.iter().zip(expected) {
        let expected = Duration::from_secs(*expected);
        let tolerance = expected.mul_f64(0.2) + Duration::from_millis(100);
        assert!(*dial + tolerance >= expected && *dial <= expected + tolerance, "{dials:?}");
    }
}

#[test]
fn test_dials_end_after_14_s_while_a_pod_is_detached() {
    run(Limits::default(), async |mut simulation| {
        simulation.resolve(0b011, Duration::from_secs(10)).await;
        assert_eq!(simulation.pods(), [(0, None), (1, None), (2, Some(Standing::Detached))]);
        simulation.pass(Duration::from_secs(40)).await.expect("the invariants hold");
        assert_times(&simulation.test_dials(2), &[0, 2, 6, 14]);
        assert_eq!(simulation.pods(), [(0, None), (1, None)], "drained after the linger time");
    });
}

#[test]
fn a_retained_pod_is_tested_until_it_returns_or_refuses() {
    run(Limits::default(), async |mut simulation| {
        simulation.inner.shared.request_target(Target::ReadWrite);
        simulation.resolve(0b110, Duration::from_secs(10)).await;
        let retained = [(0, Some(Standing::Retained)), (1, None), (2, None)];
        assert_eq!(simulation.pods(), retained);
        simulation.pass(Duration::from_secs(80)).await.expect("the invariants hold");
        assert_eq!(simulation.pods(), retained, "a retained Pod is never drained while it passes");
        let dials = simulation.test_dials(0);
        assert!((9..=13).contains(&dials.len()), "{dials:?}");
        assert_times(&dials[..4], &[0, 2, 6, 14]);
        simulation.resolve(0b111, Duration::from_secs(4)).await;
        assert_eq!(simulation.pods(), [(0, None), (1, None), (2, None)]);
        let dials = simulation.test_dials(0).len();
        simulation.pass(Duration::from_secs(30)).await.expect("the invariants hold");
        assert_eq!(simulation.test_dials(0).len(), dials, "a named Pod is not tested");
    });
}

#[test]
fn an_absent_pod_is_used_when_the_last_named_pod_of_its_role_fails() {
    run(Limits::default(), async |mut simulation| {
        simulation.inner.shared.request_target(Target::Standby);
        simulation.resolve(0b011, Duration::from_secs(10)).await;
        assert_eq!(simulation.pods()[2], (2, Some(Standing::Detached)));
        simulation.apply(Action::EndSession(1, false)).await.expect("the action is applied");
        simulation.run_tasks().await;
        if simulation.inner.published.load().snapshot.candidates(Target::Standby.index()).is_empty() {
            simulation.pass(Duration::from_millis(200)).await.expect("the invariants hold");
        }
        let view = simulation.inner.published.load();
        assert_eq!(view.snapshot.candidates(Target::Standby.index()).len(), 1, "{view:?}");
    });
}

#[test]
fn the_primary_of_a_service_that_writes_once_a_minute_is_retained() {
    run(Limits::default(), async |mut simulation| {
        // The only request before the absence.
        simulation.inner.shared.request_target(Target::ReadWrite);
        simulation.resolve(0b110, Duration::from_secs(10)).await;
        for _ in 0..3 {
            for _ in 0..60 {
                assert_eq!(simulation.pods()[0], (0, Some(Standing::Retained)));
                simulation.pass(Duration::from_secs(1)).await.expect("the invariants hold");
            }
            simulation.inner.shared.request_target(Target::ReadWrite);
            let view = simulation.inner.published.load();
            assert_eq!(view.snapshot.candidates(Target::ReadWrite.index()).len(), 1, "{view:?}");
        }
        simulation.resolve(0b111, Duration::from_secs(4)).await;
        assert_eq!(simulation.pods(), [(0, None), (1, None), (2, None)]);
    });
}

#[test]
fn an_absent_pod_of_a_subset_is_used_in_addition_until_it_is_drained() {
    run(Limits { subset_size: Some(2), ..Limits::default() }, async |mut simulation| {
        let all = (1 << PODS) - 1;
        simulation.resolve(all, Duration::from_secs(10)).await;
        let used: Vec<_> = simulation.pods().iter().map(|(pod, _)| *pod).collect();
        assert_eq!(used.len(), 2);
        simulation.resolve(all & !(1 << used[0]), Duration::from_secs(12)).await;
        let pods = simulation.pods();
        assert_eq!((pods.len(), pods.contains(&(used[0], Some(Standing::Detached)))), (3, true), "{pods:?}");
        assert!(pods.contains(&(used[1], None)), "{pods:?}");
        simulation.pass(Duration::from_secs(40)).await.expect("the invariants hold");
        let pods = simulation.pods();
        assert_eq!((pods.len(), pods.iter().all(|(pod, absent)| *pod != used[0] && absent.is_none())), (2, true));
    });
}
