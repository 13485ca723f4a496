//! Retrying a transaction: a transfer with an idempotency key, at the isolation level `SERIALIZABLE`.
//!
//! `DATABASE_URL=postgres://… cargo run --example transactions` creates two tables, `accounts` and `transfers`.

use podpool::{
    Applied, Client, Error, Pool, Target,
    tokio_postgres::{self, IsolationLevel, error::SqlState},
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS accounts (name text PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
    CREATE TABLE IF NOT EXISTS transfers (key text PRIMARY KEY);
    INSERT INTO accounts VALUES ('ann', 100), ('bob', 0) ON CONFLICT DO NOTHING";

#[tokio::main]
async fn main() -> Outcome<()> {
    let pool = Pool::connect(&std::env::var("DATABASE_URL")?).await?;
    pool.primary().await?.batch_execute(TABLES).await?;
    let key = format!("transfer-{}", std::process::id());
    // The second call finds the key and transfers nothing, like a retry after the response to the first commit was
    // lost.
    for _ in 0..2 {
        println!("{key}: {}", transfer(&pool, &key, "ann", "bob", 1).await?);
    }
    Ok(())
}

/// Transfers an amount between two accounts. Repeated calls with the same key transfer it only once.
async fn transfer(pool: &Pool, key: &str, from: &str, to: &str, amount: i64) -> Result<&'static str, Error> {
    loop {
        // The pool retries the transaction only if it is known not to have been applied.
        let done = pool.retry_unapplied(Target::Primary, |client| attempt(client, key, from, to, amount)).await;
        match done {
            // The idempotency key makes it safe to retry even if the transaction may have been applied.
            Err(error) if error.applied() == Applied::Unknown && is_connection_error(&error) => {
                println!("{key}: retrying, the outcome is unknown: {error}");
            }
            // The transaction conflicts with a concurrent one. PostgreSQL requires that the whole transaction is
            // retried.
            Err(error) if is_serialization_failure(&error) => println!("{key}: retrying: {error}"),
            done => return done,
        }
    }
}

async fn attempt(
    mut client: Client,
    key: &str,
    from: &str,
    to: &str,
    amount: i64,
) -> Result<&'static str, tokio_postgres::Error> {
    // Every early return below drops the transaction, which rolls it back.
    let transaction = client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
    let insert = transaction.prepare_cached("INSERT INTO transfers VALUES ($1) ON CONFLICT DO NOTHING").await?;
    if transaction.execute(&insert, &[&key]).await? == 0 {
        return Ok("already applied");
    }
    let add = transaction.prepare_cached("UPDATE accounts SET balance = balance + $2 WHERE name = $1").await?;
    transaction.execute(&add, &[&from, &-amount]).await?;
    transaction.execute(&add, &[&to, &amount]).await?;
    transaction.commit().await?;
    Ok("applied")
}

fn cause(error: &Error) -> Option<&tokio_postgres::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn is_serialization_failure(error: &Error) -> bool {
    cause(error).and_then(tokio_postgres::Error::code) == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}

/// Returns true if the connection failed, so that a retry may succeed on another connection.
fn is_connection_error(error: &Error) -> bool {
    cause(error).is_some_and(|cause| podpool::classify(cause).is_connection_class())
}
