//! Repeating a transaction: a transfer with an idempotency key, at the isolation level `SERIALIZABLE`.
//!
//! `DATABASE_URL=postgres://… cargo run --example transactions` creates two tables, `accounts` and `transfers`.

use podpool::{
    Applied, Error, Pool, Transaction, TransactionOptions,
    tokio_postgres::{self, IsolationLevel},
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
    // The second call finds the key and transfers nothing, like a repetition after the response to the first commit was
    // lost.
    for _ in 0..2 {
        println!("{key}: {}", transfer(&pool, &key, "ann", "bob", 1).await?);
    }
    Ok(())
}

/// Transfers an amount between two accounts. Repeated calls with the same key transfer it only once.
async fn transfer(pool: &Pool, key: &str, from: &str, to: &str, amount: i64) -> Result<&'static str, Error> {
    let options = TransactionOptions::default().isolation_level(IsolationLevel::Serializable);
    loop {
        // The pool repeats the transaction after a conflict with a concurrent one, and if its connection is lost before
        // the commit.
        let done = pool.transaction(options, |transaction| attempt(transaction, key, from, to, amount)).await;
        match done {
            // The response to the commit was lost. The idempotency key makes it safe to repeat the transaction.
            Err(error) if error.applied() == Applied::Unknown && is_connection_error(&error) => {
                println!("{key}: repeating, the outcome is unknown: {error}");
            }
            done => return done,
        }
    }
}

async fn attempt(
    transaction: Transaction,
    key: &str,
    from: &str,
    to: &str,
    amount: i64,
) -> Result<&'static str, tokio_postgres::Error> {
    // Every early return below rolls the transaction back if it returns an error, and commits it otherwise.
    let insert = transaction.prepare_cached("INSERT INTO transfers VALUES ($1) ON CONFLICT DO NOTHING").await?;
    if transaction.execute(&insert, &[&key]).await? == 0 {
        return Ok("already applied");
    }
    let add = transaction.prepare_cached("UPDATE accounts SET balance = balance + $2 WHERE name = $1").await?;
    transaction.execute(&add, &[&from, &-amount]).await?;
    transaction.execute(&add, &[&to, &amount]).await?;
    Ok("applied")
}

/// Returns true if the connection failed, so that a repetition may succeed on another connection.
fn is_connection_error(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    cause.is_some_and(|cause| podpool::classify(cause).is_connection_class())
}
