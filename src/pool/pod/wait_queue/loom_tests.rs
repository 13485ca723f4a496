//! Tests with loom the protocol between the wait queue and a Pod's slot under every interleaving. A waiter's channel is
//! a tokio channel, which loom does not model, so each operation on the channel is a single step.

use super::*;
use crate::{
    config::Target,
    endpoint::slot::{Slab, SlotHandle},
    sync::Arc,
};

type Idle = Arc<Mutex<Vec<u32>>>;

fn pod(target: Target) -> Arc<SlotHandle> {
    let slot = Slab::default().take();
    slot.set_targets(target.bit());
    slot.checkout();
    Arc::new(slot)
}

/// Checks in a connection, like `Pod::check_in`.
fn check_in(queue: &WaitQueue<u32>, slot: &Slot, idle: &Idle, connection: u32) {
    let mut connection = connection;
    if slot.serves(queue.waiting()) {
        match queue.hand_over(slot, connection) {
            None => return,
            Some(returned) => connection = returned,
        }
    }
    lock(idle).push(connection);
    let flags = slot.checkin();
    if flags.closed() {
        lock(idle).clear();
    } else if flags.has_waiters() {
        queue.serve(slot, || lock(idle).pop());
    }
}

/// Announces a waiter to the Pod after the waiter has entered the queue, like `Inner::announce`.
fn announce(queue: &WaitQueue<u32>, slot: &Slot, idle: &Idle) {
    slot.set_has_waiters();
    let is_empty = lock(idle).is_empty();
    if !is_empty {
        queue.serve(slot, || lock(idle).pop());
    }
}

#[test]
fn concurrent_check_in_serves_a_new_waiter() {
    loom::model(|| {
        let (queue, slot, idle) = (Arc::new(WaitQueue::default()), pod(Target::Any), Idle::default());
        let returning = {
            let (queue, slot, idle) = (queue.clone(), slot.clone(), idle.clone());
            loom::thread::spawn(move || check_in(&queue, &slot, &idle, 7))
        };
        let mut waiting = queue.enter(Target::Any, None);
        announce(&queue, &slot, &idle);
        returning.join().unwrap();
        assert_eq!(waiting.try_woken(), Some(Wake::Connection(7)));
        assert!(lock(&idle).is_empty());
    });
}

#[test]
fn a_connection_sent_to_a_leaving_waiter_is_not_lost() {
    loom::model(|| {
        let (queue, slot, idle) = (Arc::new(WaitQueue::default()), pod(Target::Any), Idle::default());
        let leaving = queue.enter(Target::Any, None);
        announce(&queue, &slot, &idle);
        let mut staying = queue.enter(Target::Any, None);
        announce(&queue, &slot, &idle);
        let returning = {
            let (queue, slot, idle) = (queue.clone(), slot.clone(), idle.clone());
            loom::thread::spawn(move || check_in(&queue, &slot, &idle, 7))
        };
        // If a connection was sent to the leaving waiter, this thread checks the connection in. In the pool, dropping
        // the connection's guard does this.
        let mut leaving = leaving;
        let sent = leaving.try_woken();
        drop(leaving);
        if let Some(Wake::Connection(connection)) = sent {
            check_in(&queue, &slot, &idle, connection);
        }
        returning.join().unwrap();
        let served = staying.try_woken() == Some(Wake::Connection(7));
        // `dropped` is true if the connection was sent between `try_woken` and `drop`. In the pool, tokio's channel
        // then drops the connection's guard, which returns the connection.
        let dropped = sent.is_none() && lock(&idle).is_empty() && !served;
        assert!(served || dropped, "idle: {:?}", lock(&idle));
    });
}

#[test]
fn concurrent_publication_serves_a_new_waiter() {
    loom::model(|| {
        let queue = Arc::new(WaitQueue::default());
        let slot = pod(Target::Any);
        slot.set_targets(0);
        let (idle, published) = (Idle::default(), Arc::new(Mutex::new(false)));
        lock(&idle).push(7);
        let publishing = {
            let (queue, slot, idle, published) = (queue.clone(), slot.clone(), idle.clone(), published.clone());
            loom::thread::spawn(move || {
                slot.set_targets(Target::Any.bit());
                *lock(&published) = true;
                if queue.waiting_for(slot.targets()) != 0 {
                    announce(&queue, &slot, &idle);
                }
            })
        };
        let mut waiting = queue.enter(Target::Any, None);
        let is_candidate = *lock(&published);
        if is_candidate {
            announce(&queue, &slot, &idle);
        }
        publishing.join().unwrap();
        assert_eq!(waiting.try_woken(), Some(Wake::Connection(7)));
    });
}

#[test]
fn concurrent_close_wakes_a_new_waiter() {
    loom::model(|| {
        let queue = Arc::new(WaitQueue::<u32>::default());
        let closing = {
            let queue = queue.clone();
            loom::thread::spawn(move || queue.close())
        };
        let mut waiting = queue.enter(Target::Any, None);
        closing.join().unwrap();
        assert_eq!(waiting.try_woken(), Some(Wake::Reevaluate));
    });
}

#[test]
fn a_closed_pod_keeps_no_idle_connection() {
    loom::model(|| {
        let (queue, slot, idle) = (Arc::new(WaitQueue::default()), pod(Target::Any), Idle::default());
        let mut waiting = queue.enter(Target::Any, None);
        announce(&queue, &slot, &idle);
        let returning = {
            let (queue, slot, idle) = (queue.clone(), slot.clone(), idle.clone());
            loom::thread::spawn(move || check_in(&queue, &slot, &idle, 7))
        };
        slot.close();
        lock(&idle).clear();
        returning.join().unwrap();
        // The connection was either closed, or handed over by a hand-over that began before the Pod was closed.
        assert!(matches!(waiting.try_woken(), None | Some(Wake::Connection(7))));
        assert!(lock(&idle).is_empty());
    });
}
