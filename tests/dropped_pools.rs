//! Tests that dropped pools leak no tasks, file descriptors or memory, even on threads that have cached the Pod list of
//! a dropped pool.

use std::{
    alloc::System,
    fs,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use podpool::{Config, Pool, Target, testkit::Cluster};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::{Builder, Handle};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const POOLS: usize = 100;
const THREADS: usize = 4;

/// Heap memory, tasks and file descriptors of the process.
#[derive(Clone, Copy, Debug)]
struct Usage {
    bytes: isize,
    tasks: usize,
    descriptors: usize,
}

fn usage(runtime: &Handle) -> Usage {
    let stats = ALLOCATOR.stats();
    // Both byte counts include reallocations.
    let bytes = stats.bytes_allocated as isize - stats.bytes_deallocated as isize;
    let descriptors = fs::read_dir("/proc/self/fd").expect("the descriptors are listed").count();
    Usage { bytes, tasks: runtime.metrics().num_alive_tasks(), descriptors }
}

fn build(url: &str, runtime: &Handle) -> Pool {
    let config: Config = format!("{url}&pool_size=2&min_idle=0").parse().expect("the URL parses");
    Pool::builder(config).runtime(runtime.clone()).build().expect("the pool is created")
}

/// Starts a thread that checks out one connection from each pool it receives, and acknowledges each.
fn worker(runtime: Handle) -> (mpsc::Sender<Pool>, mpsc::Receiver<()>) {
    let (pools, requests) = mpsc::channel::<Pool>();
    let (done, acknowledgements) = mpsc::channel();
    thread::spawn(move || {
        for pool in requests {
            runtime.block_on(async {
                drop(pool.get_for(Target::Any).await.expect("checkout succeeds"));
            });
            drop(pool);
            if done.send(()).is_err() {
                return;
            }
        }
    });
    (pools, acknowledgements)
}

#[test]
fn dropped_pools_leak_no_tasks_descriptors_or_memory() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("the runtime starts");
    let cluster = runtime.block_on(Cluster::start(1)).expect("the cluster starts");
    let kept = build(&cluster.url(), runtime.handle());
    runtime.block_on(kept.wait_ready(Target::Any, Duration::from_secs(20))).expect("the pool is ready");
    let workers: Vec<_> = (0..THREADS).map(|_| worker(runtime.handle().clone())).collect();
    let everywhere = |pool: &Pool| {
        for (pools, acknowledgements) in &workers {
            pools.send(pool.clone()).expect("the worker runs");
            acknowledgements.recv_timeout(Duration::from_secs(30)).expect("the worker checks out a connection");
        }
    };
    let one_more = || {
        let pool = build(&cluster.url(), runtime.handle());
        everywhere(&pool);
    };
    // The first pools are not measured, because they grow buffers that stay allocated, such as those of the runtime.
    for _ in 0..10 {
        one_more();
    }
    // Waits until the usage fulfils `is_settled`, for at most 30 s. Returns the last usage.
    let settle = |is_settled: &mut dyn FnMut(Usage) -> bool| {
        // Each thread caches the Pod list of the pool that it used last. A checkout from another pool releases the
        // cached list.
        everywhere(&kept);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let now = usage(runtime.handle());
            if is_settled(now) || Instant::now() > deadline {
                return now;
            }
            thread::sleep(Duration::from_millis(50));
        }
    };
    // The baseline is the usage once no task has started or ended for 2 s, which is longer than every interval of the
    // pool that is kept.
    let (mut last, mut unchanged) = (None, 0);
    let before = settle(&mut |now: Usage| {
        unchanged = if last == Some((now.tasks, now.descriptors)) { unchanged + 1 } else { 0 };
        last = Some((now.tasks, now.descriptors));
        unchanged == 40
    });
    for _ in 0..POOLS {
        one_more();
    }
    let after = settle(&mut |now: Usage| {
        now.tasks == before.tasks && now.descriptors <= before.descriptors && now.bytes <= before.bytes + 65_536
    });
    println!("before {before:?}, after {POOLS} pools on {THREADS} threads {after:?}");
    assert_eq!(after.tasks, before.tasks, "tasks of dropped pools are still alive");
    assert!(after.descriptors <= before.descriptors, "descriptors leaked: {before:?} {after:?}");
    // A pool with its Pod, resolver and certificates occupies several hundred kilobytes, so even one leaked pool
    // exceeds this limit.
    assert!(after.bytes <= before.bytes + 65_536, "memory leaked: {before:?} {after:?}");
    drop(kept);
    runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
}
