//! Tests `Pool::listen`: every notification is delivered once, or lies within a reported gap, also if the primary is
//! killed, or frozen and replaced.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    Applied, Checkout, Client, Kind, Listener, ListenerEvent, Pool, State, Target, testkit::Cluster, tokio_postgres,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    at_rest,
    common::{in_state, until},
};

const LONG: Duration = Duration::from_secs(60);
/// Number of notifications.
const TOTAL: u32 = 10_000;
/// Number of notifications that one statement sends.
const BATCH: u32 = 10;

async fn start(pods: usize) -> (Cluster, Pool) {
    let cluster = Cluster::start(pods).await.expect("the cluster starts");
    let pool = Pool::connect(&format!("{}&acquire_timeout=60s", cluster.url())).await.expect("the pool is created");
    until(LONG, "every Pod serves", || in_state(&pool, State::Healthy) == pods).await;
    (cluster, pool)
}

/// A task that sends numbered notifications, in order.
struct Sending {
    /// The number of the next notification.
    next: Arc<AtomicU32>,
    /// Returns the numbers whose statement has an unknown outcome.
    task: JoinHandle<BTreeSet<u32>>,
}

impl Sending {
    fn start(pool: &Pool) -> Self {
        let (pool, next) = (pool.clone(), Arc::<AtomicU32>::default());
        let task = tokio::spawn({
            let next = next.clone();
            async move {
                let mut unknown = BTreeSet::new();
                while next.load(Ordering::Relaxed) < TOTAL {
                    let first = next.load(Ordering::Relaxed);
                    let work = |client: Client| async move {
                        let sql = "SELECT pg_notify('Numbers', n::text) FROM generate_series($1::int, $2) AS n";
                        let last = (first + BATCH - 1).cast_signed();
                        client.execute(sql, &[&first.cast_signed(), &last]).await
                    };
                    let limited = Checkout::new(Target::Primary).deadline(Duration::from_secs(2));
                    match pool.retry_unapplied(limited, work).await {
                        Ok(_) => {}
                        Err(error) if error.applied() == Applied::No => continue,
                        Err(_) => unknown.extend(first..first + BATCH),
                    }
                    next.fetch_add(BATCH, Ordering::Relaxed);
                }
                unknown
            }
        });
        Self { next, task }
    }

    async fn wait_for(&self, number: u32) {
        until(LONG, "notifications are sent", || self.next.load(Ordering::Relaxed) >= number).await;
    }
}

/// Receives until notification `last` arrives.
async fn receive(mut listener: Listener, last: u32) -> Vec<ListenerEvent> {
    let mut events = Vec::new();
    loop {
        let event = timeout(LONG, listener.next()).await.expect("the last notification arrives").expect("is open");
        let done = matches!(&event, ListenerEvent::Notification(it) if it.payload() == last.to_string());
        events.push(event);
        if done {
            return events;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_are_delivered_once_or_lie_within_a_gap_during_two_failovers() {
    let (cluster, pool) = start(3).await;
    let listener = pool.listen(Target::Primary, ["Numbers"]).await.expect("the primary accepts the subscription");
    let receiving = tokio::spawn(receive(listener, TOTAL));
    let sending = Sending::start(&pool);

    sending.wait_for(TOTAL / 3).await;
    cluster.kill(0).await.expect("SIGKILL is sent");
    cluster.promote(1).await.expect("the standby is promoted");
    sending.wait_for(TOTAL * 2 / 3).await;
    // The former primary's connections stay open, and it sends nothing.
    cluster.pause(1).await.expect("SIGSTOP is sent");
    cluster.promote(2).await.expect("the standby is promoted");
    let unknown = sending.task.await.expect("the task does not panic");

    // The last notification is sent until it arrives, because the listener may be subscribing again.
    while !receiving.is_finished() {
        let client = pool.primary().await.expect("the primary serves");
        let notify = format!("NOTIFY \"Numbers\", '{TOTAL}'");
        client.batch_execute(&notify).await.expect("the notification is sent");
        drop(client);
        sleep(Duration::from_millis(50)).await;
    }
    let events = receiving.await.expect("the task does not panic");

    let (mut expected, mut gaps, mut delivered, mut missing) = (0, 0, 0, 0);
    let mut in_gap = false;
    for event in &events {
        match event {
            ListenerEvent::Notification(notification) => {
                assert_eq!(notification.channel(), "Numbers");
                let number: u32 = notification.payload().parse().expect("the payload is a number");
                assert!(number >= expected, "{number} was delivered twice, or late");
                let lost = (expected..number).filter(|number| !unknown.contains(number)).count();
                assert!(in_gap || lost == 0, "{expected} to {number} are missing without a gap");
                (missing, delivered, expected, in_gap) = (missing + lost, delivered + 1, number + 1, false);
            }
            ListenerEvent::Gap { cause } => {
                println!("gap after {expected}: {cause}");
                (gaps, in_gap) = (gaps + 1, true);
            }
            other => panic!("unexpected event: {other:?}"),
        }
    }
    println!("{delivered} delivered, {missing} within {gaps} gaps, {} of unknown outcome", unknown.len());
    assert!(gaps >= 2, "each failover causes a gap");
    assert!(delivered > TOTAL / 2, "most notifications are delivered");
    until(LONG, "every connection is idle", || at_rest(&pool)).await;
    drop(pool);
    cluster.resume(1).await.expect("SIGCONT is sent");
    cluster.shutdown().await.expect("the cluster shuts down");
}

async fn listeners(superuser: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()";
    superuser.query_one(sql, &[]).await.expect("the query succeeds").get(0)
}

async fn until_listeners(superuser: &tokio_postgres::Client, count: i64) {
    let began = Instant::now();
    while listeners(superuser).await != count {
        assert!(began.elapsed() < LONG, "there are not {count} listeners");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_has_its_own_connection_and_ends_with_the_pool() {
    let (cluster, pool) = start(2).await;
    let superuser = cluster.client(0).await.expect("the superuser connects");
    let mut listener = pool.listen(Target::Primary, ["a", "b\"c"]).await.expect("the primary accepts it");
    let other = pool.listen(Target::Primary, ["a"]).await.expect("the primary accepts it");
    assert_eq!(listeners(&superuser).await, 2);
    drop(other);
    until_listeners(&superuser, 1).await;
    let notify = "NOTIFY a, 'one'; NOTIFY \"b\"\"c\"; NOTIFY other";
    superuser.batch_execute(notify).await.expect("the notifications are sent");
    for (channel, payload) in [("a", "one"), ("b\"c", "")] {
        match timeout(LONG, listener.next()).await.expect("it arrives") {
            Some(ListenerEvent::Notification(it)) => assert_eq!((it.channel(), it.payload()), (channel, payload)),
            event => panic!("unexpected event: {event:?}"),
        }
    }
    let error = pool.listen(Target::Standby, ["a"]).await.expect_err("a standby refuses LISTEN");
    assert_eq!(error.kind(), Kind::Query, "{error:?}");

    // The end of the session is reported as a gap.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'
               AND pid <> pg_backend_pid()";
    superuser.execute(end, &[]).await.expect("the session is ended");
    let event = timeout(LONG, listener.next()).await.expect("it arrives");
    assert!(matches!(event, Some(ListenerEvent::Gap { .. })), "{event:?}");
    superuser.batch_execute("NOTIFY a, 'two'").await.expect("the notification is sent");
    let event = timeout(LONG, listener.next()).await.expect("it arrives");
    assert!(matches!(&event, Some(ListenerEvent::Notification(it)) if it.payload() == "two"), "{event:?}");

    pool.close().await;
    assert_eq!(timeout(LONG, listener.next()).await.expect("the stream ends"), None);
    until_listeners(&superuser, 0).await;
    drop(superuser);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listening_on_a_pooled_connection_is_reported_once() {
    let (cluster, pool) = start(1).await;
    let mut events = pool.events();
    let _listener = pool.listen(Target::Primary, ["a"]).await.expect("the primary accepts it");
    for _ in 0..2 {
        let client = pool.primary().await.expect("checkout succeeds");
        client.batch_execute("LISTEN a").await.expect("the statement succeeds");
    }
    let mut reported = 0;
    while let Ok(event) = timeout(Duration::from_secs(1), events.next()).await {
        let event = event.expect("the pool is open").expect("no event is lost");
        reported += usize::from(event.name() == "listen_ignored");
    }
    assert_eq!(reported, 1);
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
