//! What the public types promise to the compiler.

use podpool::{CancelToken, Client, Config, Endpoint, Error, Event, Events, Pool, Status, Target, tokio_postgres};

fn shared<T: Send + Sync + 'static>() {}
fn sendable<T: Send>(_: &T) {}

#[test]
fn types_go_between_threads() {
    shared::<Pool>();
    shared::<Client>();
    shared::<CancelToken>();
    shared::<Config>();
    shared::<Endpoint>();
    shared::<Error>();
    shared::<Event>();
    shared::<Events>();
    shared::<Status>();
}

/// Never called: that it compiles is the test.
#[expect(dead_code, reason = "compiled only")]
fn futures_go_between_threads(pool: &Pool, client: &mut Client, token: &CancelToken, events: &mut Events) {
    sendable(&Pool::connect(""));
    sendable(&pool.get());
    sendable(&pool.get_for(Target::Standby));
    sendable(&pool.primary());
    sendable(&pool.wait_ready(Target::Any, std::time::Duration::ZERO));
    sendable(&pool.close());
    let work = |client: Client| async move { client.query_one("SELECT 1", &[]).await };
    sendable(&pool.retry(Target::Any, work));
    sendable(&pool.retry_unapplied(Target::Any, |client: Client| async move {
        client.execute("SELECT 1", &[]).await.map(drop).map_err(Box::<tokio_postgres::Error>::from)
    }));
    sendable(&token.cancel());
    sendable(&events.next());
    sendable(&client.transaction());
}

/// Every method of deadpool-postgres's `ClientWrapper` and of the driver's client, as users know them.
#[expect(dead_code, reason = "compiled only")]
async fn a_client_is_the_client_that_users_know(mut client: Client) -> Result<(), tokio_postgres::Error> {
    let statement = client.prepare_cached("SELECT 1").await?;
    client.prepare_typed_cached("SELECT $1", &[tokio_postgres::types::Type::INT4]).await?;
    client.query(&statement, &[]).await?;
    client.query_opt("SELECT 1", &[]).await?;
    client.simple_query("SELECT 1").await?;
    client.statement_cache.clear();
    let mut transaction = client.transaction().await?;
    transaction.prepare_cached("SELECT 1").await?;
    transaction.savepoint("here").await?.rollback().await?;
    transaction.commit().await?;
    client.build_transaction().read_only(true).start().await?.commit().await?;
    fn generic(_: &impl tokio_postgres::GenericClient) {}
    generic(&**client);
    let _ = (client.endpoint(), client.role(), client.cancel_token(), client.is_closed());
    Ok(())
}
