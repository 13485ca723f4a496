//! Tests that the parts of a slot's word are independent, and that slots are reused.

use super::*;

#[test]
fn a_slot_is_one_cache_line() {
    assert_eq!(size_of::<Slot>(), 64);
}

#[test]
fn counts_flags_and_class_are_independent() {
    let slot = Slot::default();
    slot.checkout();
    slot.checkout();
    slot.set_has_waiters();
    for class in [CLASS_MAX, 1, 5, CLASS_MAX + 1, 2] {
        slot.set_class(class);
        slot.set_uneven(class == 5);
        assert_eq!(slot.load(), Load { in_flight: 2, class: class.min(CLASS_MAX) });
        assert_eq!(slot.is_uneven(), class == 5);
    }
    assert_eq!((slot.in_flight(), slot.checkouts(), slot.is_closed()), (2, 2, false));
    let flags = slot.checkin();
    assert!(flags.has_waiters() && !flags.closed());
    slot.clear_has_waiters();
    slot.close();
    let flags = slot.checkin();
    assert!(!flags.has_waiters() && flags.closed());
    assert_eq!((slot.in_flight(), slot.checkouts(), slot.is_closed()), (0, 2, true));
    assert!(slot.flags().closed());
}

#[test]
fn a_pod_is_idle_and_even_only_without_connections_in_use_and_without_slow_pods() {
    let slot = Slot::default();
    assert!(slot.is_idle_and_even());
    slot.set_uneven(true);
    assert!(!slot.is_idle_and_even(), "another Pod is slow");
    slot.set_uneven(false);
    slot.set_class(2);
    assert!(!slot.is_idle_and_even(), "this Pod is slow");
    slot.set_class(1);
    slot.checkout();
    assert!(!slot.is_idle_and_even(), "a connection is in use");
    slot.checkin();
    assert!(slot.is_idle_and_even());
}

#[test]
fn slots_are_contiguous_and_reset_before_reuse() {
    let mut slab = Slab::default();
    let mut handles: Vec<_> = (0..130).map(|_| slab.take()).collect();
    let numbers: Vec<_> = handles.iter().map(SlotHandle::number).collect();
    assert_eq!(numbers, (0..130).collect::<Vec<_>>());
    handles[7].checkout();
    handles[7].set_latency(Some((Duration::from_millis(3), Duration::from_millis(4))));
    handles[7].set_class(9);
    handles[7].set_uneven(true);
    assert_eq!(slab.slots().slot(7).in_flight(), 1);
    drop(handles.remove(7));
    let again = slab.take();
    assert_eq!(again.number(), 7);
    assert_eq!((again.load(), again.checkouts(), again.is_uneven()), (Load { in_flight: 0, class: 1 }, 0, false));
    assert_eq!((again.latency(), again.peak()), (None, None));
}
