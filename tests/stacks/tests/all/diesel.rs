//! Diesel's pool while the primary fails.

use std::time::{Duration, Instant};

use diesel::{ExpressionMethods as _, QueryDsl as _, TextExpressionMethods as _};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _, pooled_connection::deadpool::Pool as DieselPool};
use podpool::testkit::Cluster;
use podpool_stacks::diesel_pool::{diesel_pool, orders};
use tokio::time::sleep;

use crate::site::{Acknowledged, Fault, SOON, migrated, start, until, watch};

/// Maximum number of connections of Diesel's pool, and number of tasks that write.
const SIZE: usize = 4;
/// Maximum time between the moment when the pool leaves the old primary and the first write on the new one.
const BOUND: Duration = Duration::from_secs(2);

async fn write(
    diesel: &DieselPool<AsyncPgConnection>,
    item: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = diesel.get().await?;
    diesel::insert_into(orders::table).values(orders::item.eq(item)).execute(&mut connection).await?;
    Ok(())
}

/// Writes until the task is aborted. Each write has a name of its own.
async fn write_all(writer: usize, diesel: DieselPool<AsyncPgConnection>, acknowledged: Acknowledged) {
    for number in 0.. {
        let item = format!("{writer}-{number}");
        match write(&diesel, &item).await {
            Ok(()) => acknowledged.add(item),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Returns the number of the application's sessions on a Pod, without the probes.
async fn sessions(cluster: &Cluster, pod: usize) -> i64 {
    let admin = cluster.client(pod).await.expect("the superuser connects");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND application_name NOT LIKE '%/probe'";
    admin.query_one(sql, &[&cluster.user()]).await.expect("the query succeeds").get(0)
}

async fn writes_go_on_after(fault: Fault) {
    let (cluster, pool) = start(2).await;
    migrated(&cluster, &pool).await;
    let (diesel, acknowledged) = (diesel_pool(&pool, SIZE).expect("the pool is created"), Acknowledged::default());
    let began = Instant::now();
    let writers: Vec<_> =
        (0..SIZE).map(|writer| tokio::spawn(write_all(writer, diesel.clone(), acknowledged.clone()))).collect();
    until("the tasks write", || acknowledged.since(began).len() >= 100).await;
    assert!(sessions(&cluster, 0).await >= SIZE as i64);
    let (old, new) = (cluster.pod(0).address(), cluster.pod(1).address());
    let left = watch(&pool, old);
    fault.inject(&cluster).await;
    let promoted = Instant::now();
    let left = left.await.expect("the pool leaves the old primary");
    // Before the promotion, there is no primary to write on.
    let from = left.max(promoted);
    until("the tasks write again", || acknowledged.since(left).len() >= 100).await;
    let first = acknowledged.since(left)[0].0;
    println!("{fault:?}: wrote {:?} after the pool has left the old primary", first.duration_since(left));
    assert!(first <= from + BOUND, "the first write came late");
    let status = pool.status();
    let find = |pod| status.endpoints.iter().find(|other| other.endpoint.address().tcp() == Some(pod));
    let owned = |pod| find(pod).map(|pod| pod.owned);
    println!("{fault:?}: connections to the old primary: {:?}, to the new one: {:?}", owned(old), owned(new));
    assert_eq!(owned(old).unwrap_or(0), 0, "a connection to the old primary is open");
    for writer in writers {
        writer.abort();
        assert!(writer.await.expect_err("the task is aborted").is_cancelled(), "a task has panicked");
    }
    let mut connection = diesel.get().await.expect("a connection is available");
    let items = orders::table.select(orders::item).filter(orders::item.like("%-%"));
    let items: Vec<String> = items.load(&mut connection).await.expect("the orders are readable");
    assert!(acknowledged.since(left).iter().all(|(_, name)| items.contains(name)), "an acknowledged write is lost");
    acknowledged.check(&cluster, left).await;
    if fault == Fault::Freeze {
        cluster.resume(0).await.expect("SIGCONT is sent");
        let deadline = Instant::now() + SOON;
        while sessions(&cluster, 0).await > 0 {
            assert!(Instant::now() < deadline, "a session on the old primary remains");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diesels_pool_writes_again_after_the_primary_was_killed() {
    writes_go_on_after(Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diesels_pool_writes_again_while_the_old_primary_is_frozen() {
    writes_go_on_after(Fault::Freeze).await;
}
