//! A load at a steady pace, whatever becomes of the requests before, and a record of every request.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use podpool::{Client, Pool, Target};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

/// Between two requests: 500 a second.
pub const PACE: Duration = Duration::from_millis(2);

/// What every request does: about a millisecond.
const STATEMENT: &str = "SELECT pg_sleep(0.001)";

/// A load that runs until it is stopped.
pub struct Paced {
    stop: oneshot::Sender<()>,
    ticker: JoinHandle<()>,
    done: Arc<Mutex<Vec<Request>>>,
}

/// One request, from the moment it was made.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it was made.
    pub made: Instant,
    /// Every connection it was given.
    pub tries: Vec<Try>,
    /// When it was answered, or failed.
    pub done: Instant,
    /// The error's text, if it failed.
    pub failure: Option<String>,
}

/// One connection that a request was given.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// When it was given.
    pub got: Instant,
    /// Whose it is.
    pub address: IpAddr,
}

impl Paced {
    /// Starts 500 requests a second through `retry`.
    pub fn start(pool: &Pool, target: Target) -> Self {
        Self::every(PACE, pool, target)
    }

    /// Starts a request every so often through `retry`.
    pub fn every(pace: Duration, pool: &Pool, target: Target) -> Self {
        let done = Arc::new(Mutex::new(Vec::new()));
        let (stop, mut stopped) = oneshot::channel();
        let ticker = tokio::spawn({
            let (pool, done) = (pool.clone(), done.clone());
            async move {
                let mut requests = JoinSet::new();
                let mut ticks = interval(pace);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        _ = &mut stopped => break,
                        _ = ticks.tick() => {}
                    }
                    let (pool, done) = (pool.clone(), done.clone());
                    requests.spawn(async move {
                        let request = request(&pool, target).await;
                        done.lock().unwrap().push(request);
                    });
                    while let Some(ended) = requests.try_join_next() {
                        ended.expect("a request does not panic");
                    }
                }
                while let Some(ended) = requests.join_next().await {
                    ended.expect("a request does not panic");
                }
            }
        });
        Self { stop, ticker, done }
    }

    /// Whether a request that was made since then was answered by this Pod.
    pub fn answered_since(&self, address: IpAddr, since: Instant) -> bool {
        self.done.lock().unwrap().iter().rev().any(|request| request.made > since && request.answered_by(address))
    }

    /// How many requests are done.
    pub fn count(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    /// Stops it, when every request is done. In the order in which they were made.
    pub async fn stop(self) -> Vec<Request> {
        let _ = self.stop.send(()); // a ticker that is gone shows below
        self.ticker.await.expect("the load does not panic");
        let mut done = std::mem::take(&mut *self.done.lock().unwrap());
        done.sort_by_key(|request| request.made);
        done
    }
}

async fn request(pool: &Pool, target: Target) -> Request {
    let made = Instant::now();
    let tries = Mutex::new(Vec::new());
    let work = |client: Client| {
        tries.lock().unwrap().push(Try { got: Instant::now(), address: client.endpoint().address().ip() });
        async move { client.simple_query(STATEMENT).await }
    };
    let failure = pool.retry(target, work).await.err().map(|error| format!("{error:?}"));
    let done = Instant::now();
    Request { made, tries: tries.into_inner().unwrap(), done, failure }
}

impl Request {
    /// Whether this Pod gave the answer.
    pub fn answered_by(&self, address: IpAddr) -> bool {
        self.failure.is_none() && self.tries.last().is_some_and(|last| last.address == address)
    }

    /// How long it took to get the first connection, if it got one.
    pub fn checkout(&self) -> Option<Duration> {
        self.tries.first().map(|first| first.got - self.made)
    }

    /// How long it took altogether.
    pub fn took(&self) -> Duration {
        self.done - self.made
    }
}

/// The texts of the failures, each with how often it came.
pub fn failures(requests: &[Request]) -> BTreeMap<&str, usize> {
    let mut texts = BTreeMap::new();
    for failure in requests.iter().filter_map(|request| request.failure.as_deref()) {
        *texts.entry(failure).or_default() += 1;
    }
    texts
}

/// Durations, sorted.
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Of these.
    pub fn new(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<_> = durations.into_iter().collect();
        sorted.sort();
        Self(sorted)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest of them that this share of them does not pass: 0.95 is the 95th percentile.
    pub fn at(&self, share: f64) -> Duration {
        let place = (self.0.len() as f64 * share).ceil() as usize;
        self.0[place.clamp(1, self.0.len()) - 1]
    }
}

/// All of them where they are few, else the percentiles that matter.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: &Duration| format!("{:.1}", duration.as_secs_f64() * 1e3);
        if self.0.len() <= 50 {
            let all: Vec<_> = self.0.iter().map(ms).collect();
            return write!(f, "{} ms", all.join(" "));
        }
        write!(f, "{} of them", self.0.len())?;
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("most", 1.0)] {
            write!(f, ", {name} {} ms", ms(&self.at(share)))?;
        }
        Ok(())
    }
}
