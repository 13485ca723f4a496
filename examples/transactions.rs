//! A transaction that can be sent again: a transfer with a key of its own, in `SERIALIZABLE`.
//!
//! `DATABASE_URL=postgres://… cargo run --example transactions`. It makes two tables, `accounts` and `transfers`.

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
    // The second time finds that it was done, as it would after an answer that got lost.
    for _ in 0..2 {
        println!("{key}: {}", transfer(&pool, &key, "ann", "bob", 1).await?);
    }
    Ok(())
}

/// Moves money, once for each key however often it is called.
async fn transfer(pool: &Pool, key: &str, from: &str, to: &str, amount: i64) -> Result<&'static str, Error> {
    loop {
        // Does it again by itself only while certainly nothing was applied.
        let done = pool.retry_unapplied(Target::Primary, |client| attempt(client, key, from, to, amount)).await;
        match done {
            // The key makes it safe to send again also what may have been applied.
            Err(error) if error.applied() == Applied::Unknown && is_worth_another_try(&error) => {
                println!("{key}: not known whether it was applied, so once more: {error}");
            }
            // Another transaction was first: PostgreSQL asks for the whole transaction again.
            Err(error) if is_serialization_failure(&error) => println!("{key}: once more: {error}"),
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
    // Rolls back when it is dropped, as at each `?` here.
    let transaction = client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
    let insert = transaction.prepare_cached("INSERT INTO transfers VALUES ($1) ON CONFLICT DO NOTHING").await?;
    if transaction.execute(&insert, &[&key]).await? == 0 {
        return Ok("was done before");
    }
    let add = transaction.prepare_cached("UPDATE accounts SET balance = balance + $2 WHERE name = $1").await?;
    transaction.execute(&add, &[&from, &-amount]).await?;
    transaction.execute(&add, &[&to, &amount]).await?;
    transaction.commit().await?;
    Ok("done")
}

fn cause(error: &Error) -> Option<&tokio_postgres::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn is_serialization_failure(error: &Error) -> bool {
    cause(error).and_then(tokio_postgres::Error::code) == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}

/// The connection was lost, so another one may do better.
fn is_worth_another_try(error: &Error) -> bool {
    cause(error).is_some_and(|cause| podpool::classify(cause).is_connection_class())
}
