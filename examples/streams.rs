//! Large results: a stream of rows as they arrive, and a cursor that fetches a number of rows at a time.
//!
//! `DATABASE_URL=postgres://… cargo run --example streams`

use std::pin::pin;

use futures_util::{StreamExt as _, TryStreamExt as _};
use podpool::{
    Pool, Target,
    tokio_postgres::{self, types::ToSql},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::connect(&std::env::var("DATABASE_URL")?).await?;
    let mut client = pool.get_for(Target::PreferStandby).await?;

    // The rows arrive while the server still executes the statement.
    let sql = "SELECT n FROM generate_series(1, $1) n";
    let parameters: [&(dyn ToSql + Sync); 1] = [&100_000i32];
    let rows = client.query_raw(sql, parameters).await?;
    let sum = rows.try_fold(0i64, |sum, row| async move { Ok(sum + i64::from(row.get::<_, i32>(0))) }).await?;
    println!("the sum of all rows is {sum}");

    // A stream need not be read to its end, but it must be dropped: until then, its connection executes no other
    // statement. The driver discards the remaining rows.
    {
        let mut rows = pin!(client.query_raw(sql, parameters).await?);
        let first: i32 = rows.next().await.ok_or("no row")??.get(0);
        println!("the first row is {first}");
    }

    println!("the cursor fetched {:?} rows", fetch(&mut client).await?);
    Ok(())
}

/// Fetches 2,500 rows with a cursor, at most 1,000 at a time: the server sends no more rows than the program requests.
async fn fetch(client: &mut podpool::Client) -> Result<Vec<usize>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let cursor = transaction.bind("SELECT generate_series(1, 2500)", &[]).await?;
    let mut fetched = Vec::new();
    loop {
        let rows = transaction.query_portal(&cursor, 1_000).await?.len();
        fetched.push(rows);
        if rows < 1_000 {
            transaction.commit().await?;
            return Ok(fetched);
        }
    }
}
