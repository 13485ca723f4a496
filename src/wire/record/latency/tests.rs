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
