//! An open-loop load generator: starts requests at a fixed rate, whether or not earlier ones have completed, and
//! records each of them. With the environment variable `PODPOOL_SHARED`, the requests run on shared connections.

use std::{
    collections::BTreeMap,
    env, fmt,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use podpool::{Address, Client, Pool, Target};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

/// Default interval between requests: 500 requests per second.
pub const PACE: Duration = Duration::from_millis(2);

/// Statement that each request runs. It takes about one millisecond.
const STATEMENT: &str = "SELECT pg_sleep(0.001)";

/// A running load. Call [`stop`](Self::stop) to end it.
pub struct Paced {
    stop: oneshot::Sender<()>,
    ticker: JoinHandle<()>,
    done: Arc<Mutex<Vec<Request>>>,
}

/// The record of one request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Time at which the request started.
    pub started: Instant,
    /// Connections that the request checked out, in order. More than one means that the request was retried.
    pub attempts: Vec<Attempt>,
    /// Time at which the request succeeded or failed.
    pub done: Instant,
    /// Error text if the request failed.
    pub failure: Option<String>,
}

/// A connection that a request checked out.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Time of the checkout. On a shared connection, the time of the response instead.
    pub checked_out: Instant,
    /// Address of the Pod.
    pub address: IpAddr,
}

impl Paced {
    /// Starts a load of 500 requests per second through `Pool::retry`.
    pub fn start(pool: &Pool, target: Target) -> Self {
        Self::every(PACE, pool, target)
    }

    /// Starts a load of one request every `pace` through `Pool::retry`.
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

    /// Returns true if this Pod answered a request that started after `since`.
    pub fn answered_since(&self, address: IpAddr, since: Instant) -> bool {
        self.done.lock().unwrap().iter().rev().any(|request| request.started > since && request.answered_by(address))
    }

    /// Returns the number of completed requests.
    pub fn count(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    /// Stops the load, waits for the requests in flight, and returns all requests, sorted by start time.
    pub async fn stop(self) -> Vec<Request> {
        let _ = self.stop.send(()); // sending fails if the ticker panicked; the next line reports that
        self.ticker.await.expect("the load task does not panic");
        let mut done = std::mem::take(&mut *self.done.lock().unwrap());
        done.sort_by_key(|request| request.started);
        done
    }
}

async fn request(pool: &Pool, target: Target) -> Request {
    let started = Instant::now();
    if env::var_os("PODPOOL_SHARED").is_some() {
        let result = pool.shared(target).repeatable().send(STATEMENT, &[]).await;
        let done = Instant::now();
        let attempt = |address: &Address| Attempt { checked_out: done, address: address.tcp().unwrap().ip() };
        let failed = |failed: &[podpool::Attempt]| failed.iter().map(|one| attempt(one.address())).collect::<Vec<_>>();
        let (mut attempts, failure) = match &result {
            Ok(response) => (failed(&response.attempts), None),
            Err(error) => (failed(error.attempts()), Some(format!("{error:?}"))),
        };
        attempts.extend(result.ok().map(|response| attempt(response.endpoint.address())));
        return Request { started, attempts, done, failure };
    }
    let attempts = Mutex::new(Vec::new());
    let work = |client: Client| {
        let attempt = Attempt { checked_out: Instant::now(), address: client.endpoint().address().tcp().unwrap().ip() };
        attempts.lock().unwrap().push(attempt);
        async move { client.simple_query(STATEMENT).await }
    };
    let failure = pool.retry(target, work).await.err().map(|error| format!("{error:?}"));
    let done = Instant::now();
    Request { started, attempts: attempts.into_inner().unwrap(), done, failure }
}

impl Request {
    /// Returns true if the request succeeded on this Pod.
    pub fn answered_by(&self, address: IpAddr) -> bool {
        self.failure.is_none() && self.attempts.last().is_some_and(|last| last.address == address)
    }

    /// Returns the duration of the first checkout, or `None` if no checkout succeeded.
    pub fn checkout(&self) -> Option<Duration> {
        self.attempts.first().map(|first| first.checked_out - self.started)
    }

    /// Returns the duration of the whole request.
    pub fn took(&self) -> Duration {
        self.done - self.started
    }
}

/// Counts the failed requests by error text.
pub fn failures(requests: &[Request]) -> BTreeMap<&str, usize> {
    let mut texts = BTreeMap::new();
    for failure in requests.iter().filter_map(|request| request.failure.as_deref()) {
        *texts.entry(failure).or_default() += 1;
    }
    texts
}

/// A sorted sample of durations.
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Creates a sample from durations in any order.
    pub fn new(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<_> = durations.into_iter().collect();
        sorted.sort();
        Self(sorted)
    }

    /// Returns the number of durations.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns a percentile by the nearest-rank method. A `share` of 0.95 is the 95th percentile.
    pub fn at(&self, share: f64) -> Duration {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

/// Lists the durations if there are at most 50, and otherwise prints percentiles.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: &Duration| format!("{:.1}", duration.as_secs_f64() * 1e3);
        if self.0.len() <= 50 {
            let all: Vec<_> = self.0.iter().map(ms).collect();
            return write!(f, "{} ms", all.join(" "));
        }
        write!(f, "{} samples", self.0.len())?;
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            write!(f, ", {name} {} ms", ms(&self.at(share)))?;
        }
        Ok(())
    }
}
