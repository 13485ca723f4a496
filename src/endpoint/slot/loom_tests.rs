//! Tests the orderings of the slot's word under every interleaving.

use super::*;
use crate::sync::{Arc, Mutex, lock};

/// Returns a connection in one thread while another thread begins to wait for one. Either the waiter finds the idle
/// connection, or the check-in finds the waiter's flag.
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

/// Returns a connection in one thread while another thread begins to wait for one. The check-in also clears the stale
/// flag of a caller that has left the queue, which must not hide the new waiter.
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

/// Drains a Pod while another thread returns a connection. Either the drain closes the connection, or the check-in
/// finds the closed flag and closes the connection.
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
        slot.set_uneven(true);
        slot.checkin();
        slot.set_class(3);
        slot.set_uneven(false);
        other.join().unwrap();
        assert_eq!((slot.load(), slot.checkouts()), (Load { in_flight: 0, class: 3 }, 2));
    });
}
