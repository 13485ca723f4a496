//! Measuring in turns: a round measures every case once, so that what the machine does meanwhile hits all of them.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

/// Rounds, the median of which counts.
const ROUNDS: usize = 15;
/// How long one case is measured in one round, about.
const WINDOW: Duration = Duration::from_millis(60);

/// Does its work this many times on each of its threads or tasks, and says how long that took.
type Run = Box<dyn FnMut(u64) -> Duration>;

/// One thing to measure.
pub struct Case {
    pub name: &'static str,
    run: Run,
}

impl Case {
    /// Work for `threads` threads of its own.
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
        Self { name, run: Box::new(run) }
    }

    /// Work for `tasks` tasks of a runtime.
    pub fn on_tasks<F, Fut>(name: &'static str, runtime: &'static Runtime, tasks: u64, work: F) -> Self
    where
        F: Fn() -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let run = move |times: u64| {
            runtime.block_on(async {
                let began = Instant::now();
                let tasks: Vec<_> = (0..tasks)
                    .map(|_| {
                        let work = work.clone();
                        tokio::spawn(async move {
                            for _ in 0..times {
                                work().await;
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("no panic");
                }
                began.elapsed()
            })
        };
        Self { name, run: Box::new(run) }
    }
}

/// Nanoseconds of one piece of work of each case, on each of its threads or tasks: the median over the rounds.
pub fn measure(cases: &mut [Case]) -> Vec<f64> {
    let times: Vec<u64> = cases.iter_mut().map(|case| enough(&mut case.run)).collect();
    let mut readings = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..ROUNDS {
        for ((case, times), readings) in cases.iter_mut().zip(&times).zip(&mut readings) {
            readings.push((case.run)(*times).as_nanos() as f64 / *times as f64);
        }
    }
    readings.into_iter().map(median).collect()
}

/// How many times fill a window.
fn enough(run: &mut Run) -> u64 {
    let mut times = 1;
    loop {
        let took = run(times);
        if took * 4 >= WINDOW {
            let fill = WINDOW.as_secs_f64() / took.as_secs_f64();
            return ((times as f64 * fill) as u64).max(1);
        }
        times *= 2;
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
