use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::{PgLsn, Type};

use super::*;

#[tokio::test(start_paused = true)]
async fn executes_the_workload_with_both_protocols() {
    let connected = connect(&primary().await).await;
    assert_eq!(connected.insert(3).await.unwrap(), 1);
    connected.client.batch_execute("INSERT INTO history (id) VALUES (1), (2)").await.unwrap();
    assert_eq!(connected.ids().await, [1, 2, 3]);
    let one = connected.client.query("SELECT id FROM history WHERE id = $1", &[&2_i64]).await.unwrap();
    assert_eq!(one.len(), 1);
    let count: i64 = connected.client.query_one("SELECT count(*) FROM history", &[]).await.unwrap().get(0);
    let max: Option<i64> = connected.client.query_one("SELECT max(id) FROM history", &[]).await.unwrap().get(0);
    assert_eq!((count, max), (3, Some(3)));
    assert_eq!(connected.value("SELECT count(*) FROM history WHERE id = 4").await.as_deref(), Some("0"));
    let typed = [(&1_i64 as &(dyn tokio_postgres::types::ToSql + Sync), Type::INT8)];
    assert_eq!(connected.client.query_typed("SELECT id FROM history WHERE id = $1", &typed).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reports_its_state_in_the_format_of_each_type() {
    let server = primary().await;
    let connected = connect(&server).await;
    connected.insert(1).await.unwrap();
    let position: PgLsn = connected.client.query_one("SELECT pg_current_wal_lsn()", &[]).await.unwrap().get(0);
    assert_eq!(u64::from(position), server.status().position.0);
    let standby: bool = connected.client.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap().get(0);
    assert!(!standby);
    let replayed: Option<PgLsn> =
        connected.client.query_one("SELECT pg_last_wal_replay_lsn()", &[]).await.unwrap().get(0);
    assert_eq!(replayed, None);
    let row = connected.client.query_one("SELECT $1::int8 AS a, $2::text, 'x'", &[&5_i64, &"y"]).await.unwrap();
    assert_eq!((row.get::<_, i64>("a"), row.get::<_, &str>(1), row.get::<_, &str>(2)), (5, "y", "x"));
}

#[tokio::test(start_paused = true)]
async fn errors_keep_the_session_and_have_a_severity() {
    let connected = connect(&primary().await).await;
    for (text, expected) in [
        ("SELECT id FROM other", "0A000"),
        ("SELECT 'open", "42601"),
        ("SET no_such_parameter = 1", "42704"),
        ("DEALLOCATE missing", "26000"),
    ] {
        let error = connected.client.simple_query(text).await.unwrap_err();
        assert_eq!(code(&error), (expected, false), "{text}");
        assert_eq!(db(&error).parsed_severity(), Some(DriverSeverity::Error));
        connected.client.check_connection().await.unwrap();
        assert_eq!(connected.client.prepare(text).await.is_err(), expected != "42704" && expected != "26000");
        connected.client.check_connection().await.unwrap();
    }
    let null: Option<i64> = None;
    let error = connected.client.execute("INSERT INTO history (id) VALUES ($1)", &[&null]).await.unwrap_err();
    assert_eq!(code(&error), ("23502", false));
}

#[tokio::test(start_paused = true)]
async fn portals_deliver_their_rows_in_parts() {
    let mut connected = connect(&primary().await).await;
    connected.client.batch_execute("INSERT INTO history (id) VALUES (1), (2), (3)").await.unwrap();
    let transaction = connected.client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT id FROM history", &[]).await.unwrap();
    let mut lengths = Vec::new();
    for _ in 0..3 {
        lengths.push(transaction.query_portal(&portal, 2).await.unwrap().len());
    }
    assert_eq!(lengths, [2, 1, 0]);
    transaction.commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancel_request_cancels_the_running_statement() {
    let server = primary().await;
    let connected = connect(&server).await;
    let token = connected.client.cancel_token();
    let started = Instant::now();
    let sleeping = async { connected.client.batch_execute("SELECT pg_sleep(60)").await };
    let cancel = async {
        sleep(Duration::from_secs(3)).await;
        token.cancel_query_raw(stream(&server), NoTls).await.unwrap();
    };
    let (result, ()) = tokio::join!(sleeping, cancel);
    assert_eq!(code(&result.unwrap_err()), ("57014", false));
    assert_eq!(started.elapsed().as_secs(), 3);
    // A request that finds the session idle has no effect.
    token.cancel_query_raw(stream(&server), NoTls).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let slept = connected.client.query_one("SELECT pg_sleep($1)", &[&2.0_f64]).await.unwrap();
    assert_eq!((slept.len(), started.elapsed().as_secs()), (1, 6));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_request_with_a_wrong_key_has_no_effect() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = primary().await;
    let connected = connect(&server).await;
    let sleeping = async { connected.client.batch_execute("SELECT pg_sleep(10)").await };
    let cancel = async {
        let mut request = stream(&server);
        let body = [16, 80_877_102, server.pids()[0], 12_345].map(i32::to_be_bytes).concat();
        request.write_all(&body).await.unwrap();
        assert_eq!(request.read(&mut [0; 8]).await.unwrap(), 0, "the server closes the stream without a response");
    };
    let (result, ()) = tokio::join!(sleeping, cancel);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_delays_each_statement() {
    let server = primary().await;
    let connected = connect(&server).await;
    server.set(|settings| settings.statement = Duration::from_secs(2));
    let started = Instant::now();
    connected.client.batch_execute("SELECT 1; SELECT 1").await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 4);
    connected.client.check_connection().await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 4, "a Sync executes no statement");
}

#[tokio::test(start_paused = true)]
async fn reports_changed_parameters_with_the_next_response() {
    let server = primary().await;
    let connected = connect(&server).await;
    server.set_read_only(true);
    connected.client.check_connection().await.unwrap();
    assert_eq!(code(&connected.insert(1).await.unwrap_err()), ("25006", false));
    connected.client.batch_execute("SET TimeZone = 'Asia/Tokyo'").await.unwrap();
    let value = connected.parameters().await;
    assert_eq!(value("default_transaction_read_only").as_deref(), Some("on"));
    assert_eq!(value("TimeZone").as_deref(), Some("Asia/Tokyo"));
}

#[tokio::test(start_paused = true)]
async fn a_terminated_session_receives_a_fatal_error() {
    let server = primary().await;
    for idle in [true, false] {
        let connected = connect(&server).await;
        let pid = server.pids()[0];
        let statement = connected.client.batch_execute(if idle { "SELECT 1" } else { "SELECT pg_sleep(60)" });
        let terminate = async {
            sleep(Duration::from_secs(1)).await;
            assert!(server.terminate(pid));
        };
        let (result, ()) = tokio::join!(statement, terminate);
        assert_eq!(result.is_ok(), idle);
        let error = timeout(Duration::from_secs(1), connected.connection).await.unwrap().unwrap().0;
        if let Err(error) = &result {
            assert_eq!(code(error), ("57P01", true));
        } else {
            assert_eq!(code(&error.unwrap()), ("57P01", true));
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(server.pids(), [0_i32; 0]);
    }
}
