//! Tests the orderings of the slot's word under every interleaving.

use super::*;
use crate::sync::{Arc, Mutex, lock};

/// One thread returns a connection while another begins to wait: the waiter finds the connection, or the check-in sees
/// the waiter.
#[test]
fn concurrent_check_in_and_wait_lose_no_wakeup() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        let idle = Arc::new(Mutex::new(0));
        slot.checkout();
        let returning = {
            let (slot, idle) = (slot.clone(), idle.clone());
            loom::thread::spawn(move || {
                *lock(&idle) += 1;
                slot.checkin().has_waiters()
            })
        };
        slot.set_has_waiters();
        let found = std::mem::take(&mut *lock(&idle)) > 0;
        let seen = returning.join().unwrap();
        assert!(found || seen, "a connection is idle while a caller waits for it");
        assert_eq!(slot.in_flight(), 0);
    });
}

/// The same, while the check-in clears the stale flag of a caller that has left the queue.
#[test]
fn clearing_a_stale_flag_loses_no_wakeup() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        let idle = Arc::new(Mutex::new(0));
        let queue = Arc::new(Mutex::new(0));
        slot.checkout();
        slot.set_has_waiters();
        let returning = {
            let (slot, idle, queue) = (slot.clone(), idle.clone(), queue.clone());
            loom::thread::spawn(move || {
                *lock(&idle) += 1;
                if !slot.checkin().has_waiters() {
                    return false;
                }
                let queue = lock(&queue);
                if *queue == 0 {
                    slot.clear_has_waiters();
                }
                *queue > 0
            })
        };
        *lock(&queue) += 1;
        slot.set_has_waiters();
        let found = std::mem::take(&mut *lock(&idle)) > 0;
        let seen = returning.join().unwrap();
        assert!(found || seen, "a connection is idle while a caller waits for it");
    });
}

/// A Pod is drained while a connection is returned: the drain closes the connection, or the check-in sees the flag.
#[test]
fn a_connection_returned_during_a_drain_is_closed() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        let idle = Arc::new(Mutex::new(0));
        slot.checkout();
        let returning = {
            let (slot, idle) = (slot.clone(), idle.clone());
            loom::thread::spawn(move || {
                *lock(&idle) += 1;
                if slot.checkin().closed() {
                    *lock(&idle) = 0;
                }
            })
        };
        slot.close();
        *lock(&idle) = 0;
        returning.join().unwrap();
        assert_eq!((*lock(&idle), slot.in_flight()), (0, 0));
    });
}

#[test]
fn counters_are_exact_under_concurrent_updates() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        let other = {
            let slot = slot.clone();
            loom::thread::spawn(move || {
                slot.checkout();
                slot.checkin();
            })
        };
        slot.checkout();
        slot.set_class(7);
        slot.checkin();
        slot.set_class(3);
        other.join().unwrap();
        assert_eq!((slot.load(), slot.checkouts()), (Load { in_flight: 0, class: 3 }, 2));
    });
}
