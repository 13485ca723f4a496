//! Measures several cases in rounds. Each round measures every case once, so that a disturbance on the machine affects
//! all cases. The order of the cases changes with each round. Otherwise, each case would always run right after the
//! same other case, whose after-effects would distort its result.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

/// Number of warm-up rounds, whose results are discarded. They let the machine reach a steady state, and determine for
/// each counted case the number of iterations that fills [`WINDOW`].
const WARM_UP: usize = 3;
/// Number of measured rounds. The median of their results is reported.
const ROUNDS: usize = 15;
/// Approximate duration of a counted case in one round.
const WINDOW: Duration = Duration::from_millis(60);
/// Duration of a timed case in one round. Longer than [`WINDOW`], because callers and servers on the same processors
/// need some time to reach a steady state after the previous case.
const TIMED_WINDOW: Duration = Duration::from_millis(400);

/// A prime greater than the number of cases. [`order`] uses it as the modulus.
const PRIME: usize = 13;

/// A case to measure. A counted case runs a given number of iterations, a timed case runs for a fixed time.
pub struct Case {
    pub name: &'static str,
    /// Runs the case and returns the nanoseconds per iteration on each of its threads or tasks.
    reading: Box<dyn FnMut() -> f64>,
}

impl Case {
    /// Returns a counted case whose work runs on `threads` new threads.
    pub fn on_threads(name: &'static str, threads: usize, work: impl Fn() + Sync + 'static) -> Self {
        let run = move |times: u64| {
            let barrier = Barrier::new(threads);
            let one = || {
                work();
                barrier.wait();
                let began = Instant::now();
                (0..times).for_each(|_| work());
                began.elapsed()
            };
            thread::scope(|scope| {
                let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
                let mine = one();
                others.into_iter().map(|other| other.join().expect("no thread panicked")).fold(mine, Duration::max)
            })
        };
        Self::counted(name, run)
    }

    /// Returns a counted case whose work runs in `tasks` tasks of a runtime.
    pub fn on_tasks<F, Fut>(name: &'static str, runtime: &'static Runtime, tasks: u64, work: F) -> Self
    where
        F: Fn() -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let run = move |times: u64| {
            let began = Instant::now();
            run_tasks(runtime, tasks, &work, move |done| done < times);
            began.elapsed()
        };
        Self::counted(name, run)
    }

    /// Returns a timed case whose work runs in `tasks` tasks of a runtime.
    pub fn timed<F, Fut>(name: &'static str, runtime: &'static Runtime, tasks: u64, work: F) -> Self
    where
        F: Fn() -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let reading = move || {
            let began = Instant::now();
            let done = run_tasks(runtime, tasks, &work, move |_| began.elapsed() < TIMED_WINDOW);
            began.elapsed().as_nanos() as f64 * tasks as f64 / done as f64
        };
        Self { name, reading: Box::new(reading) }
    }

    fn counted(name: &'static str, mut run: impl FnMut(u64) -> Duration + 'static) -> Self {
        let mut times = 1;
        let reading = move || {
            let each = run(times).as_nanos() as f64 / times as f64;
            // Choose the number of iterations for the next round so that, at the measured speed, they take `WINDOW`.
            times = ((WINDOW.as_nanos() as f64 / each.max(1.0)) as u64).max(1);
            each
        };
        Self { name, reading: Box::new(reading) }
    }
}

/// Repeats the work in `tasks` concurrent tasks. Before each iteration, a task passes its number of completed
/// iterations to `proceed`, and stops if `proceed` returns false. Returns the total number of iterations of all tasks.
fn run_tasks<F, Fut>(
    runtime: &Runtime,
    tasks: u64,
    work: &F,
    proceed: impl Fn(u64) -> bool + Copy + Send + 'static,
) -> u64
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let task = |work: F| async move {
        let mut done = 0;
        while proceed(done) {
            work().await;
            done += 1;
        }
        done
    };
    runtime.block_on(async {
        let tasks: Vec<_> = (0..tasks).map(|_| tokio::spawn(task(work.clone()))).collect();
        let mut all = 0;
        for task in tasks {
            all += task.await.expect("no task panicked");
        }
        all
    })
}

/// Measures every case in every round. Returns the median reading of each case, in nanoseconds per iteration on each of
/// its threads or tasks.
pub fn measure(cases: &mut [Case]) -> Vec<f64> {
    let mut readings = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..WARM_UP {
        for case in &mut *cases {
            (case.reading)();
        }
    }
    for round in 0..ROUNDS {
        for case in order(round, cases.len()) {
            readings[case].push((cases[case].reading)());
        }
    }
    readings.into_iter().map(median).collect()
}

/// Returns the numbers below `len` in an order that depends on the round: the multiples of the round's stride, modulo
/// [`PRIME`]. Consecutive rounds have different strides, so a case rarely follows the same other case as in a recent
/// round.
fn order(round: usize, len: usize) -> impl Iterator<Item = usize> {
    assert!(len < PRIME, "expected fewer than {PRIME} cases, got {len}");
    let stride = 1 + round % (PRIME - 1);
    (1..PRIME).map(move |place| place * stride % PRIME - 1).filter(move |number| *number < len)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
