//! Tests the wait queue and the opener under random histories. The test uses the real slots, wait queue, plans,
//! backoffs and connection limit. It simulates Pods, dials, callers and time. A *target* is the role that a caller
//! requests, and an *opening* is a connection that is being opened.
//!
//! These invariants hold after every step:
//!
//! - No caller waits while a Pod that can serve it has an idle connection.
//! - Callers with the same target are served in order of arrival.
//! - A drained Pod has no idle connection, and no caller gets a connection to it.
//! - The number of open connections stays within the Pod's size and the pool's limit.
//! - If the opener opens no connection for a waiter, every Pod that can serve the waiter is at one of its limits.
//!
//! At the end of a history, all dials succeed and all callers return their connections. After that, every waiter that a
//! Pod can serve must have been served.

mod pod;
mod step;
mod world;

use proptest::prelude::*;

use self::{
    pod::Conn,
    step::{Step, step},
    world::{Callers, World, role_targets},
};
use crate::{config::Target, time::Duration};

/// Maximum number of connections to one Pod.
const POD_SIZE: usize = 2;
/// Maximum number of pooled connections over all Pods. [`Step::Limit`] changes this limit.
const POOLED: usize = 6;
/// Maximum number of concurrent openings to one Pod.
const PER_POD: usize = 2;
/// Maximum number of concurrent openings to all Pods.
const TOTAL: usize = 5;
/// The targets (requested roles) of the simulated callers.
const TARGETS: [Target; 3] = [Target::Any, Target::Primary, Target::Standby];

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new();
    // The callers borrow the queue through this separate reference, so that `world` can still be borrowed mutably.
    let core = world.core.clone();
    let mut callers: Callers<'_> = Vec::new();
    world.add(true);
    world.add(false);
    world.divide();
    for step in steps {
        match step {
            Step::Enter(target) => {
                let target = TARGETS[target];
                callers.push((world.next_caller, target, core.queue.enter(target, None)));
                world.next_caller += 1;
                world.announce(target);
            }
            Step::Cancel(which) if !callers.is_empty() => drop(callers.remove(which % callers.len())),
            Step::Return(which) if !world.in_use.is_empty() => {
                let caller = world.in_use.keys().nth(which % world.in_use.len()).copied();
                caller.and_then(|caller| world.in_use.remove(&caller)).into_iter().for_each(Conn::check_in);
            }
            Step::Add(primary) if world.pods.len() < 4 => {
                world.add(primary);
                world.publish();
            }
            Step::Drain(which) if !world.pods.is_empty() => {
                let pod = world.pods.remove(which % world.pods.len());
                pod.slot.close();
                pod.closed.set(true);
                world.core.close_idle(&pod);
                world.drained.push(pod);
                world.publish();
            }
            Step::Role(which, primary) if !world.pods.is_empty() => {
                world.pods[which % world.pods.len()].slot.set_targets(role_targets(primary));
                world.publish();
            }
            Step::Dial(which, millis, succeeds) if !world.pods.is_empty() => {
                world.pods[which % world.pods.len()].dial.set((millis, succeeds));
            }
            Step::Purge(which) if !world.pods.is_empty() => {
                let pod = &world.pods[which % world.pods.len()];
                world.core.close_idle(pod);
            }
            Step::Limit(pooled) => {
                world.pooled = pooled;
                world.divide();
            }
            Step::Pass(millis) => world.pass(Duration::from_millis(millis), &mut callers)?,
            _ => {}
        }
        world.pass(Duration::ZERO, &mut callers)?;
    }
    // All dials succeed and all callers return their connections, so every waiter that a Pod can serve must be served.
    world.pooled = POOLED;
    world.divide();
    world.pods.iter().for_each(|pod| pod.dial.set((5, true)));
    for _ in 0..200 {
        let in_use = std::mem::take(&mut world.in_use);
        in_use.into_values().for_each(Conn::check_in);
        world.close_surplus();
        world.pass(Duration::from_millis(500), &mut callers)?;
    }
    for (_, target, _) in &callers {
        prop_assert!(!world.pods.iter().any(|pod| pod.slot.serves(target.bit())), "{target} was never served");
    }
    drop(callers);
    std::mem::take(&mut world.in_use).into_values().for_each(Conn::check_in);
    let pooled: usize = world.pods.iter().chain(&world.drained).map(|pod| pod.open.get()).sum();
    let kept: usize = world.pods.iter().map(|pod| pod.idle.get() + pod.dials.borrow().len()).sum();
    prop_assert_eq!(pooled, kept, "a permit was lost");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_waiter_is_served_and_no_permit_is_lost(steps in prop::collection::vec(step(), 1..60)) {
        run(steps)?;
    }
}
