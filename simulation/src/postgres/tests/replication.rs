use tokio::time::{sleep, timeout};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn synchronous(names: &[&str]) -> Synchronous {
    Synchronous { names: names.iter().map(|name| (*name).to_owned()).collect(), required: 1 }
}

#[tokio::test(start_paused = true)]
async fn standbys_replay_the_log_and_are_read_only() {
    let (servers, _) = group().await;
    connect(&servers[0]).await.insert(1).await.unwrap();
    sleep(SECOND).await;
    for standby in &servers[1..] {
        let connected = connect(standby).await;
        assert_eq!(connected.ids().await, [1]);
        assert_eq!(code(&connected.insert(2).await.unwrap_err()), ("25006", false));
        let error = connected.client.batch_execute("LISTEN news").await.unwrap_err();
        assert_eq!(code(&error), ("25006", false));
        let error = connected.client.batch_execute("BEGIN READ WRITE").await.unwrap_err();
        assert_eq!(code(&error), ("0A000", false));
        let error = connected.client.simple_query("SELECT pg_current_wal_lsn()").await.unwrap_err();
        assert_eq!(code(&error), ("55000", false));
        assert_eq!(connected.parameters().await("in_hot_standby").as_deref(), Some("on"));
    }
    let reads = servers[0].cluster().history().reads();
    assert!(reads.iter().all(|read| read.standby && read.position == servers[0].status().position), "{reads:?}");
}

#[tokio::test(start_paused = true)]
async fn a_paused_replay_serves_old_data() {
    let (servers, _) = group().await;
    let connected = connect(&servers[1]).await;
    servers[1].pause_replay(true);
    connect(&servers[0]).await.insert(1).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(connected.ids().await, [0_i64; 0]);
    assert!(servers[1].status().position > servers[1].status().replayed);
    servers[1].pause_replay(false);
    sleep(SECOND).await;
    assert_eq!(connected.ids().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_promotion_is_reported_with_the_response_to_a_sync() {
    let (servers, _) = group().await;
    let connected = connect(&servers[1]).await;
    servers[1].pause_replay(true);
    connect(&servers[0]).await.insert(1).await.unwrap();
    sleep(SECOND).await;
    servers[1].promote();
    sleep(SECOND).await;
    let status = servers[1].status();
    assert_eq!((status.in_recovery, status.timeline), (false, 2));
    connected.client.check_connection().await.unwrap();
    assert_eq!(connected.ids().await, [1], "the promotion replays the received log");
    connected.insert(2).await.unwrap();
    assert_eq!(connected.parameters().await("in_hot_standby").as_deref(), Some("off"));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_began_on_a_standby_stays_read_only() {
    let (servers, _) = group().await;
    let connected = connect(&servers[1]).await;
    connected.client.batch_execute("BEGIN").await.unwrap();
    servers[1].promote();
    sleep(SECOND).await;
    assert_eq!(code(&connected.insert(1).await.unwrap_err()), ("25006", false));
    connected.client.batch_execute("ROLLBACK").await.unwrap();
    connected.insert(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_synchronous_commit_waits_for_the_standby() {
    let (servers, network) = group().await;
    servers[0].set_synchronous(synchronous(&["b"]));
    let (writer, reader) = (connect(&servers[0]).await, connect(&servers[0]).await);
    writer.insert(1).await.unwrap();
    assert!(servers[1].log().ids(servers[1].status().position).any(|id| id == 1));
    network.partition("a", "b", true);
    let insert = writer.insert(2);
    tokio::pin!(insert);
    assert!(timeout(10 * SECOND, &mut insert).await.is_err());
    assert_eq!(reader.ids().await, [1], "a commit that waits is invisible");
    network.partition("a", "b", false);
    timeout(SECOND, insert).await.unwrap().unwrap();
    assert_eq!(reader.ids().await, [1, 2]);
    let writes = servers[0].cluster().history().writes();
    assert!(writes.iter().all(|it| it.confirmation == Confirmation::Synchronous && it.acknowledged.is_some()));
    assert!(writes[1].acknowledged.unwrap() - writes[1].committed >= 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_acknowledges_the_commit_with_a_warning() {
    let (servers, network) = group().await;
    servers[0].set_synchronous(synchronous(&["b"]));
    network.partition("a", "b", true);
    let connected = connect(&servers[0]).await;
    let token = connected.client.cancel_token();
    let cancel = async {
        sleep(SECOND).await;
        token.cancel_query_raw(stream(&servers[0]), NoTls).await.unwrap();
    };
    let (result, ()) = tokio::join!(connected.insert(1), cancel);
    assert_eq!(result.unwrap(), 1);
    assert_eq!(connected.notices(), ["01000"]);
    let writes = servers[0].cluster().history().writes();
    assert_eq!(writes[0].confirmation, Confirmation::Cancelled);
    assert!(writes[0].acknowledged.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_terminated_while_its_commit_waits_ends_without_an_acknowledgement() {
    let (servers, network) = group().await;
    servers[0].set_synchronous(synchronous(&["b"]));
    network.partition("a", "b", true);
    let connected = connect(&servers[0]).await;
    let stop = async {
        sleep(SECOND).await;
        servers[0].terminate(servers[0].pids()[0]);
    };
    let (result, ()) = tokio::join!(connected.insert(1), stop);
    assert!(result.unwrap_err().as_db_error().is_none());
    assert_eq!(connected.notices(), ["57P01"]);
    assert_eq!(connect(&servers[0]).await.ids().await, [1]);
    assert_eq!(servers[0].cluster().history().writes()[0].acknowledged, None);
}

#[tokio::test(start_paused = true)]
async fn removing_the_synchronous_standbys_releases_waiting_commits() {
    let (servers, network) = group().await;
    servers[0].set_synchronous(synchronous(&["b"]));
    network.partition("a", "b", true);
    let connected = connect(&servers[0]).await;
    let release = async {
        sleep(SECOND).await;
        servers[0].set_synchronous(synchronous(&["b", "c"]));
    };
    let (result, ()) = tokio::join!(connected.insert(1), release);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_asynchronous_failover_may_lose_a_write_and_a_rewind_removes_it() {
    let (servers, network) = group().await;
    let connected = connect(&servers[0]).await;
    connected.insert(1).await.unwrap();
    sleep(SECOND).await;
    network.partition("a", "b", true);
    network.partition("a", "c", true);
    connected.insert(2).await.unwrap();
    servers[2].follow(Some("b"));
    servers[1].promote();
    sleep(10 * SECOND).await;
    connect(&servers[1]).await.insert(3).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(connect(&servers[2]).await.ids().await, [1, 3], "the other standby follows the new timeline");
    assert_eq!(connected.ids().await, [1, 2], "the old primary has diverged");
    network.partition("a", "b", false);
    servers[0].crash();
    servers[0].follow(Some("b"));
    servers[0].start();
    sleep(10 * SECOND).await;
    assert_eq!(connect(&servers[0]).await.ids().await, [1, 2], "a diverged server receives nothing");
    assert!(!servers[0].status().receiving);
    servers[0].stop(Shutdown::Fast);
    servers[0].stopped().await;
    servers[0].rewind("b").await.unwrap();
    servers[0].start();
    timeout(10 * SECOND, servers[0].running()).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(connect(&servers[0]).await.ids().await, [1, 3]);
    assert_eq!(servers[0].status().timeline, 2);
    let lost = &servers[0].cluster().history().writes()[1];
    assert_eq!((&lost.ids[..], lost.timeline, lost.acknowledged.is_some()), (&[2][..], 1, true));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_copy_leaves_an_incomplete_data_directory() {
    let (servers, _) = group().await;
    servers[1].stop(Shutdown::Fast);
    servers[1].stopped().await;
    let copy = servers[1].base_backup("a");
    let crash = async {
        sleep(SECOND).await;
        servers[0].crash();
    };
    let (result, ()) = tokio::join!(copy, crash);
    assert_eq!(result, Err(RejoinError::Source));
    servers[1].start();
    assert_eq!(servers[1].status().phase, Phase::Stopped);
    assert_eq!(servers[1].rewind("c").await, Err(RejoinError::Incomplete));
    servers[1].base_backup("c").await.unwrap();
    servers[1].start();
    timeout(SECOND, servers[1].running()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_standby_notices_a_partition_after_the_timeout() {
    let (servers, network) = group().await;
    network.partition("a", "b", true);
    sleep(30 * SECOND).await;
    assert!(servers[1].status().receiving);
    sleep(70 * SECOND).await;
    assert!(!servers[1].status().receiving);
    network.partition("a", "b", false);
    sleep(10 * SECOND).await;
    assert!(servers[1].status().receiving);
}

#[tokio::test(start_paused = true)]
async fn reports_the_facts_of_a_standby() {
    let (servers, _) = group().await;
    connect(&servers[0]).await.insert(1).await.unwrap();
    sleep(10 * SECOND).await;
    let connected = connect(&servers[1]).await;
    let value = async |text: &str| connected.value(&format!("SELECT {text}")).await;
    let receiver = "(SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)";
    let sender = "(SELECT sender_host || ' ' || sender_port FROM pg_catalog.pg_stat_wal_receiver)";
    assert_eq!(value(receiver).await.as_deref(), Some("1"));
    assert_eq!(value(sender).await.as_deref(), Some("127.0.0.1 5432"));
    servers[1].set(|settings| settings.read_all_stats = false);
    assert_eq!((value(receiver).await, value(sender).await), (None, None));
    let ago = "EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())";
    assert!(value(ago).await.unwrap().starts_with("10.0"), "{:?}", value(ago).await);
    servers[1].set(|settings| settings.clock_skew = -60_000_000);
    assert!(value(ago).await.unwrap().starts_with("-49.9"), "{:?}", value(ago).await);
    let system = "(SELECT system_identifier FROM pg_catalog.pg_control_system())";
    assert_eq!(value(system).await.as_deref(), Some("7300000000000000001"));
}
