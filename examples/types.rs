//! The types of the database as types of the program: an enum and a composite type, with the derives of
//! `postgres-types`.
//!
//! `DATABASE_URL=postgres://… cargo run --example types`. The application depends on `postgres-types` with the feature
//! `derive`.

use podpool::{Pool, Transaction, tokio_postgres};
use postgres_types::{FromSql, ToSql};

#[derive(Clone, Copy, Debug, PartialEq, FromSql, ToSql)]
#[postgres(name = "mood", rename_all = "snake_case")]
enum Mood {
    Happy,
    VerySad,
}

#[derive(Clone, Debug, PartialEq, FromSql, ToSql)]
#[postgres(name = "note")]
struct Note {
    mood: Mood,
    text: String,
    lines: Option<i32>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::connect(&std::env::var("DATABASE_URL")?).await?;
    let notes = [
        Note { mood: Mood::Happy, text: "it works".to_owned(), lines: Some(1) },
        Note { mood: Mood::VerySad, text: "it is Monday".to_owned(), lines: None },
    ];
    let (read, happy) = pool.transaction(podpool::TransactionOptions::default(), |tx| store(tx, &notes)).await?;
    assert_eq!(read, notes);
    println!("{} notes, of which {happy} are happy: {read:?}", read.len());
    Ok(())
}

/// Creates the types and a table, writes and reads notes, and drops everything again.
async fn store(transaction: Transaction, notes: &[Note]) -> Result<(Vec<Note>, i64), tokio_postgres::Error> {
    let types = "CREATE TYPE mood AS ENUM ('happy', 'very_sad');
        CREATE TYPE note AS (mood mood, text text, lines int);
        CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY, note note)";
    transaction.batch_execute(types).await?;
    // An array of a composite type is one parameter.
    transaction.execute("INSERT INTO notes (note) SELECT unnest($1::note[])", &[&notes]).await?;
    let rows = transaction.query("SELECT note FROM notes ORDER BY id", &[]).await?;
    let happy = transaction.query_one("SELECT count(*) FROM notes WHERE (note).mood = $1", &[&Mood::Happy]).await?;
    transaction.batch_execute("DROP TABLE notes; DROP TYPE note; DROP TYPE mood").await?;
    Ok((rows.iter().map(|row| row.get(0)).collect(), happy.get(0)))
}
