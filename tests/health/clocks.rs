//! Tests that the measured replication lag does not depend on the servers' clocks: one standby's clock is 10 s behind,
//! the other's is 10 s ahead. The clocks are changed with libfaketime.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use podpool::{Pool, testkit::Cluster};
use tokio::time::sleep;

use crate::{
    common::{
        trials::{self, assert_within},
        until,
    },
    lag::{Writing, set_replay},
    setup::{pool_of, run_alone},
};

/// The offset of each standby's clock in seconds, by ordinal.
const OFFSETS: [(usize, f64); 2] = [(1, -10.0), (2, 10.0)];
/// Time for which the replay is paused.
const PAUSE: Duration = Duration::from_secs(8);

/// Returns the path of libfaketime. If it is not installed, prints this and returns `None`, or panics if `CI=true`.
fn libfaketime() -> Option<PathBuf> {
    let directories = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let libraries = directories.map(|directory| directory.join("faketime/libfaketime.so.1"));
    let library = libraries.chain(["/usr/lib/faketime/libfaketime.so.1".into()]).find(|library| library.is_file());
    if library.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "libfaketime is not installed");
        println!("skipped: libfaketime is not installed");
    }
    library
}

/// Returns the offset of a server's clock in seconds.
async fn offset(cluster: &Cluster, ordinal: usize) -> f64 {
    let superuser = cluster.client(ordinal).await.expect("the superuser connects");
    let sql = "SELECT extract(epoch FROM clock_timestamp())::float8";
    let server: f64 = superuser.query_one(sql, &[]).await.expect("the query succeeds").get(0);
    server - SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is set").as_secs_f64()
}

/// Returns the measured lag of each standby. Zero if none has been measured yet.
fn lags(pool: &Pool, cluster: &Cluster) -> Vec<(usize, Duration)> {
    let pods = pool.status().endpoints;
    let of = |ordinal: usize| {
        let address = cluster.pod(ordinal).address();
        let pod = pods.iter().find(|pod| pod.endpoint.address().tcp().unwrap() == address).expect("the Pod is known");
        (ordinal, pod.lag.unwrap_or_default())
    };
    OFFSETS.iter().map(|(ordinal, _)| of(*ordinal)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_measured_within_one_probe_interval_despite_wrong_clocks() {
    let Some(library) = libfaketime() else { return };
    let _alone = run_alone().await;
    let mut builder = Cluster::builder().pods(3);
    for (ordinal, seconds) in OFFSETS {
        builder = builder.environment(ordinal, "LD_PRELOAD", library.display().to_string());
        builder = builder.environment(ordinal, "FAKETIME", format!("{seconds:+}s"));
        // Timeouts are measured with this clock, and the shared memory would outlive a killed server.
        builder = builder.environment(ordinal, "FAKETIME_DONT_FAKE_MONOTONIC", "1");
        builder = builder.environment(ordinal, "FAKETIME_DISABLE_SHM", "1");
    }
    let cluster = builder.start().await.expect("the cluster starts");
    for (ordinal, seconds) in OFFSETS {
        let offset = offset(&cluster, ordinal).await;
        assert!((offset - seconds).abs() < 2.0, "the clock of Pod {ordinal} is {offset} s ahead, expected {seconds} s");
    }
    let writing = Writing::start(&cluster).await;
    let pool = pool_of(&format!("{}&max_lag=60s&probe_interval=1s", cluster.url()), 3).await;
    let interval = pool.config().limits().probe_interval;
    // Both standbys keep up.
    let since = Instant::now();
    while since.elapsed() < interval * 4 {
        for (ordinal, lag) in lags(&pool, &cluster) {
            assert!(lag < interval, "Pod {ordinal}: measured {lag:?}, although it keeps up");
        }
        sleep(Duration::from_millis(20)).await;
    }
    let mut errors = [Vec::new(), Vec::new()];
    for _ in 0..trials::count(1) {
        errors.iter_mut().zip(pause(&cluster, &pool).await).for_each(|(errors, error)| errors.push(error));
        let caught_up = || lags(&pool, &cluster).iter().all(|(_, lag)| *lag < interval);
        until(Duration::from_secs(10), "the standbys have caught up", caught_up).await;
    }
    for ((_, seconds), errors) in OFFSETS.into_iter().zip(errors) {
        let scenario = format!("clock {seconds:+} s: error of the lag that is measured every {interval:?}");
        assert_within(interval, &scenario, errors);
    }
    drop((writing, pool));
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Pauses the replay of both standbys. Returns the greatest difference between the true lag and the one that a probe
/// measures at that time, for each standby.
async fn pause(cluster: &Cluster, pool: &Pool) -> Vec<Duration> {
    for (ordinal, _) in OFFSETS {
        set_replay(cluster, ordinal, false).await;
    }
    let paused = Instant::now();
    let (mut last, mut measured) = (lags(pool, cluster), [const { Vec::new() }; 2]);
    while paused.elapsed() < PAUSE {
        let current = lags(pool, cluster);
        for ((before, now), measured) in last.iter().zip(&current).zip(&mut measured) {
            if before != now {
                measured.push((now.1, now.1.abs_diff(paused.elapsed())));
            }
        }
        last = current;
        sleep(Duration::from_millis(5)).await;
    }
    for (ordinal, _) in OFFSETS {
        set_replay(cluster, ordinal, true).await;
    }
    let worst = OFFSETS.iter().zip(measured).map(|((ordinal, seconds), measured)| {
        let error = measured.iter().map(|(_, error)| *error).max().unwrap_or_default();
        println!("Pod {ordinal}, clock {seconds:+} s: {} measurements, error at most {error:.2?}", measured.len());
        assert!(measured.len() >= 4, "the lag of Pod {ordinal} was measured {} times", measured.len());
        assert!(measured.iter().any(|(lag, _)| *lag > PAUSE / 2), "the lag of Pod {ordinal} was not measured");
        error
    });
    worst.collect()
}
