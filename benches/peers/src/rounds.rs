//! Measuring in turns: a round measures every case once, so that what the machine does meanwhile hits all of them. Each
//! round has another order: what a case leaves behind hits now this one, now that one.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

/// Rounds before that, for nothing: until what was made last has come to rest, and each case knows its window.
const WARM_UP: usize = 3;
/// Rounds, the median of which counts.
const ROUNDS: usize = 15;
/// How long a case of so many pieces is measured in one round, about.
const WINDOW: Duration = Duration::from_millis(60);
/// How long a case is measured in one round that goes on for a while. Longer, because callers and servers on the same
/// processors need some time to find their step after the case before.
const WHILE: Duration = Duration::from_millis(400);

/// More than there are cases.
const PRIME: usize = 13;

/// One thing to measure.
pub struct Case {
    pub name: &'static str,
    /// Nanoseconds of one piece of work, on each of its threads or tasks.
    reading: Box<dyn FnMut() -> f64>,
}

impl Case {
    /// So many pieces of work on each of `threads` threads of its own.
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
                others.into_iter().map(|other| other.join().expect("no panic")).fold(mine, Duration::max)
            })
        };
        Self::counted(name, run)
    }

    /// So many pieces of work in each of `tasks` tasks of a runtime.
    pub fn on_tasks<F, Fut>(name: &'static str, runtime: &'static Runtime, tasks: u64, work: F) -> Self
    where
        F: Fn() -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let run = move |times: u64| {
            let began = Instant::now();
            together(runtime, tasks, &work, move |done| done < times);
            began.elapsed()
        };
        Self::counted(name, run)
    }

    /// As much work as `tasks` tasks of a runtime do in a while.
    pub fn for_a_while<F, Fut>(name: &'static str, runtime: &'static Runtime, tasks: u64, work: F) -> Self
    where
        F: Fn() -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let reading = move || {
            let began = Instant::now();
            let done = together(runtime, tasks, &work, move |_| began.elapsed() < WHILE);
            began.elapsed().as_nanos() as f64 * tasks as f64 / done as f64
        };
        Self { name, reading: Box::new(reading) }
    }

    fn counted(name: &'static str, mut run: impl FnMut(u64) -> Duration + 'static) -> Self {
        let mut times = 1;
        let reading = move || {
            let each = run(times).as_nanos() as f64 / times as f64;
            // Next time as many as fill the window at this rate, whatever held this one up.
            times = ((WINDOW.as_nanos() as f64 / each.max(1.0)) as u64).max(1);
            each
        };
        Self { name, reading: Box::new(reading) }
    }
}

/// Does work in several tasks, each for as long as it is to go on after so many pieces. Says how many all have done.
fn together<F, Fut>(runtime: &Runtime, tasks: u64, work: &F, go_on: impl Fn(u64) -> bool + Copy + Send + 'static) -> u64
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let task = |work: F| async move {
        let mut done = 0;
        while go_on(done) {
            work().await;
            done += 1;
        }
        done
    };
    runtime.block_on(async {
        let tasks: Vec<_> = (0..tasks).map(|_| tokio::spawn(task(work.clone()))).collect();
        let mut all = 0;
        for task in tasks {
            all += task.await.expect("no panic");
        }
        all
    })
}

/// Nanoseconds of one piece of work of each case, on each of its threads or tasks: the median over the rounds.
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

/// The numbers below `len` in an order in which each follows another one than in the [`PRIME`] - 2 rounds before.
fn order(round: usize, len: usize) -> impl Iterator<Item = usize> {
    assert!(len < PRIME, "fewer than {PRIME} cases, not {len}");
    let stride = 1 + round % (PRIME - 1);
    (1..PRIME).map(move |place| place * stride % PRIME - 1).filter(move |number| *number < len)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
