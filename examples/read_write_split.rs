//! Writes to the primary, reads to the standbys, and a read that has to see the write before it.
//!
//! `DATABASE_URL=postgres://… cargo run --example read_write_split`. It makes the table `notes`.

use podpool::{Config, Pool, Target, tokio_postgres};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A standby that is further behind than this is left out of the reads.
    let url = std::env::var("DATABASE_URL")?;
    let limit = if url.contains('?') { "&max_lag=5s" } else { "?max_lag=5s" };
    let config: Config = (url + limit).parse()?;
    let pool = Pool::builder(config).build()?;
    pool.primary().await?.batch_execute("CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text)").await?;

    // A write: on the primary, and again only where it was certainly not applied.
    let (id, writer): (i32, String) = pool
        .retry_unapplied(Target::Primary, |client| async move {
            let insert = client.prepare_cached("INSERT INTO notes (text) VALUES ($1) RETURNING id").await?;
            let row = client.query_one(&insert, &[&"milk"]).await?;
            Ok::<_, tokio_postgres::Error>((row.get(0), client.endpoint().to_string()))
        })
        .await?;
    println!("note {id} was written by {writer}");

    // A read that may be a moment old: a standby if there is one, so the primary is left to the writes. Which of them,
    // the pool decides for each checkout.
    let (count, reader): (i64, String) = pool
        .retry(Target::PreferStandby, |client| async move {
            let count = client.prepare_cached("SELECT count(*) FROM notes").await?;
            let row = client.query_one(&count, &[]).await?;
            Ok::<_, tokio_postgres::Error>((row.get(0), client.endpoint().to_string()))
        })
        .await?;
    println!("{count} notes, counted by {reader}");

    // A read that must see the write: the primary has it by definition.
    let (text, reader): (String, String) = pool
        .retry(Target::Primary, |client| async move {
            let select = client.prepare_cached("SELECT text FROM notes WHERE id = $1").await?;
            let row = client.query_one(&select, &[&id]).await?;
            Ok::<_, tokio_postgres::Error>((row.get(0), client.endpoint().to_string()))
        })
        .await?;
    println!("note {id} is {text:?}, says {reader}");
    Ok(())
}
