//! Background workers while the primary fails.

use std::time::Duration;

use podpool_stacks::job_queue::work;
use tokio::sync::watch;

use crate::site::{Fault, SOON, migrated, start, until};

const JOBS: i64 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_is_done_once_although_the_primary_is_killed() {
    let (cluster, pool) = start(2).await;
    migrated(&cluster, &pool).await;
    let (stop, stopped) = watch::channel(false);
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let mut stopped = stopped.clone();
            let stopped = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
            tokio::spawn(work(pool.clone(), stopped))
        })
        .collect();
    // With synchronous replication, the promoted standby has every job.
    let admin = cluster.client(0).await.expect("the superuser connects");
    for sql in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
        admin.batch_execute(sql).await.expect(sql);
    }
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    let began = std::time::Instant::now();
    while admin.query_one(synchronous, &[]).await.expect("the query succeeds").get::<_, i64>(0) == 0 {
        assert!(began.elapsed() < SOON, "replication is not synchronous");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let insert =
        |from: i64, to: i64| format!("INSERT INTO jobs (item) SELECT n::text FROM generate_series({from}, {to}) n");
    admin.batch_execute(&insert(1, JOBS)).await.expect("the jobs are inserted");
    let done = async |pod: usize| -> i64 {
        let admin = cluster.client(pod).await.expect("the superuser connects");
        admin.query_one("SELECT count(*) FROM orders", &[]).await.expect("the orders are countable").get(0)
    };
    let mut before = 0;
    let began = std::time::Instant::now();
    while before < 20 {
        assert!(began.elapsed() < SOON, "only {before} jobs are done");
        before = done(0).await;
    }
    Fault::Kill.inject(&cluster).await;
    let new = cluster.client(1).await.expect("the superuser connects");
    for sql in ["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"] {
        new.batch_execute(sql).await.expect(sql);
    }
    new.batch_execute(&insert(JOBS + 1, 2 * JOBS)).await.expect("further jobs are inserted");
    let began = std::time::Instant::now();
    while done(1).await < 2 * JOBS {
        assert!(began.elapsed() < SOON, "not all jobs are done");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{before} jobs were done before the kill, the rest within {:?} after the promotion", began.elapsed());
    assert!(before < JOBS, "the primary was killed in the middle");
    // A job that arrives while the workers wait is done without the next poll.
    tokio::time::sleep(Duration::from_millis(500)).await;
    new.batch_execute(&insert(0, 0)).await.expect("a job is inserted");
    let began = std::time::Instant::now();
    while done(1).await <= 2 * JOBS {
        assert!(began.elapsed() < Duration::from_secs(3), "the notification was missed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("a new job was done {:?} after it was inserted", began.elapsed());
    stop.send_replace(true);
    let mut total = 0;
    for worker in workers {
        total += tokio::time::timeout(SOON, worker).await.expect("it stops").expect("no panic").expect("no error");
    }
    let sql = "SELECT count(*), count(DISTINCT item), (SELECT count(*) FROM jobs) FROM orders";
    let row = new.query_one(sql, &[]).await.expect("the orders are countable");
    let all = 2 * JOBS + 1;
    assert_eq!([0, 1, 2].map(|i| row.get::<_, i64>(i)), [all, all, 0], "a job was lost or done twice");
    println!("{total} of {all} commits were confirmed");
    until("no connection is in use", || pool.status().endpoints.iter().all(|pod| pod.in_use == 0)).await;
}
