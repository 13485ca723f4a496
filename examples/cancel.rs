//! Three ways to end a statement early: a cancel token, a deadline for the whole call, and a dropped future.
//!
//! `DATABASE_URL=postgres://… cargo run --example cancel`

use std::time::{Duration, Instant};

use podpool::{Checkout, Client, Kind, Pool, Target, tokio_postgres::error::SqlState};
use tokio::time::{sleep, timeout};

const SLOW: &str = "SELECT pg_sleep(60)";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::connect(&std::env::var("DATABASE_URL")?).await?;

    // The token of podpool, unlike the driver's, contains the Pod's address.
    let client = pool.get().await?;
    let token = client.cancel_token();
    let cancel = async {
        sleep(Duration::from_millis(100)).await;
        token.cancel().await
    };
    let (result, cancelled) = tokio::join!(client.batch_execute(SLOW), cancel);
    cancelled?;
    let error = result.expect_err("the statement was cancelled");
    println!("cancelled with a token: {}", error.code() == Some(&SqlState::QUERY_CANCELED));
    // The connection is still usable.
    client.batch_execute("SELECT 1").await?;
    drop(client);

    // At the deadline, the call returns, and the statement is cancelled on the server.
    let began = Instant::now();
    let quick = Checkout::new(Target::Any).deadline(Duration::from_millis(200));
    let error = pool.retry(quick, |client: Client| async move { client.batch_execute(SLOW).await }).await;
    let error = error.expect_err("the deadline passes first");
    println!("ended at a deadline: {}, after {} ms", error.kind() == Kind::Timeout, began.elapsed().as_millis());

    // The future is dropped, and with it the connection, which the pool recycles: the statement is cancelled too.
    let work = async { pool.get().await?.batch_execute(SLOW).await.map_err(Box::<dyn std::error::Error>::from) };
    println!("dropped: {}", timeout(Duration::from_millis(200), work).await.is_err());
    while pool.status().endpoints.iter().any(|pod| pod.in_use > 0) {
        sleep(Duration::from_millis(5)).await;
    }
    let counters = pool.status().counters;
    println!("connections closed: {}, recycled: {}", counters.closed, counters.recycled);
    Ok(())
}
