//! A load of writes that records which Pod acknowledged each of them.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use podpool::{Client, Pool, Target};
use tokio::task::JoinSet;

/// Number of concurrent writers.
const WRITERS: usize = 4;

/// Pause of a writer between two writes.
const PACE: Duration = Duration::from_millis(2);

/// A running load of writes, without reads. Dropping it ends the load.
pub struct Writes {
    acknowledged: Arc<Mutex<Vec<(Instant, IpAddr)>>>,
    _tasks: JoinSet<()>,
}

impl Writes {
    pub fn start(pool: &Pool) -> Self {
        let (acknowledged, mut tasks) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        for _ in 0..WRITERS {
            let (pool, acknowledged) = (pool.clone(), Arc::clone(&acknowledged));
            tasks.spawn(async move {
                loop {
                    let work = |client: Client| async move {
                        client.simple_query("INSERT INTO ledger VALUES (-1)").await?;
                        Ok::<_, podpool::tokio_postgres::Error>(client.endpoint().address().tcp().unwrap().ip())
                    };
                    // A write may fail while no Pod accepts writes.
                    if let Ok(address) = pool.retry_unapplied(Target::Primary, work).await {
                        acknowledged.lock().unwrap().push((Instant::now(), address));
                    }
                    tokio::time::sleep(PACE).await;
                }
            });
        }
        Self { acknowledged, _tasks: tasks }
    }

    /// Returns the time of the first write after `moment` that this Pod acknowledged.
    pub fn first_after(&self, moment: Instant, address: IpAddr) -> Option<Instant> {
        let acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.iter().filter(|(at, pod)| *pod == address && *at > moment).map(|(at, _)| *at).min()
    }

    /// Returns the times of the writes after `moment` that this Pod acknowledged.
    pub fn after(&self, moment: Instant, address: IpAddr) -> Vec<Instant> {
        let acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.iter().filter(|(at, pod)| *pod == address && *at > moment).map(|(at, _)| *at).collect()
    }

    /// Returns the longest time without an acknowledged write in this period.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let acknowledged = self.acknowledged.lock().unwrap();
        longest_gap(from, acknowledged.iter().map(|(at, _)| *at), to)
    }
}

/// Returns the longest time between two of these moments, `from` and `to` included, in this period.
pub fn longest_gap(from: Instant, moments: impl Iterator<Item = Instant>, to: Instant) -> Duration {
    let within = moments.filter(|at| (from..to).contains(at));
    let mut times: Vec<_> = within.chain([from, to]).collect();
    times.sort();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}
