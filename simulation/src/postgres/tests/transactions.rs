use super::*;

#[tokio::test(start_paused = true)]
async fn a_transaction_is_visible_only_after_its_commit() {
    let server = primary().await;
    let (mut one, other) = (connect(&server).await, connect(&server).await);
    let transaction = one.client.transaction().await.unwrap();
    transaction.execute("INSERT INTO history (id) VALUES ($1)", &[&1_i64]).await.unwrap();
    assert_eq!(transaction.query("SELECT id FROM history", &[]).await.unwrap().len(), 1);
    assert_eq!(other.ids().await, [0_i64; 0]);
    transaction.commit().await.unwrap();
    assert_eq!(other.ids().await, [1]);
    let transaction = one.client.transaction().await.unwrap();
    transaction.execute("INSERT INTO history (id) VALUES ($1)", &[&2_i64]).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(other.ids().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_transaction_accepts_only_its_end() {
    let connected = connect(&primary().await).await;
    connected.client.batch_execute("BEGIN; INSERT INTO history (id) VALUES (1)").await.unwrap();
    connected.client.batch_execute("SET no_such_parameter = 1").await.unwrap_err();
    for _ in 0..2 {
        let error = connected.client.batch_execute("SELECT 1").await.unwrap_err();
        assert_eq!(code(&error), ("25P02", false));
        assert_eq!(code(&connected.insert(2).await.unwrap_err()), ("25P02", false));
    }
    connected.client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(connected.ids().await, [0_i64; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_statements_of_one_text_form_one_transaction() {
    let connected = connect(&primary().await).await;
    let text = "INSERT INTO history (id) VALUES (1); SET no_such_parameter = 1";
    connected.client.batch_execute(text).await.unwrap_err();
    assert_eq!(connected.ids().await, [0_i64; 0]);
    let text = "INSERT INTO history (id) VALUES (1); COMMIT; SET no_such_parameter = 1";
    connected.client.batch_execute(text).await.unwrap_err();
    assert_eq!(connected.ids().await, [1]);
    assert_eq!(connected.notices(), ["25P01"]);
}

#[tokio::test(start_paused = true)]
async fn misplaced_transaction_statements_cause_warnings() {
    let connected = connect(&primary().await).await;
    connected.client.batch_execute("COMMIT").await.unwrap();
    connected.client.batch_execute("ROLLBACK").await.unwrap();
    connected.client.batch_execute("BEGIN").await.unwrap();
    connected.client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(connected.notices(), ["25P01", "25P01", "25001"]);
}

#[tokio::test(start_paused = true)]
async fn read_only_transactions_cannot_write() {
    let connected = connect(&primary().await).await;
    let set = "SET default_transaction_read_only = on";
    for text in ["BEGIN READ ONLY", "BEGIN; SET TRANSACTION READ ONLY", set] {
        connected.client.batch_execute(text).await.unwrap();
        if text == set {
            connected.client.batch_execute("BEGIN").await.unwrap();
        }
        let error = connected.insert(1).await.unwrap_err();
        assert_eq!(code(&error), ("25006", false), "{text}");
        assert_eq!(db(&error).message(), "cannot execute INSERT in a read-only transaction");
        connected.client.batch_execute("ROLLBACK").await.unwrap();
    }
    connected.client.batch_execute("RESET default_transaction_read_only").await.unwrap();
    connected.insert(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rollback_restores_parameters() {
    let connected = connect(&primary().await).await;
    connected.client.batch_execute("SET app.tenant = '1'").await.unwrap();
    connected.client.batch_execute("BEGIN; SET app.tenant = '2'; ROLLBACK").await.unwrap();
    assert_eq!(connected.value("SHOW app.tenant").await.as_deref(), Some("1"));
    connected.client.batch_execute("BEGIN; SET LOCAL app.tenant = '3'; COMMIT").await.unwrap();
    assert_eq!(connected.value("SHOW app.tenant").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_reset_removes_the_state_of_the_session() {
    let connected = connect(&primary().await).await;
    let mark = "SET app.tenant = '1'; LISTEN news; CREATE TEMP TABLE t (id int); PREPARE p AS SELECT 1";
    connected.client.batch_execute(mark).await.unwrap();
    let prepared = "SELECT pg_catalog.quote_ident(name) AS prepared \
                    FROM pg_catalog.pg_prepared_statements WHERE from_sql";
    assert_eq!(connected.value(prepared).await.as_deref(), Some("p"));
    let reset = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *; \
                 SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; DEALLOCATE p";
    for text in [reset, "DISCARD ALL"] {
        connected.client.batch_execute(text).await.unwrap();
        assert_eq!(connected.value(prepared).await, None, "{text}");
        assert_eq!(code(&connected.client.simple_query("SHOW no.such").await.unwrap_err()), ("42704", false));
        assert_eq!(connected.value("SHOW app.tenant").await.as_deref(), Some(""));
        connected.client.batch_execute(mark).await.unwrap();
    }
    for text in ["BEGIN; DISCARD ALL", "ROLLBACK; SELECT 1; DISCARD ALL"] {
        let error = connected.client.batch_execute(text).await.unwrap_err();
        assert_eq!(code(&error), ("25001", false), "{text}");
    }
}
