//! Read/write split: writes on the primary, reads on standbys, and a read that must see an earlier write.
//!
//! `DATABASE_URL=postgres://… cargo run --example read_write_split` creates the table `notes`.

use podpool::{Config, Pool, Target, tokio_postgres};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Standbys with a replication lag of more than five seconds get no reads.
    let url = std::env::var("DATABASE_URL")?;
    let limit = if url.contains('?') { "&max_lag=5s" } else { "?max_lag=5s" };
    let config: Config = (url + limit).parse()?;
    let pool = Pool::builder(config).build()?;
    pool.primary().await?.batch_execute("CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text)").await?;

    // A write on the primary. The pool retries it only if it is known not to have been applied.
    let (id, writer): (i32, String) = pool
        .retry_unapplied(Target::Primary, |client| async move {
            let insert = client.prepare_cached("INSERT INTO notes (text) VALUES ($1) RETURNING id").await?;
            let row = client.query_one(&insert, &[&"milk"]).await?;
            Ok::<_, tokio_postgres::Error>((row.get(0), client.endpoint().to_string()))
        })
        .await?;
    println!("note {id} was written on {writer}");

    // A read that may return slightly stale data: on a standby if there is one, to keep load off the primary. The pool
    // picks one of the standbys at each checkout.
    let (count, reader): (i64, String) = pool
        .retry(Target::PreferStandby, |client| async move {
            let count = client.prepare_cached("SELECT count(*) FROM notes").await?;
            let row = client.query_one(&count, &[]).await?;
            Ok::<_, tokio_postgres::Error>((row.get(0), client.endpoint().to_string()))
        })
        .await?;
    println!("{count} notes, counted on {reader}");

    // A read that must see the write. On the primary, every committed write is visible.
    let (text, reader): (String, String) = pool
        .retry(Target::Primary, |client| async move {
            let select = client.prepare_cached("SELECT text FROM notes WHERE id = $1").await?;
            let row = client.query_one(&select, &[&id]).await?;
            Ok::<_, tokio_postgres::Error>((row.get(0), client.endpoint().to_string()))
        })
        .await?;
    println!("note {id} is {text:?}, read from {reader}");
    Ok(())
}
