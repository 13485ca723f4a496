//! Migrations that the primary's failure interrupts.

use podpool::{OwnedConnection, Target};
use podpool_stacks::schema::{migrate, migrations::runner};

use crate::site::{Fault, SOON, start, until_locked, watch};

async fn migrations_go_on_after(fault: Fault) {
    let (cluster, pool) = start(2).await;
    let OwnedConnection { mut client, .. } =
        pool.connect_owned(Target::Primary).await.expect("the connection is opened");
    let first = runner().set_target(refinery::Target::Version(1)).run_async(&mut client).await;
    assert_eq!(first.expect("the first migration succeeds").applied_migrations().len(), 1);
    cluster.wait_replicated().await.expect("the standby has the table");
    // The second migration waits for this lock when the primary fails.
    let admin = cluster.client(0).await.expect("the superuser connects");
    admin.batch_execute("BEGIN; LOCK TABLE orders IN ACCESS SHARE MODE").await.expect("the table is locked");
    let migrating = tokio::spawn({
        let pool = pool.clone();
        async move { migrate(&pool).await.map(|report| report.applied_migrations().len()) }
    });
    until_locked(&cluster, 0, "ALTER TABLE").await;
    let old = cluster.pod(0).address();
    let left = watch(&pool, old);
    fault.inject(&cluster).await;
    let left = left.await.expect("the pool leaves the old primary");
    let result = tokio::time::timeout(SOON, migrating).await.expect("the call returns").expect("no panic");
    let error = result.expect_err("the connection is lost");
    println!("{fault:?}: failed {:?} after the pool has left the primary: {error}", left.elapsed());
    let report = migrate(&pool).await.expect("the migrations go on");
    let names: Vec<_> = report.applied_migrations().iter().map(ToString::to_string).collect();
    println!("{fault:?}: applied {names:?} {:?} after the pool has left the primary", left.elapsed());
    assert_eq!(names, ["V2__count", "V3__jobs"]);
    let report = migrate(&pool).await.expect("nothing is left to do");
    assert!(report.applied_migrations().is_empty());
    let new = cluster.client(1).await.expect("the superuser connects");
    let sql = "SELECT array_agg(version ORDER BY version) FROM refinery_schema_history";
    let versions: Vec<i32> = new.query_one(sql, &[]).await.expect("the history is readable").get(0);
    assert_eq!(versions, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_go_on_after_the_primary_was_killed() {
    migrations_go_on_after(Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_go_on_while_the_old_primary_is_frozen() {
    migrations_go_on_after(Fault::Freeze).await;
}
