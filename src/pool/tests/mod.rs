//! Tests the whole pool except for its sockets, with simulated time, Pods and lookups. The directory (the task that
//! maintains the set of Pods), the refresher (lookups), the probers and the upkeep task run exactly as
//! [`Builder::build`](super::Builder::build) starts them.
//!
//! The test applies a random history of [actions](action::Action). These [invariants](invariants) must hold at all
//! times:
//!
//! - There is a candidate for checkouts while a trustworthy Pod passes its probes. A Pod of another cluster becomes
//!   trustworthy when it passes a probe after the last evidence against it.
//! - A Pod that fails its probes stops being a candidate within a fixed time, provided that another Pod passes its
//!   probes.
//! - A primary below the highest timeline, a second primary, or a Pod of another cluster is never a candidate. The
//!   highest timeline is forgotten only if no Pod reports it.
//! - A Pod whose server has no free connection slot stays in use.
//! - A detached Pod is never a candidate.
//! - Failed lookups, and evidence from connections that the pool has already invalidated, change nothing.
//!
//! After a long time without actions, every standby that passes its probes must serve.

mod absence;
mod action;
mod announcements;
mod backends;
mod exact;
mod fleet;
mod invariants;
mod overdue_ping;
mod search;
mod simulation;
mod world;

use proptest::prelude::*;
use tokio::time::{Duration, Instant};

use self::{
    action::{Action, any_action},
    simulation::Simulation,
};
use crate::config::Target;

/// Number of simulated Pods.
const PODS: usize = 5;
/// Interval at which the invariants are checked.
const STEP: Duration = Duration::from_millis(100);
/// TTL of each lookup result. Short, so that the Service name is looked up often.
const TTL: Duration = Duration::from_secs(3);
/// Upper bound for the interval between two probes of a healthy Pod.
const INTERVAL: Duration = Duration::from_millis(6000);
/// Timeout for a probe.
const PROBE: Duration = Duration::from_millis(1000);
/// Upper bound for the time until a passing Pod is probed, even if the Pod is new or its previous probe hung.
const PROBED_WITHIN: Duration = Duration::from_secs(4);
/// Time after which past actions no longer have an effect: longer than the maximum backoff plus a few probes.
const QUIET: Duration = Duration::from_secs(45);

async fn simulate(history: Vec<(Action, u64)>) -> Result<(), TestCaseError> {
    let mut simulation = Simulation::new();
    let inner = simulation.inner.clone();
    simulation.pass(Duration::from_secs(2)).await?;
    prop_assert_eq!(
        inner.published.load().snapshot.candidates(Target::Any.index()).len(),
        3,
        "candidates at the start"
    );
    for (action, millis) in history {
        if let Action::ProbeUrgently(begins) = action {
            inner.shared.group.urgent_probing.set(inner.shared.id, begins, Instant::now());
        }
        simulation.apply(action).await?;
        simulation.run_tasks().await;
        simulation.check()?;
        simulation.pass(Duration::from_millis(millis)).await?;
    }
    simulation.pass(QUIET).await?;
    simulation.check_quiet()
}

proptest! {
    // Each case simulates minutes of pool time, so only half of the default number of cases is run.
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn passing_pods_serve_and_failing_pods_do_not(
        history in prop::collection::vec((any_action(), prop_oneof![Just(0), 0..300u64, 0..9000u64]), 0..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(simulate(history))?;
    }
}
