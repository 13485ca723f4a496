//! Whatever a borrower does, and wherever it is cut short: the next one gets a connection on which nothing is open,
//! running or queued, by the server's own word, and waits for nothing that the last one left.
//!
//! Through the public `Client` alone, on both flavours of the runtime. `PODPOOL_SEED` repeats a random sequence.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all};
use podpool::{Client, Config, Pool, testkit::Cluster, tokio_postgres};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::oneshot, time::timeout};
use tokio_postgres::SimpleQueryMessage;

use crate::common::until;

/// What a borrower does. Each of them has several awaits, and some never end by themselves.
const ACTIONS: usize = 16;
/// More polls than any of them takes to its end, or to where it waits.
const POLLS: usize = 12;
/// A borrower who is still waiting then is cut short there.
const WAIT: Duration = Duration::from_millis(60);
/// Of the next borrower's first query. What would hold it up takes longer: a statement may run on for 100 ms before it
/// is cancelled, and those here sleep for ten seconds.
const FIRST_QUERY: Duration = Duration::from_millis(50);

async fn act(action: usize, mut client: Client) -> Result<(), tokio_postgres::Error> {
    match action {
        0 => client.batch_execute("BEGIN; SELECT txid_current()").await?,
        1 => client.batch_execute("BEGIN; SELECT 1/0").await?,
        2 => {
            let transaction = client.transaction().await?;
            transaction.execute("SELECT txid_current()", &[]).await?;
            transaction.query_one("SELECT pg_sleep(10)", &[]).await?;
        }
        3 => {
            let mut transaction = client.transaction().await?;
            let savepoint = transaction.savepoint("here").await?;
            savepoint.execute("SELECT txid_current()", &[]).await?;
            savepoint.rollback().await?;
            transaction.commit().await?;
        }
        4 => drop(client.query_one("SELECT pg_sleep(10)", &[]).await?),
        5 => {
            // Sent without waiting for one another.
            let sql = ["SELECT pg_sleep(0.02)", "BEGIN", "SELECT txid_current()", "SELECT pg_sleep(0.02)"];
            for done in join_all(sql.map(|sql| client.batch_execute(sql))).await {
                done?;
            }
        }
        6 => {
            let statement = client.prepare("SELECT $1::text || pg_sleep(0.001)::text").await?;
            client.query_one(&statement, &[&"x"]).await?;
        }
        7 => {
            client.batch_execute("CREATE TEMP TABLE IF NOT EXISTS copied (x text)").await?;
            let mut sink = pin!(client.copy_in("COPY copied FROM STDIN").await?);
            for _ in 0..3 {
                futures_util::SinkExt::send(&mut sink, bytes::Bytes::from_static(b"line\n")).await?;
                tokio::task::yield_now().await;
            }
            sink.finish().await?;
        }
        8 => {
            let rows = client.copy_out("COPY (SELECT generate_series(1, 100000)) TO STDOUT").await?;
            let mut rows = pin!(rows);
            while rows.next().await.transpose()?.is_some() {}
        }
        9 => {
            let rows = client.query_raw("SELECT generate_series(1, 100000)", Vec::<String>::new()).await?;
            let mut rows = pin!(rows);
            while rows.next().await.transpose()?.is_some() {}
        }
        10 => {
            // More than the socket takes at once.
            let large = "x".repeat(8 << 20);
            client.query_one("SELECT length($1::text)", &[&large]).await?;
        }
        11 => {
            let transaction = client.transaction().await?;
            let portal = transaction.bind("SELECT generate_series(1, 1000)", &[]).await?;
            while !transaction.query_portal(&portal, 300).await?.is_empty() {}
            transaction.rollback().await?;
        }
        12 => drop(client.simple_query("SELECT 1; BEGIN; SELECT txid_current(); SELECT pg_sleep(0.01)").await?),
        13 => {
            let transaction = client.build_transaction().read_only(true).start().await?;
            transaction.query_one("SELECT 1/0", &[]).await?;
        }
        14 => {
            let statement = client.prepare_cached("SELECT 1").await?;
            client.query_one(&statement, &[]).await?;
        }
        ACTIONS.. => unreachable!("there are fewer"),
        _ => {
            client.check_connection().await?;
            client.batch_execute("SET application_name = 'borrower'; BEGIN; DECLARE c CURSOR FOR SELECT 1").await?;
            client.query("FETCH c", &[]).await?;
        }
    }
    Ok(())
}

/// How a borrower is cut short.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Cut {
    Drop,
    Cancel,
    Panic,
    Timeout,
}

const CUTS: [Cut; 4] = [Cut::Drop, Cut::Cancel, Cut::Panic, Cut::Timeout];

/// A future that is polled so many times, and then something happens to it.
struct Polled<F> {
    work: Option<Pin<Box<F>>>,
    left: usize,
    then: Then,
}

enum Then {
    End,
    Tell(Option<oneshot::Sender<()>>),
    Panic,
}

impl<F: Future> Future for Polled<F> {
    /// Nothing, where it was cut.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left > 0 {
            self.left -= 1;
            let work = self.work.as_mut().expect("polled after its end");
            let poll = work.as_mut().poll(cx);
            if poll.is_ready() || self.left > 0 {
                return poll.map(Some);
            }
        }
        match &mut self.then {
            Then::End => {
                // Dropped in this very poll.
                self.work = None;
                Poll::Ready(None)
            }
            Then::Tell(told) => {
                told.take().map(|told| told.send(()));
                Poll::Pending
            }
            Then::Panic => panic!("on purpose"),
        }
    }
}

/// Has the action polled so many times and cut short, or fewer times if it waits for long. Says whether it was polled so
/// many times.
async fn cut_short(client: Client, action: usize, polls: usize, cut: Cut, patience: Duration) -> bool {
    let action = act(action, client);
    let polled = |action, then| Polled { work: Some(Box::pin(action)), left: polls, then };
    match cut {
        Cut::Drop => matches!(timeout(WAIT, polled(action, Then::End)).await, Ok(None)),
        Cut::Panic => {
            let mut task = tokio::spawn(polled(action, Then::Panic));
            let ended = timeout(WAIT, &mut task).await;
            task.abort();
            matches!(ended, Ok(Err(error)) if error.is_panic())
        }
        Cut::Cancel => {
            let (tell, told) = oneshot::channel();
            let task = tokio::spawn(polled(action, Then::Tell(Some(tell))));
            // An error: it has ended without being cut.
            let told = timeout(WAIT, told).await;
            task.abort();
            task.await.is_err_and(|error| error.is_cancelled()) && matches!(told, Ok(Ok(())))
        }
        // Wherever it is by then.
        Cut::Timeout => timeout(patience, action).await.is_err(),
    }
}

/// What the first statement of a borrower says, by the server's word, and how long it took.
struct First {
    pid: i32,
    clean: bool,
    took: Duration,
}

async fn first_query(client: &Client) -> First {
    let began = Instant::now();
    // In a transaction of its own a statement begins when its transaction does.
    let sql = "SELECT pg_backend_pid(), txid_current_if_assigned() IS NULL AND now() = statement_timestamp()";
    let answer = client.simple_query(sql).await.expect("an answer");
    let took = began.elapsed();
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.expect("a row");
    let pid = row.get(0).and_then(|pid| pid.parse().ok()).expect("a process id");
    First { pid, clean: row.get(1) == Some("t"), took }
}

/// The sessions of the server, as it sees them: which of them are idle, outside of any transaction.
async fn sessions(observer: &tokio_postgres::Client) -> BTreeMap<i32, (bool, String)> {
    let sql = "SELECT pid, coalesce(state, '') = 'idle' AND xact_start IS NULL AND backend_xid IS NULL, \
               coalesce(state, '?') || ': ' || query FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let rows = observer.query(sql, &[]).await.expect("an answer");
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

/// One borrower after the other.
struct Borrowers<'a> {
    pool: &'a Pool,
    observer: &'a tokio_postgres::Client,
    rng: StdRng,
    /// How often each action was cut short after so many polls.
    cuts: BTreeMap<(usize, usize), usize>,
    delays: Vec<Duration>,
}

impl Borrowers<'_> {
    /// One that is cut short, and one that looks at what it gets. Says whether the first was cut short.
    async fn round(&mut self, action: usize, polls: usize, cut: Cut) -> bool {
        let patience = Duration::from_micros(self.rng.random_range(0..4_000));
        let client = self.pool.get().await.expect("a connection");
        let was_cut = cut_short(client, action, polls, cut, patience).await;
        if was_cut && cut != Cut::Timeout {
            *self.cuts.entry((action, polls)).or_default() += 1;
        }
        // Mostly without yielding in between.
        for _ in 0..[0, 0, 1, 5][self.rng.random_range(0..4)] {
            tokio::task::yield_now().await;
        }
        let next = self.pool.get().await.expect("a connection");
        let what = format!("after action {action}, {polls} polls, {cut:?}");
        if self.rng.random_bool(0.3) {
            // What the server says before anything is sent.
            let before = sessions(self.observer).await;
            let first = first_query(&next).await;
            assert!(first.clean, "{what}: in somebody's transaction");
            let (idle, state) = &before[&first.pid];
            assert!(idle, "{what}: the server says {state}");
        } else {
            let first = first_query(&next).await;
            assert!(first.clean, "{what}: in somebody's transaction");
            self.delays.push(first.took);
        }
        was_cut
    }

    async fn random_round(&mut self) {
        let (action, cut) = (self.rng.random_range(0..ACTIONS), self.rng.random_range(0..CUTS.len()));
        let polls = self.rng.random_range(1..=POLLS);
        self.round(action, polls, CUTS[cut]).await;
    }
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

fn spread(delays: &mut [Duration]) -> String {
    delays.sort();
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| percentile(delays, share));
    format!("p50 {p50:.2?}, p95 {p95:.2?}, p99 {p99:.2?}, max {:.2?} of {}", percentile(delays, 1.0), delays.len())
}

fn seed() -> u64 {
    std::env::var("PODPOOL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random)
}

fn quiet_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&"on purpose") {
            hook(info);
        }
    }));
}

fn pool(cluster: &Cluster, size: usize) -> Pool {
    let config: Config = format!("{}&pool_size={size}&acquire_timeout=30s", cluster.url()).parse().expect("a URL");
    Pool::builder(config).build().expect("a pool")
}

async fn every_poll_then_at_random() {
    quiet_panics();
    let seed = seed();
    println!("PODPOOL_SEED={seed}");
    let cluster = Cluster::start(1).await.expect("a cluster");
    let (pool, observer) = (pool(&cluster, 6), cluster.client(0).await.expect("a superuser"));
    let (pool, observer) = (&pool, &observer);
    let workers = (0..6).map(|worker| async move {
        let rng = StdRng::seed_from_u64(seed ^ worker);
        let mut borrowers = Borrowers { pool, observer, rng, cuts: BTreeMap::new(), delays: Vec::new() };
        // Each action, at each of its polls, in each way.
        for action in (0..ACTIONS).filter(|action| action % 6 == worker as usize) {
            for polls in 1..=POLLS {
                let mut any = false;
                for cut in CUTS {
                    any |= borrowers.round(action, polls, cut).await && cut != Cut::Timeout;
                }
                if !any {
                    break;
                }
            }
        }
        for _ in 0..100 {
            borrowers.random_round().await;
        }
        borrowers.cuts
    });
    let mut cuts = BTreeMap::new();
    for (key, count) in join_all(workers).await.into_iter().flatten() {
        *cuts.entry(key).or_insert(0) += count;
    }
    let total: usize = cuts.values().sum();
    let counters = pool.status().counters;
    println!("cut short {total} times at {} different polls of {ACTIONS} actions; {counters:?}", cuts.len());
    for action in 0..ACTIONS {
        assert!(cuts.contains_key(&(action, 1)), "action {action} was never cut short after its first poll: {cuts:?}");
    }
    let at_rest = || pool.status().endpoints.iter().all(|pod| pod.in_use == 0 && pod.idle == pod.open);
    until(Duration::from_secs(10), "everything is back", at_rest).await;
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_is_handed_on_whatever_is_cut_short_at_any_poll_on_one_thread() {
    every_poll_then_at_random().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_handed_on_whatever_is_cut_short_at_any_poll_on_many_threads() {
    every_poll_then_at_random().await;
}

/// One connection and one borrower after the other, so that nothing but the last one can hold the next one up.
async fn delays() {
    quiet_panics();
    let seed = seed();
    println!("PODPOOL_SEED={seed}");
    let cluster = Cluster::start(1).await.expect("a cluster");
    let (pool, observer) = (pool(&cluster, 1), cluster.client(0).await.expect("a superuser"));
    let mut baseline = Vec::new();
    for _ in 0..200 {
        let client = pool.get().await.expect("a connection");
        baseline.push(first_query(&client).await.took);
    }
    let rng = StdRng::seed_from_u64(seed);
    let mut borrowers = Borrowers { pool: &pool, observer: &observer, rng, cuts: BTreeMap::new(), delays: Vec::new() };
    while borrowers.delays.len() < 100 {
        borrowers.random_round().await;
    }
    let mut delays = borrowers.delays;
    println!("first query, nothing before it: {}", spread(&mut baseline));
    println!("first query of the next borrower: {}", spread(&mut delays));
    assert!(percentile(&delays, 0.95) < FIRST_QUERY, "{}", spread(&mut delays));
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "current_thread")]
async fn nobodys_first_query_is_held_up_by_the_last_borrower_on_one_thread() {
    delays().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobodys_first_query_is_held_up_by_the_last_borrower_on_many_threads() {
    delays().await;
}

/// The request stands in the driver's channel and the driver has not looked yet.
async fn begin_polled_once() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = pool(&cluster, 1);
    let mut pending = 0;
    for _ in 0..200 {
        let client = pool.get().await.expect("a connection");
        {
            let mut begin = pin!(client.batch_execute("BEGIN"));
            pending += usize::from(begin.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(client);
        let next = pool.get().await.expect("a connection");
        assert!(first_query(&next).await.clean, "the next borrower is in a transaction");
    }
    println!("BEGIN was on its way {pending} times of 200; {:?}", pool.status().counters);
    assert!(pending > 150, "{pending}");
    assert_eq!(pool.status().counters.opened, 1, "nothing was thrown away");
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "current_thread")]
async fn a_begin_that_was_polled_once_reaches_nobody_on_one_thread() {
    begin_polled_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_was_polled_once_reaches_nobody_on_many_threads() {
    begin_polled_once().await;
}

/// A statement that outlives the borrower of its connection is closed there, by one more request.
#[tokio::test(flavor = "current_thread")]
async fn a_connection_with_a_queued_request_is_not_handed_out() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = pool(&cluster, 1);
    drop(pool.get().await.expect("a connection"));
    for round in 1..=100 {
        let client = pool.get().await.expect("a connection");
        let statement = client.prepare("SELECT 1").await.expect("a statement");
        drop(client);
        let at_rest = || pool.status().endpoints[0].idle == 1;
        until(Duration::from_secs(5), "the connection is back", at_rest).await;
        let recycled = pool.status().counters.recycled;
        // No await in between: it stands in the driver's channel.
        drop(statement);
        let next = pool.get().await.expect("a connection");
        assert_eq!(pool.status().counters.recycled, recycled + 1, "round {round}: handed out with a request under way");
        assert!(first_query(&next).await.clean);
    }
    assert_eq!(pool.status().counters.opened, 1, "nothing was thrown away");
    cluster.shutdown().await.expect("an orderly end");
}
