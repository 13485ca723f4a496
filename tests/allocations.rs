//! Tests that checking out a connection allocates no memory, with or without telemetry.

use std::time::Duration;

use metrics_util::debugging::DebuggingRecorder;
use podpool::{Config, Event, Observer, Pool, Target, testkit::Cluster};
use tokio::runtime::Builder;

const CHECKOUTS: u64 = 1_000;

/// An observer that ignores every event.
struct Ignore;

impl Observer for Ignore {
    fn event(&mut self, _: &Event) {}
}

/// Returns how many times this thread allocates during [`CHECKOUTS`] checkouts from a warm pool. Takes the minimum of
/// five rounds, because a round may include a connection ping or the first read of a new snapshot, which may allocate.
fn allocations(pool: &Pool) -> u64 {
    let caller = Builder::new_current_thread().build().expect("the runtime starts");
    let round = || {
        let work = || {
            caller.block_on(async {
                for _ in 0..CHECKOUTS {
                    drop(pool.get().await.expect("checkout succeeds"));
                }
            });
        };
        allocation_counter::measure(work).count_total
    };
    (0..5).map(|_| round()).min().expect("five rounds")
}

#[test]
fn checkout_does_not_allocate_with_or_without_telemetry() {
    // The pool's tasks run on another thread, so their allocations are not counted.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("the runtime starts");
    let cluster = runtime.block_on(Cluster::start(2)).expect("the cluster starts");
    let pool = |observed: bool| {
        let config: Config = cluster.url().parse().expect("the URL parses");
        let builder = Pool::builder(config).runtime(runtime.handle().clone());
        let pool =
            if observed { builder.observer(Ignore).build() } else { builder.build() }.expect("the pool is created");
        runtime.block_on(pool.wait_ready(Target::Any, Duration::from_secs(10))).expect("a Pod becomes ready");
        pool
    };
    let without = allocations(&pool(false));
    DebuggingRecorder::new().install().expect("no other recorder is installed");
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::sink).init();
    let with = allocations(&pool(true));
    println!("allocations in {CHECKOUTS} checkouts: {without} without telemetry, {with} with telemetry");
    assert_eq!((without, with), (0, 0));
    runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
}
