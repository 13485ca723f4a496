//! Tests that the balancing policies pick a Pod without allocating memory.

use std::hint::black_box;

use podpool::{
    Endpoint,
    balance::{LeastCost, LeastInFlight, PeakEwma, Policy, Random, RoundRobin},
    bench::Set,
};

const TIMES: u64 = 1_000;

/// Returns how many times this thread allocates while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

/// Returns the total number of allocations of [`TIMES`] picks, [`TIMES`] picks with in-flight counting, and one pick
/// after a new snapshot is published.
fn picks(policy: impl Policy, n: u32) -> u64 {
    let pods: Vec<_> = (0..n).map(|i| Endpoint::new(((0x0a00_0000 + i).to_be_bytes(), 5432).into())).collect();
    let mut set = Set::new(&pods);
    let picker = set.picker(policy);
    black_box(picker.pick()); // fills the thread's snapshot cache
    let alone = allocations(|| (0..TIMES).for_each(|_| assert!(black_box(picker.pick()).is_some())));
    let counted = allocations(|| (0..TIMES).for_each(|_| assert!(black_box(picker.pick_counted()).is_some())));
    set.publish();
    let refreshed = allocations(|| assert!(black_box(picker.pick()).is_some()));
    alone + counted + refreshed
}

#[test]
fn picking_a_pod_does_not_allocate() {
    assert!(allocations(|| drop(black_box(Box::new(1)))) > 0, "the allocation counter does not work");
    for n in [1, 3, 20, 100, 1000] {
        assert_eq!(picks(LeastCost::new(), n), 0, "LeastCost, {n} Pods");
        assert_eq!(picks(LeastInFlight::new(), n), 0, "LeastInFlight, {n} Pods");
        assert_eq!(picks(PeakEwma::new(), n), 0, "PeakEwma, {n} Pods");
        assert_eq!(picks(Random::new(), n), 0, "Random, {n} Pods");
        assert_eq!(picks(RoundRobin::new(), n), 0, "RoundRobin, {n} Pods");
    }
}
