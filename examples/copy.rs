//! `COPY` in both directions, in text and in binary format.
//!
//! `DATABASE_URL=postgres://… cargo run --example copy`

use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt as _, TryStreamExt as _};
use podpool::{
    Pool, Transaction, TransactionOptions,
    tokio_postgres::{
        self,
        binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream},
        types::Type,
    },
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::connect(&std::env::var("DATABASE_URL")?).await?;
    // The table lives as long as the transaction.
    println!("{}", pool.transaction(TransactionOptions::default(), copy).await?);
    // A COPY whose sink is dropped before `finish` copies nothing, and the pool closes its connection.
    pool.primary().await?.batch_execute("CREATE TABLE parts (id int, name text)").await?;
    {
        let client = pool.primary().await?;
        let mut sink = pin!(client.copy_in("COPY parts FROM STDIN").await?);
        sink.send(Bytes::from("1\tbulb\n")).await?;
    }
    let client = pool.primary().await?;
    let left: i64 = client.query_one("SELECT count(*) FROM parts", &[]).await?.get(0);
    client.batch_execute("DROP TABLE parts").await?;
    println!("an aborted COPY has left {left} rows");
    Ok(())
}

async fn copy(transaction: Transaction) -> Result<String, tokio_postgres::Error> {
    transaction.batch_execute("CREATE TEMP TABLE parts (id int, name text) ON COMMIT DROP").await?;

    let mut sink = pin!(transaction.copy_in("COPY parts FROM STDIN").await?);
    sink.send(Bytes::from("1\tbulb\n2\tshade\n")).await?;
    let text_in = sink.finish().await?;

    let types = [Type::INT4, Type::TEXT];
    let sink = transaction.copy_in("COPY parts FROM STDIN (FORMAT binary)").await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for id in 3..1_003 {
        writer.as_mut().write(&[&id, &format!("part {id}")]).await?;
    }
    let binary_in = writer.finish().await?;

    let rows = transaction.copy_out("COPY parts TO STDOUT (FORMAT binary)").await?;
    let rows: Vec<_> = BinaryCopyOutStream::new(rows, &types).try_collect().await?;
    let sum: i64 = rows.iter().map(|row| i64::from(row.get::<i32>(0))).sum();

    let text = transaction.copy_out("COPY parts TO STDOUT").await?;
    let count = |part: Bytes| part.iter().filter(|byte| **byte == b'\n').count();
    let lines = text.try_fold(0, |lines, part| async move { Ok(lines + count(part)) }).await?;
    Ok(format!("copied {text_in} + {binary_in} rows in, and {} (sum {sum}) and {lines} out", rows.len()))
}
