//! A password that is changed while the pool works: connections that are open stay, new ones are opened with the new one,
//! and nobody who asks for a connection notices.
//!
//! `DATABASE_URL=postgres://user@postgresql-svc.k8s-training.svc.cluster.local/database PGPASSWORD=… \
//!     cargo run --example rotating_password`, which changes the user's password, and changes it back.
//!
//! Here the program itself keeps the password, as if it were a vault or a cloud's service for tokens. One in a file, such
//! as a mounted Secret, needs no code: `password_file=/run/secrets/password` in the URL, and the file is read again for
//! each connection.

use std::{convert::Infallible, env, time::Duration};

use podpool::{BoxError, Config, CredentialsRequest, Pool, Target, config::Secret};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Changes the password, on the servers and then in the vault, and waits for connections that are opened with it.
async fn rotate(pool: &Pool, vault: &watch::Sender<Secret>, password: &str) -> Result<u64, BoxError> {
    let client = pool.primary().await?;
    // The server quotes it. In its log, a statement with a password in it can be read: psql's `\password` hashes it first.
    let statement = "SELECT format('ALTER ROLE CURRENT_USER PASSWORD %L', $1::text)";
    let statement: String = client.query_one(statement, &[&password]).await?.get(0);
    client.batch_execute(&statement).await?;
    drop(client);
    // For a while the vault is behind. A server that refuses what it gives (28P01) has it asked once more; what has not
    // changed fails, and the next connection is opened a little later. Those that are open serve meanwhile.
    sleep(Duration::from_millis(200)).await;
    vault.send_replace(password.into());
    let before = pool.status().counters.opened;
    while pool.status().counters.opened < before + 8 {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(pool.status().counters.opened - before)
}

/// Asks for connections and uses them until it is told to stop. Gives how often, and how often in vain.
async fn work(pool: Pool, stop: watch::Receiver<bool>) -> (u64, u64) {
    let (mut requests, mut failed) = (0, 0);
    while !*stop.borrow() {
        // Not by `retry`, which would hide a connection that broke.
        match pool.get().await {
            Ok(client) => failed += u64::from(client.simple_query("SELECT 1").await.is_err()),
            Err(_) => failed += 1,
        }
        requests += 1;
        sleep(Duration::from_millis(1)).await;
    }
    (requests, failed)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (config, first): (Config, _) = (env::var("DATABASE_URL")?.parse()?, env::var("PGPASSWORD")?);
    let (vault, given) = watch::channel(Secret::from(first.as_str()));
    // Each connection lives for a second at most, so that new ones are opened all the time.
    let mut limits = *config.limits();
    limits.max_lifetime = Duration::from_secs(1);
    let provider = move |_: CredentialsRequest| std::future::ready(Ok::<_, Infallible>(given.borrow().clone()));
    let pool = Pool::builder(config.clone().with_limits(limits)).credentials(provider).build()?;
    pool.wait_ready(Target::Primary, Duration::from_secs(10)).await?;

    let ((stop, stopped), mut tasks) = (watch::channel(false), JoinSet::new());
    (0..4).for_each(|_| drop(tasks.spawn(work(pool.clone(), stopped.clone()))));
    for password in ["another 'one'", &first] {
        let opened = timeout(Duration::from_secs(30), rotate(&pool, &vault, password)).await??;
        println!("the password was changed; {opened} connections were opened with the new one");
        let old = if password == first { "another 'one'" } else { &first };
        let stranger = Pool::builder(config.clone().with_password(old)).build()?;
        let error = stranger.get().await.err().ok_or("the old one is still good")?;
        println!("with the old one: an error of kind `{}`", error.kind());
    }
    stop.send(true)?;
    let (mut requests, mut failed) = (0, 0);
    for (more, in_vain) in tasks.join_all().await {
        (requests, failed) = (requests + more, failed + in_vain);
    }
    println!("{requests} requests, {failed} failed");
    Ok(())
}
