//! Tests that a client that does not run in time, because it is stopped, blocked or starved of CPU, does not blame its
//! Pods.

use std::{
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use podpool::{
    Pool, State, Target,
    testkit::{self, Cluster},
};
use tokio::{
    runtime::{Builder, Runtime},
    time::sleep,
};

mod common;
use common::{client_process::ClientProcess, ejections::ejections, in_state, trials, until};

/// Time for which a client process has little CPU time.
const STARVED: Duration = Duration::from_secs(20);

/// Reads on a pool of three Pods, and what has gone wrong.
#[derive(Clone, Default)]
struct Reads {
    succeeded: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    ejections: Arc<Mutex<Vec<String>>>,
}

impl Reads {
    /// Starts four tasks that read until the runtime ends.
    async fn start(url: &str) -> Self {
        let pool = Pool::connect(url).await.expect("the pool is created");
        until(Duration::from_secs(20), "all Pods serve", || in_state(&pool, State::Healthy) == 3).await;
        let reads = Self { ejections: ejections(&pool), ..Self::default() };
        for _ in 0..4 {
            tokio::spawn(reads.clone().run(pool.clone()));
        }
        reads
    }

    async fn run(self, pool: Pool) {
        loop {
            let work = |client: podpool::Client| async move { client.query_one("SELECT 1", &[]).await.map(drop) };
            match pool.retry(Target::Any, work).await {
                Ok(()) => drop(self.succeeded.fetch_add(1, Ordering::Relaxed)),
                Err(error) => self.failures.lock().unwrap().push(format!("{error:?}")),
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Prints the results for the test.
    fn report(&self) {
        let (ejections, failures) = (self.ejections.lock().unwrap().clone(), self.failures.lock().unwrap().clone());
        println!(
            "reading: result {} ejections, {} failed reads, {} reads; {ejections:?} {failures:?}",
            ejections.len(),
            failures.len(),
            self.succeeded.load(Ordering::Relaxed)
        );
    }
}

fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().expect("the runtime starts")
}

/// Stops a client process (SIGSTOP) for 3 s, and blocks the only thread of its runtime for 1.5 s, while it reads.
#[test]
fn no_pod_is_ejected_after_a_pause_of_the_client() {
    if let Some(argument) = ClientProcess::argument() {
        return read_until_paused(&argument);
    }
    let runtime = multi_thread(1);
    let cluster = runtime.block_on(Cluster::start(3)).expect("the cluster starts");
    for workers in ["0", "2"] {
        let argument = format!("{workers} {}", cluster.url());
        let mut client = ClientProcess::start("no_pod_is_ejected_after_a_pause_of_the_client", &argument);
        client.next("reading: started");
        let (mut noticed, mut unnoticed) = (0, 0);
        while noticed < trials::count(3) {
            client.signal("STOP");
            thread::sleep(Duration::from_secs(3));
            client.signal("CONT");
            match client.next_within(Duration::from_secs(10), "reading: paused") {
                Some(_) => noticed += 1,
                // Another process may have continued the client earlier.
                None => unnoticed += 1,
            }
            assert!(unnoticed < 3, "the client has not noticed {unnoticed} of {} pauses", noticed + unnoticed);
            thread::sleep(Duration::from_secs(1)); // the pauses are separate faults
        }
        let result = client.next("reading: result ");
        println!("{workers} workers: {result}");
        assert!(result.starts_with("0 ejections, 0 failed reads"), "{result}");
    }
    runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
}

/// Limits a client process to a tenth of a CPU for 20 s while it reads.
#[test]
fn no_pod_is_ejected_while_the_client_lacks_cpu_time() {
    if let Some(argument) = ClientProcess::argument() {
        return read_until_starved(&argument);
    }
    let runtime = multi_thread(1);
    let cluster = runtime.block_on(Cluster::start(3)).expect("the cluster starts");
    for _ in 0..trials::count(1) {
        let mut client = ClientProcess::start("no_pod_is_ejected_while_the_client_lacks_cpu_time", &cluster.url());
        client.next("reading: started");
        match testkit::limit_cpu(client.id(), 0.1) {
            Ok(limit) => {
                thread::sleep(STARVED);
                drop(limit);
                let result = client.next("reading: result ");
                println!("a tenth of a CPU for 20 s: {result}");
                assert!(result.starts_with("0 ejections, 0 failed reads"), "{result}");
            }
            Err(error) => {
                assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "no CPU quota: {error}");
                println!("skipped: no CPU quota: {error}");
                break;
            }
        }
    }
    runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
}

/// Runs in the process that is stopped. Reads until it has been stopped three times (or `PODPOOL_TRIALS` times), then
/// blocks its runtime twelve times (or twelve times per trial) if it has a single thread, and prints the result.
fn read_until_paused(argument: &str) {
    let (workers, url) = argument.split_once(' ').expect("the number of workers and the URL");
    let runtime = match workers {
        "0" => Builder::new_current_thread().enable_all().build().expect("the runtime starts"),
        _ => multi_thread(2),
    };
    let blocks = if workers == "0" { 12 * trials::count(1) } else { 0 };
    runtime.block_on(async {
        let reads = Reads::start(url).await;
        println!("reading: started");
        let (mut pauses, mut last) = (0, Instant::now());
        while pauses < trials::count(3) {
            sleep(Duration::from_millis(10)).await;
            // One reading of the clock, because the process may be stopped between two.
            let now = Instant::now();
            if now - last > Duration::from_secs(2) {
                pauses += 1;
                println!("reading: paused");
            }
            last = now;
        }
        for _ in 0..blocks {
            thread::sleep(Duration::from_millis(1500));
            sleep(Duration::from_millis(300)).await;
        }
        // Longer than the timeout of a probe that was sent before the last pause.
        sleep(Duration::from_secs(3)).await;
        reads.report();
    });
}

/// Runs in the process whose CPU time is limited. Reads until after the limit has been lifted, and prints the result.
fn read_until_starved(url: &str) {
    multi_thread(2).block_on(async {
        let reads = Reads::start(url).await;
        println!("reading: started");
        sleep(STARVED + Duration::from_secs(5)).await;
        reads.report();
    });
}
