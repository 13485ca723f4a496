//! A first query: print the server version, the Pod that responded, and the time.
//!
//! `DATABASE_URL="postgres://user:password@postgresql-svc.k8s-training.svc.cluster.local/database\
//!     ?sslmode=verify-full&sslrootcert=ca.crt" cargo run --example quickstart`

use podpool::{Pool, Target};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::connect(&std::env::var("DATABASE_URL")?).await?;

    let client = pool.get().await?;
    let version: String = client.query_one("SELECT version()", &[]).await?.get(0);
    println!("{} runs {version}", client.endpoint());

    // A read. If its connection fails, the pool retries it on another Pod.
    let now: String = pool
        .retry(Target::PreferStandby, |client| async move {
            client.query_one("SELECT now()::text", &[]).await.map(|row| row.get(0))
        })
        .await?;
    println!("the time is {now}");
    Ok(())
}
