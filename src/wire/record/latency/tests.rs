//! Tests which requests count as latency.

use super::*;

#[test]
fn the_first_requests_of_a_connection_and_pings_do_not_count_as_latency() {
    let record = Record::default();
    record.set_any_pod(true);
    (0..COLD).for_each(|_| record.count_answered(Duration::ZERO, false));
    (0..COLD).for_each(|_| record.count_answered(Duration::from_millis(50), true));
    assert_eq!(
        (record.answered(), record.warm(), record.warm_any()),
        (2 * COLD, Default::default(), Default::default())
    );
    record.count_answered(Duration::from_millis(1), true);
    record.set_any_pod(false);
    record.count_answered(Duration::from_millis(2), true);
    record.count_answered(Duration::ZERO, false);
    assert_eq!(record.answered(), 2 * COLD + 3);
    assert_eq!(record.warm(), (2, Duration::from_millis(3)));
    assert_eq!(record.warm_any(), (1, Duration::from_millis(1)));
}

#[test]
fn requests_of_the_pool_do_not_count() {
    let record = Record::default();
    (0..=COLD).for_each(|_| record.count_answered(Duration::from_millis(1), true));
    let pool_requests = || {
        record.count_answered(Duration::from_secs(1), true);
        record.count_outcome(true);
        (record.answered(), record.warm(), record.failed())
    };
    let before = (COLD + 1, (1, Duration::from_millis(1)), (0, 0));
    record.set_probing(true);
    assert_eq!(pool_requests(), before, "a probe");
    record.set_probing(false);
    record.begin_reset();
    assert_eq!(pool_requests(), before, "a reset");
    record.end_reset();
    assert_ne!(pool_requests(), before);
}
