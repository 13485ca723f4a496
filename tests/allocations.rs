//! How often the hot path asks for memory: exact counts, so they are limits and not measurements.

use std::{hint::black_box, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use podpool::{
    Config, Endpoint, Pool, Target,
    balance::{LeastCost, LeastInFlight, PeakEwma, Policy, Random, RoundRobin},
    bench::Set,
    testkit::Cluster,
};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::NoTls;

const TIMES: u64 = 1_000;

/// How often memory was asked for, by this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

fn picks(policy: impl Policy, n: u32) -> u64 {
    let pods: Vec<_> = (0..n).map(|i| Endpoint::new(((0x0a00_0000 + i).to_be_bytes(), 5432).into())).collect();
    let mut set = Set::new(&pods);
    let picker = set.picker(policy);
    black_box(picker.pick()); // the thread makes its copy
    let alone = allocations(|| (0..TIMES).for_each(|_| assert!(black_box(picker.pick()).is_some())));
    let counted = allocations(|| (0..TIMES).for_each(|_| assert!(black_box(picker.pick_counted()).is_some())));
    set.publish();
    let refreshed = allocations(|| assert!(black_box(picker.pick()).is_some()));
    alone + counted + refreshed
}

#[test]
fn a_pick_allocates_nothing() {
    assert!(allocations(|| drop(black_box(Box::new(1)))) > 0, "the counter counts");
    for n in [1, 3, 20, 100, 1000] {
        assert_eq!(picks(LeastCost::new(), n), 0, "LeastCost, {n} Pods");
        assert_eq!(picks(LeastInFlight::new(), n), 0, "LeastInFlight, {n} Pods");
        assert_eq!(picks(PeakEwma::new(), n), 0, "PeakEwma, {n} Pods");
        assert_eq!(picks(Random::new(), n), 0, "Random, {n} Pods");
        assert_eq!(picks(RoundRobin::new(), n), 0, "RoundRobin, {n} Pods");
    }
}

/// Of as many checkouts one after the other, given back each time. The pool's tasks run on other threads.
fn gets<F: Future<Output = ()>>(runtime: &Runtime, get: impl Fn() -> F) -> u64 {
    let run = || {
        allocations(|| {
            runtime.block_on(async {
                for _ in 0..TIMES {
                    get().await;
                }
            });
        })
    };
    run(); // what is made once is made now
    run()
}

#[test]
fn a_checkout_allocates_no_more_than_that_of_a_bare_deadpool() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let cluster = runtime.block_on(Cluster::builder().pods(3).start()).expect("a cluster");
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let config = cluster.pod_url(0).parse().expect("a URL");
    let manager = Manager::from_config(config, NoTls, manager_config);
    let bare = deadpool_postgres::Pool::builder(manager).build().expect("a pool");
    // No ping comes in between, however long the machine pauses.
    let config: Config = format!("{}&ping_after=1h", cluster.url()).parse().expect("a URL");
    let _entered = runtime.enter();
    let ours = Pool::builder(config).build().expect("a pool");
    runtime.block_on(async {
        ours.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("ready");
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(ours.get().await.expect("a connection"));
        }
    });
    let of_bare = gets(&runtime, || async { drop(bare.get().await.expect("a connection")) });
    let of_ours = gets(&runtime, || async { drop(ours.get().await.expect("a connection")) });
    println!("allocations of {TIMES} checkouts: bare deadpool-postgres {of_bare}, podpool {of_ours}");
    assert!(of_ours <= of_bare, "{of_ours} allocations, a bare deadpool's {of_bare}");
    drop(ours);
    runtime.block_on(cluster.shutdown()).expect("an orderly end");
}
