//! Tests when a primary is fenced, when the fence is lifted, and that ordinary failovers report no fence.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use podpool::{
    Event, Events, Pool, State, Target,
    testkit::{Cluster, Shutdown},
};

use crate::{
    common::{
        in_state,
        trials::{self, assert_within},
        until,
    },
    setup::{addresses, pool, run_alone},
};

/// Maximum time from the restore until the pool writes to the restored primary.
const RESTORED_WITHIN: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);

/// Starts a cluster and creates a table to which every role may write. The application's role may read the timelines of
/// standbys.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let user = cluster.user();
    let tables = format!("CREATE TABLE t (n int); GRANT ALL ON t TO PUBLIC; GRANT pg_read_all_stats TO \"{user}\"");
    superuser(&cluster, 0, &tables).await;
    cluster.wait_replicated().await.expect("the standbys replay the table");
    cluster
}

async fn superuser(cluster: &Cluster, ordinal: usize, statements: &str) {
    let superuser = cluster.client(ordinal).await.expect("the superuser connects");
    superuser.batch_execute(statements).await.expect("the statements succeed");
}

async fn write(pool: &Pool) -> Result<std::net::SocketAddr, String> {
    let client = pool.get_for(Target::Primary).await.map_err(|error| error.to_string())?;
    client.execute("INSERT INTO t VALUES (1)", &[]).await.map_err(|error| error.to_string())?;
    Ok(client.endpoint().address().tcp().unwrap())
}

fn fenced(pool: &Pool) -> usize {
    pool.status().endpoints.iter().filter(|pod| pod.fenced.is_some()).count()
}

/// Waits for the next event with this name.
async fn wait_for(events: &mut Events, name: &str) -> Event {
    loop {
        match events.next().await.expect("the pool is open") {
            Ok(event) if event.name() == name => return event,
            _ => {}
        }
    }
}

/// Returns the events with this name that have been emitted since the last call.
async fn drain(events: &mut Events, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(20), events.next()).await {
        let event = event.expect("no event is lost");
        found.extend((event.name() == name).then(|| event.to_string()));
    }
    found
}

/// Replaces the directory `to` with a copy of `from`.
fn copy(from: &Path, to: &Path) {
    let script = format!("rm -rf '{to}' && cp -a '{from}' '{to}'", from = from.display(), to = to.display());
    let status = Command::new("sh").arg("-c").arg(script).status().expect("sh starts");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_resume_after_a_restore_of_an_older_timeline() {
    let _alone = run_alone().await;
    let mut times = Vec::new();
    for _ in 0..trials::count(1) {
        times.push(restore().await);
    }
    assert_within(RESTORED_WITHIN, "restore of an older timeline: writes resume after the Pods have started", times);
}

/// Replaces all Pods at timeline 4 by copies at timeline 3. Returns the time from the start of the last Pod to the
/// first write.
async fn restore() -> Duration {
    let cluster = cluster().await;
    let data = |ordinal: usize| cluster.directory().join(cluster.pod(ordinal).name()).join("data");
    // Two promotions begin timeline 3.
    for (new, old) in [(1, 0), (0, 1)] {
        // The new primary must have everything that the remaining standby has.
        cluster.wait_replicated().await.expect("the standbys catch up");
        cluster.stop(old, Shutdown::Fast).await.expect("the primary stops");
        cluster.promote(new).await.expect("the standby is promoted");
        cluster.reattach(old).await.expect("the former primary follows the new one");
    }
    let pool = pool(&cluster).await;
    let mut events = pool.events();
    write(&pool).await.expect("the primary accepts writes");
    cluster.wait_replicated().await.expect("the standbys catch up");
    cluster.stop(0, Shutdown::Fast).await.expect("the primary stops");
    let backup = cluster.directory().join("backup");
    copy(&data(0), &backup);
    cluster.promote(1).await.expect("the standby is promoted");
    cluster.reattach(0).await.expect("the former primary follows the new one");
    until(LIMIT, "timeline 4 is used", || fenced(&pool) == 0 && in_state(&pool, State::Healthy) == 3).await;
    write(&pool).await.expect("the new primary accepts writes");

    for ordinal in [0, 2, 1] {
        cluster.kill(ordinal).await.expect("SIGKILL is sent");
        copy(&backup, &data(ordinal));
    }
    for ordinal in [1, 0, 2] {
        cluster.start_pod(ordinal).await.expect("the Pod starts");
    }
    let restored = Instant::now();
    let error = loop {
        match write(&pool).await {
            Ok(_) => break None,
            Err(error) if restored.elapsed() > RESTORED_WITHIN * 2 => break Some(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let resumed = restored.elapsed();
    assert_eq!(error, None, "{:?}", pool.status());
    let forgotten = wait_for(&mut events, "fencing_history_forgotten").await;
    assert!(matches!(forgotten, Event::FencingHistoryForgotten { timeline: Some(4), .. }), "{forgotten}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
    resumed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_receives_no_write_while_the_new_one_is_missing_from_dns() {
    let _alone = run_alone().await;
    let cluster = cluster().await;
    let pods = addresses(&cluster);
    let url = format!("{}&acquire_timeout=1s", cluster.url());
    let pool = crate::setup::pool_of(&url, 3).await;
    let mut events = pool.events();
    cluster.promote(1).await.expect("the standby is promoted");
    wait_for(&mut events, "endpoint_fenced").await;
    let timelines = || pool.status().endpoints.into_iter().map(|pod| pod.timeline).collect::<Vec<_>>();
    until(LIMIT, "the timelines are known", || timelines() == [Some(1), Some(2), Some(2)]).await;
    assert_eq!(write(&pool).await.expect("the new primary accepts writes").ip(), pods[1]);

    cluster.unpublish(1).expect("the new primary leaves DNS");
    let began = Instant::now();
    let mut attempts = 0;
    // At least until the absence is confirmed and every other Pod has been probed twice since then. The new primary is
    // retained in this time, because no other Pod accepts writes.
    let absent = if trials::count(1) < 20 { pool.config().limits().probe_interval * 4 } else { 2 * LIMIT };
    while began.elapsed() < absent {
        if let Ok(address) = write(&pool).await {
            assert_eq!(address.ip(), pods[1], "a write reached the former primary");
        }
        attempts += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let new = pool.status().endpoints.into_iter().find(|pod| pod.endpoint.address().tcp().unwrap().ip() == pods[1]);
    assert!(new.is_some_and(|pod| pod.retained), "the new primary is not retained");
    assert_eq!(drain(&mut events, "fencing_history_forgotten").await, Vec::<String>::new());
    cluster.publish(1).expect("the new primary returns");
    let returned = Instant::now();
    while write(&pool).await.map(|address| address.ip()) != Ok(pods[1]) {
        assert!(returned.elapsed() < LIMIT, "no write reaches the new primary");
    }
    println!("{attempts} attempts to write in {:.1?}; none reached the former primary", began.elapsed());

    // The application can decide that the former primary is the right one.
    cluster.kill(1).await.expect("SIGKILL is sent");
    until(LIMIT, "the new primary is ejected", || in_state(&pool, State::Healthy) == 2).await;
    cluster.kill(2).await.expect("SIGKILL is sent");
    until(LIMIT, "its standby is ejected", || in_state(&pool, State::Healthy) == 1).await;
    write(&pool).await.expect_err("the former primary is fenced");
    pool.forget_history();
    let forgotten = wait_for(&mut events, "fencing_history_forgotten").await;
    assert!(matches!(forgotten, Event::FencingHistoryForgotten { timeline: Some(2), .. }), "{forgotten}");
    let forgotten = Instant::now();
    while write(&pool).await.map(|address| address.ip()) != Ok(pods[0]) {
        assert!(forgotten.elapsed() < LIMIT, "no write reaches the former primary");
    }
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_and_switchovers_report_no_fence() {
    let _alone = run_alone().await;
    let cluster = cluster().await;
    let trials = trials::count(5);
    for _ in 0..trials.div_ceil(5) {
        // A new pool, because the return of a Pod that fails often is delayed.
        let pool = pool(&cluster).await;
        let mut events = pool.events();
        for trial in 0..10 {
            let old = cluster.primary().expect("the cluster has a primary");
            let new = (old + 1) % cluster.len();
            cluster.wait_replicated().await.expect("the standbys catch up");
            match trial % 2 {
                0 => cluster.kill(old).await.expect("SIGKILL is sent"),
                _ => cluster.stop(old, Shutdown::Fast).await.expect("the primary stops"),
            }
            cluster.promote(new).await.expect("the standby is promoted");
            let promoted = Instant::now();
            while write(&pool).await.is_err() {
                assert!(promoted.elapsed() < LIMIT, "no write succeeds");
            }
            cluster.reattach(old).await.expect("the former primary follows the new one");
            until(LIMIT, "three Pods serve", || in_state(&pool, State::Healthy) == 3 && fenced(&pool) == 0).await;
            assert_eq!(drain(&mut events, "endpoint_fenced").await, Vec::<String>::new());
        }
    }
    println!("{trials} failovers and as many switchovers: no fence reported");
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_some_facts_still_reports_the_others() {
    let _alone = run_alone().await;
    let cluster = cluster().await;
    let functions = "pg_catalog.pg_control_system(), pg_catalog.pg_current_wal_insert_lsn()";
    superuser(&cluster, 0, &format!("REVOKE EXECUTE ON FUNCTION {functions} FROM PUBLIC")).await;
    cluster.wait_replicated().await.expect("the standbys replay the change");
    let pool = pool(&cluster).await;
    let known = || pool.status().endpoints.iter().filter(|pod| pod.lag_bytes.is_some()).count();
    until(LIMIT, "the lag of both standbys is known", || known() == 2).await;
    write(&pool).await.expect("the role of the primary is known");
    let timelines: Vec<_> = pool.status().endpoints.into_iter().map(|pod| pod.timeline).collect();
    assert_eq!(timelines, [None, Some(1), Some(1)], "only the primary's timeline is refused");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
