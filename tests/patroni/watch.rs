//! Watches a pool under load during one trial: writes, reads, fences, and the moment at which a new leader accepts
//! writes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use podpool::{Event, Pool, Target, testkit::PatroniCluster};
use tokio::time::sleep;

use crate::{
    common::{
        paced::{Paced, failures},
        until,
    },
    ledger::{Ledger, Written},
};

/// Number of concurrent writers.
const WRITERS: usize = 4;

/// Interval between two reads of the same target.
const PACE: Duration = Duration::from_millis(10);

/// Interval between two attempts to write directly to a Pod.
const POLL: Duration = Duration::from_millis(5);

/// Timeout for a write to be accepted or acknowledged. A leader that was killed is replaced after Patroni's `ttl`.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The number of the first write of the next trial.
static NEXT: AtomicI64 = AtomicI64::new(0);

/// A pool under load.
pub struct Watch {
    pub writes: Ledger,
    reads: [(Target, Paced); 2],
    fences: Fences,
}

/// A server that accepts writes, and the time of the first accepted write.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    pub ordinal: usize,
    pub at: Instant,
}

impl Watch {
    /// Starts writes, reads of any Pod, and reads of this target.
    pub async fn start(pool: &Pool, target: Target) -> Self {
        // Relaxed: the counter orders no other memory access.
        let first = NEXT.fetch_add(10_000_000, Ordering::Relaxed);
        let watch = Self {
            fences: Fences::start(pool),
            reads: [Target::Any, target].map(|target| (target, Paced::every(PACE, pool, target))),
            writes: Ledger::start(pool, WRITERS, first),
        };
        watch.writes.wait_for_acknowledged(100).await;
        watch
    }

    /// Waits for the first write that the pool acknowledges after `accepted`, and returns the time in between.
    pub async fn resumed(&self, accepted: Accepted) -> Duration {
        let first = || self.writes.first_after(accepted.at);
        until(LIMIT, "a write is acknowledged", || first().is_some()).await;
        first().expect("a write is acknowledged") - accepted.at
    }

    /// Waits until the cluster is stable, ends the load, and asserts that no read failed, no acknowledged write is
    /// lost, and no Pod was fenced. Returns the results of the writes.
    pub async fn finish(self, cluster: &PatroniCluster) -> Written {
        let leader = cluster.stable().await.expect("the cluster becomes stable");
        let count = self.writes.acknowledged();
        self.writes.wait_for_acknowledged(count + 100).await;
        let written = self.writes.stop().await;
        for (target, reads) in self.reads {
            assert_eq!(failures(&reads.stop().await), BTreeMap::new(), "failed reads of target {target}");
        }
        assert_eq!(self.fences.list(), Vec::<String>::new(), "fenced Pods");
        let superuser = cluster.client(leader).await.expect("the superuser connects");
        written.assert_consistent(&superuser).await;
        written
    }
}

/// Collects the events about fenced Pods.
pub struct Fences(Arc<Mutex<Vec<String>>>);

impl Fences {
    pub fn start(pool: &Pool) -> Self {
        let (mut events, found) = (pool.events(), Arc::new(Mutex::new(Vec::new())));
        let fences = Arc::clone(&found);
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(event @ Event::EndpointFenced { .. }) => fences.lock().unwrap().push(event.to_string()),
                    Ok(_) => {}
                    Err(lagged) => fences.lock().unwrap().push(lagged.to_string()),
                }
            }
        });
        Self(found)
    }

    /// Returns the text of each event.
    pub fn list(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Tries to write to these Pods directly every 5 ms, and returns the first one that accepts a write.
pub async fn first_accepted(cluster: &PatroniCluster, ordinals: impl IntoIterator<Item = usize>) -> Accepted {
    let attempts = ordinals.into_iter().map(|ordinal| Box::pin(accepted(cluster, ordinal)));
    tokio::time::timeout(LIMIT, select_all(attempts)).await.expect("a Pod accepts writes in time").0
}

async fn accepted(cluster: &PatroniCluster, ordinal: usize) -> Accepted {
    loop {
        if let Ok(client) = cluster.client(ordinal).await {
            while !client.is_closed() {
                if client.batch_execute("INSERT INTO accepted VALUES (1)").await.is_ok() {
                    return Accepted { ordinal, at: Instant::now() };
                }
                sleep(POLL).await;
            }
        }
        sleep(POLL).await;
    }
}
