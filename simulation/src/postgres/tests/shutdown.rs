use tokio::time::{Instant, sleep, timeout};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_fast_shutdown_terminates_the_sessions() {
    let server = primary().await;
    let connected = connect(&server).await;
    connected.insert(1).await.unwrap();
    sleep(SECOND).await;
    server.stop(Shutdown::Fast);
    let error = connected.connection.await.unwrap().0.unwrap();
    assert_eq!(code(&error), ("57P01", true));
    let refused = connect_with(&server, &config()).await.err().unwrap();
    assert_eq!(code(&refused), ("57P03", true));
    assert_eq!(db(&refused).message(), "the database system is shutting down");
    timeout(SECOND, server.stopped()).await.unwrap();
    assert!(connect_with(&server, &config()).await.err().unwrap().as_db_error().is_none(), "the stream is closed");
    server.start();
    timeout(SECOND, server.running()).await.unwrap();
    assert_eq!(connect(&server).await.ids().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_smart_shutdown_waits_for_the_sessions() {
    let server = primary().await;
    let connected = connect(&server).await;
    server.stop(Shutdown::Smart);
    sleep(60 * SECOND).await;
    connected.insert(1).await.unwrap();
    assert_eq!(code(&connect_with(&server, &config()).await.err().unwrap()), ("57P03", true));
    assert_eq!(server.status().phase, Phase::Stopping);
    drop(connected);
    timeout(SECOND, server.stopped()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fast_shutdown_may_follow_a_smart_one() {
    let server = primary().await;
    let connected = connect(&server).await;
    server.stop(Shutdown::Smart);
    sleep(SECOND).await;
    server.stop(Shutdown::Fast);
    assert_eq!(code(&connected.connection.await.unwrap().0.unwrap()), ("57P01", true));
    timeout(SECOND, server.stopped()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_immediate_shutdown_warns_and_recovers_at_the_next_start() {
    let server = primary().await;
    let connected = connect(&server).await;
    connected.insert(1).await.unwrap();
    server.stop(Shutdown::Immediate);
    assert_eq!(server.status().phase, Phase::Stopped);
    sleep(SECOND).await;
    assert_eq!(connected.notices(), ["57P01"]);
    connected.client.check_connection().await.unwrap_err();
    let started = Instant::now();
    server.start();
    server.running().await;
    assert!(started.elapsed() >= SECOND, "the recovery takes time");
    assert_eq!(connect(&server).await.ids().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_backend_ends_all_sessions() {
    let server = primary().await;
    let connected = connect(&server).await;
    connected.insert(1).await.unwrap();
    server.crash_backend();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(connected.notices(), ["57P02"]);
    let refused = connect_with(&server, &config()).await.err().unwrap();
    assert_eq!(db(&refused).message(), "the database system is in recovery mode");
    timeout(2 * SECOND, server.running()).await.unwrap();
    assert_eq!(connect(&server).await.ids().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_closes_the_streams_without_a_message() {
    let server = primary().await;
    let connected = connect(&server).await;
    let insert = connected.insert(1);
    let crash = async {
        // The commit record is not on the disk yet.
        sleep(Duration::from_micros(10)).await;
        server.crash();
    };
    let (result, ()) = tokio::join!(insert, crash);
    assert!(result.unwrap_err().as_db_error().is_none());
    assert_eq!(connected.notices(), [""; 0]);
    server.start();
    server.running().await;
    assert_eq!(connect(&server).await.ids().await, [0_i64; 0]);
    assert_eq!(server.cluster().history().writes(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_start_ends_the_process() {
    let server = server(&cluster().0, "a");
    server.start();
    server.stop(Shutdown::Fast);
    timeout(SECOND, server.stopped()).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(server.status().phase, Phase::Stopped);
    server.start();
    timeout(SECOND, server.running()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_primary_stops_after_its_standbys_have_the_whole_log() {
    let (servers, network) = group().await;
    connect(&servers[0]).await.insert(1).await.unwrap();
    servers[0].stop(Shutdown::Fast);
    servers[0].stopped().await;
    for standby in &servers[1..] {
        assert_eq!(standby.status().position, servers[0].status().position);
    }
    servers[0].start();
    sleep(10 * SECOND).await;
    network.partition("a", "b", true);
    servers[0].stop(Shutdown::Fast);
    assert!(timeout(30 * SECOND, servers[0].stopped()).await.is_err(), "the shutdown waits for the standby");
    timeout(60 * SECOND, servers[0].stopped()).await.unwrap();
}
