use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::{
    config::Target,
    endpoint::slot::{Slab, SlotHandle},
};

/// Returns the slot of a Pod that is a candidate for these targets.
fn pod(targets: &[Target]) -> SlotHandle {
    let slot = Slab::default().take();
    slot.set_targets(targets.iter().fold(0, |bits, target| bits | target.bit()));
    slot
}

fn woken<C>(waiting: &mut Waiting<'_, C>) -> Option<Wake<C>> {
    waiting.woken().now_or_never()
}

#[test]
fn hands_a_connection_to_the_oldest_waiter_that_the_pod_can_serve() {
    let queue = WaitQueue::default();
    let (primary, standby) = (pod(&[Target::Any, Target::Primary]), pod(&[Target::Any, Target::Standby]));
    let mut first = queue.enter(Target::Primary, None);
    let mut second = queue.enter(Target::Any, None);
    let mut third = queue.enter(Target::Standby, None);
    assert_eq!(queue.hand_over(&standby, 1), None);
    assert_eq!(woken(&mut second), Some(Wake::Connection(1)));
    assert_eq!(queue.hand_over(&standby, 2), None);
    assert_eq!(woken(&mut third), Some(Wake::Connection(2)));
    assert_eq!(queue.hand_over(&standby, 3), Some(3), "no waiter is left that a standby can serve");
    assert_eq!(queue.hand_over(&primary, 4), None);
    assert_eq!(woken(&mut first), Some(Wake::Connection(4)));
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn a_waiter_that_reenters_with_its_ticket_keeps_its_position() {
    let queue = WaitQueue::default();
    let any = pod(&[Target::Any]);
    let mut first = queue.enter(Target::Any, None);
    let mut second = queue.enter(Target::Any, None);
    assert_eq!(queue.hand_over(&any, 1), None);
    assert_eq!(woken(&mut first), Some(Wake::Connection(1)));
    // The first waiter found its connection unusable, so it enters the queue again with its ticket.
    let mut first = queue.enter(Target::Any, Some(first.ticket()));
    assert_eq!(queue.hand_over(&any, 2), None);
    assert_eq!(woken(&mut first), Some(Wake::Connection(2)));
    assert_eq!(woken(&mut second), None);
}

#[test]
fn a_cancelled_waiter_leaves_the_queue_and_drops_a_sent_connection() {
    let queue = WaitQueue::default();
    let any = pod(&[Target::Any]);
    let connection = std::sync::Arc::new(());
    drop(queue.enter(Target::Any, None));
    assert_eq!((queue.waiting(), queue.count(Target::ALL_BITS)), (0, 0));
    assert_eq!(queue.hand_over(&any, connection.clone()), Some(connection.clone()));
    let waiting = queue.enter(Target::Any, None);
    assert_eq!(queue.hand_over(&any, connection.clone()), None);
    assert_eq!(std::sync::Arc::strong_count(&connection), 2);
    drop(waiting);
    assert_eq!(std::sync::Arc::strong_count(&connection), 1, "the guard was dropped, which returns the connection");
}

#[test]
fn a_drained_pod_is_not_used_to_serve_waiters() {
    let queue = WaitQueue::default();
    let any = pod(&[Target::Any]);
    let mut waiting = queue.enter(Target::Any, None);
    any.set_has_waiters();
    any.close();
    assert_eq!(queue.hand_over(&any, 1), Some(1));
    queue.serve(&any, || panic!("no idle connection is taken"));
    assert_eq!(woken(&mut waiting), None);
}

#[test]
fn close_wakes_present_and_future_waiters() {
    let queue = WaitQueue::<u32>::default();
    let mut present = queue.enter(Target::Primary, None);
    queue.close();
    assert_eq!(woken(&mut present), Some(Wake::Reevaluate));
    assert_eq!(woken(&mut queue.enter(Target::Any, None)), Some(Wake::Reevaluate));
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn a_new_waiter_wakes_the_opener_only_if_an_opening_could_serve_it() {
    let queue = WaitQueue::<u32>::default();
    let woken = || queue.opener_woken().now_or_never().is_some();
    assert_eq!(queue.begin_plan(), [0; CLASSES]);
    queue.end_plan(Target::Standby.bit(), 0);
    let any = queue.enter(Target::Any, None);
    assert!(woken(), "the first waiter of a class always wakes the opener");
    let _other = queue.enter(Target::Any, None);
    assert!(!woken(), "no more connections can be opened for this class");
    let _standbys = (queue.enter(Target::Standby, None), queue.enter(Target::Standby, None));
    assert!(woken());
    drop(any);
    assert!(!woken());
    let counts = queue.begin_plan();
    assert_eq!((counts[Target::Any.index()], counts[Target::Standby.index()]), (1, 2));
    let _during = queue.enter(Target::Any, None);
    assert!(woken(), "the current plan does not include this waiter");
}

#[test]
fn the_opener_is_woken_when_the_last_starving_waiter_leaves() {
    let queue = WaitQueue::<u32>::default();
    let waiters = (queue.enter(Target::Primary, None), queue.enter(Target::Primary, None));
    queue.begin_plan();
    queue.end_plan(0, Target::Primary.bit());
    assert!(queue.opener_woken().now_or_never().is_some());
    drop(waiters.0);
    assert!(queue.opener_woken().now_or_never().is_none());
    drop(waiters.1);
    assert!(queue.opener_woken().now_or_never().is_some(), "the opener must end urgent probing");
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Enter(usize),
    Cancel(usize),
    HandOver(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..Target::ALL.len()).prop_map(Step::Enter),
        any::<usize>().prop_map(Step::Cancel),
        (0..=Target::ALL_BITS).prop_map(Step::HandOver),
    ]
}

proptest! {
    #[test]
    fn serves_waiters_in_fifo_order_despite_cancellations(steps in prop::collection::vec(step(), 0..60)) {
        let queue = WaitQueue::default();
        let slot = Slab::default().take();
        let mut waiters: Vec<(usize, Waiting<'_, usize>)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Enter(class) => waiters.push((class, queue.enter(Target::ALL[class], None))),
                Step::Cancel(which) if !waiters.is_empty() => drop(waiters.remove(which % waiters.len())),
                Step::Cancel(_) => {}
                Step::HandOver(targets) => {
                    slot.set_targets(targets);
                    let expected = waiters.iter().position(|(class, _)| targets & (1 << class) != 0);
                    let returned = queue.hand_over(&slot, number);
                    prop_assert_eq!(returned.is_none(), expected.is_some());
                    if let Some(expected) = expected {
                        let (_, mut served) = waiters.remove(expected);
                        prop_assert_eq!(woken(&mut served), Some(Wake::Connection(number)));
                    }
                }
            }
            let mask = waiters.iter().fold(0, |mask, (class, _)| mask | 1 << class);
            prop_assert_eq!(queue.waiting(), mask);
            prop_assert_eq!(queue.count(Target::ALL_BITS), waiters.len());
        }
    }
}

#[test]
fn a_limited_waiter_gets_a_connection_only_to_a_pod_that_fulfills_its_limit() {
    let queue = WaitQueue::default();
    let standby = pod(&[Target::Any, Target::Standby]);
    let limited = |seconds| Requirement::new(Target::Standby, Some(std::time::Duration::from_secs(seconds)));
    let mut strict = queue.enter(limited(1), None);
    let mut lax = queue.enter(limited(60), None);
    let mut unlimited = queue.enter(Target::Standby, None);
    assert_eq!(queue.waiting(), limited(1).bit() | limited(60).bit() | Target::Standby.bit());
    assert_eq!(queue.hand_over(&standby, 1), None);
    assert_eq!(woken(&mut unlimited), Some(Wake::Connection(1)), "the age of the data is unknown");
    assert_eq!(queue.hand_over(&standby, 2), Some(2));
    standby.set_fresh_at(Some(requirement::now() - 20_000));
    assert_eq!(queue.hand_over(&standby, 3), None);
    assert_eq!((woken(&mut strict), woken(&mut lax)), (None, Some(Wake::Connection(3))));
    standby.set_fresh_at(Some(requirement::now()));
    assert_eq!(queue.hand_over(&standby, 4), None);
    assert_eq!((woken(&mut strict), queue.waiting()), (Some(Wake::Connection(4)), 0));
}
