//! Queries that clorinde has generated: how often they are prepared, and the failure of the primary.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use clorinde::queries::orders::{cancel_order, create_order, orders_of};
use podpool::{Client, Config, Pool, Target, testkit::Cluster};
use podpool_stacks::cached_statements::Cached;
use tokio::time::sleep;

use crate::site::{Acknowledged, Fault, SOON, migrated, start, until, watch};

/// Number of calls of each query on each connection.
const CALLS: usize = 10;
/// Maximum time of the first write after the promotion.
const BOUND: Duration = Duration::from_secs(2);

/// Returns how often each session of Pod 0 has prepared each statement on the table `orders`: the Parse messages in the
/// server's log. The keys are the number of the session's process and the statement.
fn parses(cluster: &Cluster) -> BTreeMap<(String, String), usize> {
    let log = fs::read_to_string(cluster.directory().join(cluster.pod(0).name()).join("log")).expect("the log is text");
    let mut parses = BTreeMap::new();
    for line in log.lines() {
        let Some((head, message)) = line.split_once(" LOG:  duration: ") else { continue };
        let Some((_, statement)) = message.split_once(" parse ").and_then(|(_, parse)| parse.split_once(": ")) else {
            continue;
        };
        let pid = head.split_once('[').and_then(|(_, rest)| rest.split_once(']')).expect("the line has a process").0;
        if statement.contains("orders") && !statement.contains("pg_catalog") {
            *parses.entry((pid.to_owned(), statement.to_owned())).or_default() += 1;
        }
    }
    parses
}

/// Returns the counts of the statements that begin with this text, one for each session.
fn of(parses: &BTreeMap<(String, String), usize>, begin: &str) -> Vec<usize> {
    parses.iter().filter(|((_, statement), _)| statement.starts_with(begin)).map(|(_, count)| *count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_query_is_prepared_once_for_each_connection() {
    let cluster = Cluster::builder().pods(1).setting("log_min_duration_statement", "0").start().await;
    let cluster = cluster.expect("the cluster starts");
    let config: Config = format!("{}?pool_size=3&connect_timeout=20s", cluster.pod_url(0)).parse().expect("it parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    migrated(&cluster, &pool).await;
    let mut clients = [checked_out(&pool).await, checked_out(&pool).await];
    for client in &clients {
        let cached = Cached(client);
        for number in 0..CALLS {
            let created = create_order().bind(&cached, &"lamp", &2).one().await.expect("the order is created");
            let orders = orders_of().bind(&cached, &"lamp").all().await.expect("the orders are readable");
            assert!(orders.len() > number && orders.iter().any(|order| order.id == created && order.count == 2));
        }
    }
    let outside = parses(&cluster);
    println!("outside of a transaction: {outside:?}");
    assert_eq!([of(&outside, "INSERT INTO orders"), of(&outside, "SELECT id")], [[1, 1], [1, 1]]);

    // Inside, `prepare` of a query uses the same cache.
    for client in &mut clients {
        for _ in 0..CALLS {
            let transaction = client.transaction().await.expect("BEGIN succeeds");
            let query = orders_of().prepare(&transaction).await.expect("the query is prepared");
            query.bind(&transaction, &"lamp").all().await.expect("the orders are readable");
            transaction.commit().await.expect("COMMIT succeeds");
        }
    }
    assert_eq!(of(&parses(&cluster), "SELECT id"), [1, 1], "inside of a transaction");

    // The generated code does not use the cache in two cases: in a transaction without `prepare`, and for statements
    // that return no rows.
    let [client, _] = &mut clients;
    let transaction = client.transaction().await.expect("BEGIN succeeds");
    for _ in 0..CALLS {
        orders_of().bind(&transaction, &"lamp").all().await.expect("the orders are readable");
    }
    transaction.commit().await.expect("COMMIT succeeds");
    for id in 1..=CALLS as i64 {
        assert_eq!(cancel_order().bind(&Cached(client), &id).await.expect("the order is deleted"), 1);
    }
    let uncached = parses(&cluster);
    println!("all: {uncached:?}");
    let counts: BTreeSet<_> = of(&uncached, "SELECT id").into_iter().collect();
    assert_eq!(counts, BTreeSet::from([1, 1 + CALLS]), "without `prepare`");
    assert_eq!(of(&uncached, "DELETE FROM orders"), [CALLS], "without rows");
}

async fn checked_out(pool: &Pool) -> Client {
    pool.primary().await.expect("checkout succeeds")
}

async fn create(pool: &Pool, item: &str) -> Result<i64, podpool::Error> {
    let create = |client: Client| async move { create_order().bind(&Cached(&client), &item, &1).one().await };
    pool.retry_unapplied(Target::Primary, create).await
}

async fn queries_go_on_after(fault: Fault) {
    let (cluster, pool) = start(2).await;
    migrated(&cluster, &pool).await;
    let (acknowledged, began) = (Acknowledged::default(), Instant::now());
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (pool, acknowledged) = (pool.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    let item = format!("{writer}-{number}");
                    match create(&pool, &item).await {
                        Ok(_) => acknowledged.add(item),
                        Err(_) => sleep(Duration::from_millis(10)).await,
                    }
                }
            })
        })
        .collect();
    until("the tasks write", || acknowledged.since(began).len() >= 100).await;
    let left = watch(&pool, cluster.pod(0).address());
    fault.inject(&cluster).await;
    let left = left.await.expect("the pool leaves the old primary");
    let from = Instant::now();
    while create(&pool, "new").await.is_err() {}
    println!("{fault:?}: a new call wrote after {:?}", from.elapsed());
    assert!(from.elapsed() < BOUND, "the first write came late");
    // The calls in flight on the frozen server end when the server is ejected.
    until("the tasks write again", || acknowledged.since(left).len() >= 100).await;
    let first = acknowledged.since(left)[0].0;
    println!("{fault:?}: the tasks wrote {:?} after the pool has left the old primary", first.duration_since(left));
    for writer in writers {
        writer.abort();
        assert!(writer.await.expect_err("the task is aborted").is_cancelled(), "a task has panicked");
    }
    acknowledged.check(&cluster, left).await;
    let client = pool.get_within(Target::Primary, SOON).await.expect("checkout succeeds");
    let orders = orders_of().bind(&Cached(&client), &"0-0").all().await.expect("the orders are readable");
    assert!(orders.len() <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_go_on_after_the_primary_was_killed() {
    queries_go_on_after(Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_go_on_while_the_old_primary_is_frozen() {
    queries_go_on_after(Fault::Freeze).await;
}
