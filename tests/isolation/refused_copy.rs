//! Tests that a COPY that the server refuses has no effect on later statements, on the Pod or on the number of
//! connections. The driver sends two Syncs for such a COPY, and expects a single response.

use std::{
    collections::BTreeMap,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::SinkExt as _;
use podpool::{
    Client, Event, Pool, State, Target,
    testkit::Cluster,
    tokio_postgres::types::{ToSql, Type},
};
use tokio::time::sleep;

use crate::common::{in_state, until};

/// Number of refused COPYs.
const ROUNDS: usize = 200;

/// The ways in which a COPY is refused, with the SQLSTATE.
const REFUSALS: [&str; 3] = ["42501", "25006", "55P03"];

/// Runs a COPY that the server refuses with this SQLSTATE.
async fn refused_copy(client: &Client, sqlstate: &str) {
    let (before, copy, after) = match sqlstate {
        "42501" => ("", "COPY forbidden FROM STDIN", ""),
        "25006" => ("BEGIN READ ONLY", "COPY items FROM STDIN", "ROLLBACK"),
        _ => ("SET lock_timeout = '2ms'", "COPY locked FROM STDIN", "SET lock_timeout = 0"),
    };
    client.batch_execute(before).await.expect("the statement succeeds");
    let error = client.copy_in::<_, Bytes>(copy).await.err().expect("the COPY is refused");
    assert_eq!(error.code().map(|code| code.code()), Some(sqlstate), "{error:?}");
    client.batch_execute(after).await.expect("the statement succeeds");
}

/// Runs statements that fail and statements that succeed, one by one and pipelined, and checks the result of each.
async fn check_results(client: &Client, round: usize) {
    let code = |result: Result<_, podpool::tokio_postgres::Error>| -> String {
        let error = match result {
            Ok(()) => panic!("round {round}: a statement that fails has succeeded"),
            Err(error) => error,
        };
        error.code().map(|code| code.code().to_owned()).unwrap_or_else(|| format!("{error:?}"))
    };
    assert_eq!(code(client.batch_execute("SELECT 1/0").await), "22012");
    let number = i64::try_from(round).expect("the number is small");
    let text = format!("SELECT {number}::int8");
    for round in 0..3 {
        let row = client.query_typed(&text, &[]).await.expect("the statement succeeds");
        assert_eq!(row[0].get::<_, i64>(0), number, "attempt {round}");
    }
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&number, Type::INT8)];
    let (failed, row, other) = tokio::join!(
        client.batch_execute("SELECT nothing"),
        client.query_typed("SELECT $1 + 1", &parameters),
        client.batch_execute("SELECT 1/0"),
    );
    assert_eq!((code(failed).as_str(), code(other).as_str()), ("42703", "22012"));
    assert_eq!(row.expect("the statement succeeds")[0].get::<_, i64>(0), number + 1);
}

async fn connections(cluster: &Cluster) -> i64 {
    let admin = cluster.client(0).await.expect("the superuser connects");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'copying'";
    admin.query_one(sql, &[]).await.expect("the query succeeds").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_after_a_refused_copy_get_their_own_results() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let admin = cluster.client(0).await.expect("the superuser connects");
    admin
        .batch_execute(
            "CREATE TABLE items (id int); CREATE TABLE locked (id int); CREATE TABLE forbidden (id int); \
             GRANT ALL ON items, locked TO PUBLIC",
        )
        .await
        .expect("the tables are created");
    let lock = "BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE";
    admin.batch_execute(lock).await.expect("the table is locked");
    let url = format!("{}&pool_size=2&application_name=copying", cluster.url());
    let pool = Pool::connect(&url).await.expect("the pool is created");
    until(Duration::from_secs(20), "the Pod serves", || in_state(&pool, State::Healthy) == 1).await;
    let mut events = pool.events();
    let mut rounds = BTreeMap::new();
    let began = Instant::now();
    for round in 0..ROUNDS {
        let sqlstate = REFUSALS[round % REFUSALS.len()];
        let client = pool.get_for(Target::Any).await.expect("checkout succeeds");
        refused_copy(&client, sqlstate).await;
        if round % 2 == 0 {
            check_results(&client, round).await;
        }
        drop(client);
        check_results(&pool.get().await.expect("checkout succeeds"), round).await;
        *rounds.entry(sqlstate).or_insert(0) += 1;
    }
    until(Duration::from_secs(5), "idle connections", || {
        pool.status().endpoints.iter().all(|pod| pod.in_use == 0 && pod.idle > 0)
    })
    .await;
    let (counters, open) = (pool.status().counters, connections(&cluster).await);
    println!("{rounds:?} refused COPYs in {:?}; {open} connections, {counters:?}", began.elapsed());
    // One more connection belongs to the probes.
    assert!(open <= 3 && counters.opened <= 2 && counters.discarded == 0, "{open} open, {counters:?}");
    assert_eq!(in_state(&pool, State::Healthy), 1);
    pool.close().await;
    while let Some(event) = events.next().await {
        let event = event.expect("no event is lost");
        assert!(!matches!(event, Event::StateChanged { to: "ejected" | "probing", .. }), "{event}");
    }
    admin.batch_execute("ROLLBACK").await.expect("the lock is released");
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// A COPY can fail after the server has agreed to it: in a trigger before the server reads any data, or because of the
/// data. The number of responses that the server then sends depends on the moment of the failure, so the session ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_after_a_copy_that_fails_halfway_get_their_own_results() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let admin = cluster.client(0).await.expect("the superuser connects");
    let schema = "CREATE TABLE items (id int); CREATE TABLE guarded (id int); GRANT ALL ON items, guarded TO PUBLIC; \
                  CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                  $$ BEGIN PERFORM pg_sleep(0.01); RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END $$; \
                  CREATE TRIGGER refuse BEFORE INSERT ON guarded FOR EACH STATEMENT EXECUTE FUNCTION refuse()";
    admin.batch_execute(schema).await.expect("the tables are created");
    let pool = Pool::connect(&format!("{}&pool_size=2", cluster.url())).await.expect("the pool is created");
    until(Duration::from_secs(20), "the Pod serves", || in_state(&pool, State::Healthy) == 1).await;
    let mut events = pool.events();
    for round in 0..60 {
        let (copy, sqlstate) = match round % 2 {
            0 => ("COPY guarded FROM STDIN", "23514"),
            _ => ("COPY items FROM STDIN", "22P02"),
        };
        let client = pool.get().await.expect("checkout succeeds");
        let mut sink = pin!(client.copy_in::<_, Bytes>(copy).await.expect("the COPY begins"));
        // In some rounds, the failure is known before the data ends.
        if round % 3 == 0 {
            sleep(Duration::from_millis(20)).await;
        }
        let sent = sink.send(Bytes::from_static(b"no number\n")).await;
        let error = match sent {
            Ok(()) => sink.finish().await.expect_err("the COPY fails"),
            Err(error) => error,
        };
        let code = error.code().map(|code| code.code());
        assert!(code == Some(sqlstate) || error.is_closed(), "round {round}: {error:?}");
        drop(client);
        check_results(&pool.get().await.expect("checkout succeeds"), round).await;
        check_results(&pool.get().await.expect("checkout succeeds"), round).await;
    }
    assert_eq!(in_state(&pool, State::Healthy), 1);
    pool.close().await;
    while let Some(event) = events.next().await {
        let event = event.expect("no event is lost");
        assert!(!matches!(event, Event::StateChanged { to: "ejected" | "probing", .. }), "{event}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
