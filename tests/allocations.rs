//! What a checkout allocates, while nobody listens and while everybody does.

use std::time::Duration;

use metrics_util::debugging::DebuggingRecorder;
use podpool::{Config, Event, Observer, Pool, Target, testkit::Cluster};
use tokio::runtime::Builder;

const CHECKOUTS: u64 = 1_000;

struct Deaf;

impl Observer for Deaf {
    fn event(&mut self, _: &Event) {}
}

/// Allocations of this thread in so many warm checkouts: the least of five rounds, as a round may meet a connection
/// that wants a ping, or the first look at a new snapshot.
fn allocations(pool: &Pool) -> u64 {
    let caller = Builder::new_current_thread().build().expect("a runtime");
    let round = || {
        let work = || {
            caller.block_on(async {
                for _ in 0..CHECKOUTS {
                    drop(pool.get().await.expect("a connection"));
                }
            });
        };
        allocation_counter::measure(work).count_total
    };
    (0..5).map(|_| round()).min().expect("five rounds")
}

#[test]
fn who_listens_costs_a_checkout_no_allocation() {
    // The pool's own tasks are on other threads, and their allocations are not counted.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let cluster = runtime.block_on(Cluster::start(2)).expect("a cluster");
    let pool = |observed: bool| {
        let config: Config = cluster.url().parse().expect("a URL");
        let builder = Pool::builder(config).runtime(runtime.handle().clone());
        let pool = if observed { builder.observer(Deaf).build() } else { builder.build() }.expect("a pool");
        runtime.block_on(pool.wait_ready(Target::Any, Duration::from_secs(10))).expect("ready");
        pool
    };
    let nobody = allocations(&pool(false));
    DebuggingRecorder::new().install().expect("the first recorder");
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::sink).init();
    let everybody = allocations(&pool(true));
    println!("allocations in {CHECKOUTS} checkouts: {nobody} while nobody listens, {everybody} while everybody does");
    assert_eq!((nobody, everybody), (0, 0));
    runtime.block_on(cluster.shutdown()).expect("an orderly end");
}
