//! Tests Pods that are absent from the results of a source that knows the exact set of Pods, in the simulated world.
//! Pod 0 is the primary, and the name resolves to the first three Pods.

use tokio::time::Duration;

use super::{
    absence::run,
    action::{Action, Behavior},
    simulation::Simulation,
    world::Lookup,
};
use crate::{
    config::{Limits, Target},
    health::absence::Standing,
    sync::lock,
};

const DETACHED: Option<Standing> = Some(Standing::Detached);
const RETAINED: Option<Standing> = Some(Standing::Retained);

impl Simulation {
    /// Announces a result that names the Pods in the bit set `named` and says that those in `leaving` still exist. No
    /// time passes between the announcement and the return.
    async fn announce(&mut self, named: u8, leaving: u8) {
        // Without a pause, the pool would delay the lookup.
        self.wait(Duration::from_millis(50)).await;
        {
            let mut world = lock(&self.world.0);
            world.lookup = Lookup::Exact { named, leaving };
            world.changed.notify_one();
        }
        self.run_tasks().await;
    }

    async fn wait(&mut self, time: Duration) {
        self.pass(time).await.expect("the invariants hold");
    }
}

#[test]
fn a_leaving_pod_is_detached_immediately_and_lingers() {
    run(Limits::default(), async |mut simulation| {
        simulation.announce(0b011, 0b100).await;
        assert_eq!(simulation.pods(), [(0, None), (1, None), (2, DETACHED)]);
        simulation.wait(Duration::from_secs(29)).await;
        assert_eq!(simulation.pods(), [(0, None), (1, None), (2, DETACHED)]);
        simulation.wait(Duration::from_secs(2)).await;
        assert_eq!(simulation.pods(), [(0, None), (1, None)]);
    });
}

#[test]
fn a_leaving_pod_that_becomes_ready_again_is_used_immediately() {
    run(Limits::default(), async |mut simulation| {
        simulation.announce(0b011, 0b100).await;
        simulation.wait(Duration::from_secs(5)).await;
        simulation.announce(0b111, 0).await;
        assert_eq!(simulation.pods(), [(0, None), (1, None), (2, None)]);
    });
}

#[test]
fn a_pod_that_no_longer_exists_is_drained_immediately() {
    run(Limits::default(), async |mut simulation| {
        simulation.announce(0b011, 0b100).await;
        simulation.wait(Duration::from_secs(1)).await;
        simulation.announce(0b011, 0).await;
        assert_eq!(simulation.pods(), [(0, None), (1, None)], "gone after it was leaving");
        simulation.announce(0b001, 0).await;
        assert_eq!(simulation.pods(), [(0, None)], "gone without having been leaving");
    });
}

#[test]
fn the_last_pod_of_a_requested_role_is_retained_until_its_server_refuses() {
    for leaving in [0b001, 0] {
        run(Limits::default(), async |mut simulation| {
            simulation.inner.shared.request_target(Target::ReadWrite);
            simulation.run_tasks().await;
            simulation.announce(0b110, leaving).await;
            assert_eq!(simulation.pods(), [(0, RETAINED), (1, None), (2, None)]);
            simulation.wait(Duration::from_secs(60)).await;
            assert_eq!(simulation.pods()[0], (0, RETAINED));
            simulation.apply(Action::Behave(0, Behavior::Refuses)).await.expect("the action is applied");
            simulation.wait(Duration::from_secs(13)).await;
            assert_eq!(simulation.pods(), [(1, None), (2, None)]);
        });
    }
}

#[test]
fn a_pod_that_was_created_again_replaces_the_former_one() {
    run(Limits::default(), async |mut simulation| {
        simulation.inner.shared.request_target(Target::Standby);
        simulation.run_tasks().await;
        simulation.announce(0b0011, 0).await;
        // Pod 3 takes the place of Pod 1, which stays in use until Pod 3 has passed a probe.
        simulation.announce(0b1001, 0).await;
        assert_eq!(simulation.pods(), [(0, None), (1, RETAINED), (3, None)]);
        simulation.wait(Duration::from_secs(2)).await;
        assert_eq!(simulation.pods(), [(0, None), (3, None)]);
    });
}
