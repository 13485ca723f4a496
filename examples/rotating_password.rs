//! Password rotation while the pool is in use. Open connections stay open, new ones use the new password, and no
//! request fails.
//!
//! `DATABASE_URL="postgres://user@postgresql-svc.k8s-training.svc.cluster.local/database\
//!     ?sslmode=verify-full&sslrootcert=ca.crt" PGPASSWORD=… cargo run --example rotating_password` changes the
//! password of the user, and changes it back.
//!
//! In this program, a variable takes the place of a vault or a token service. A password in a file, such as a mounted
//! Secret, needs no code: set `password_file=/run/secrets/password` in the URL. The pool re-reads the file for each new
//! connection.

use std::{convert::Infallible, env, time::Duration};

use podpool::{BoxError, Config, CredentialsRequest, Pool, Target, config::Secret};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Changes the password on the servers, then in the vault, and waits until the pool has opened connections with the new
/// password. Returns the number of these connections.
async fn rotate(pool: &Pool, vault: &watch::Sender<Secret>, password: &str) -> Result<u64, BoxError> {
    let client = pool.primary().await?;
    // The server quotes the password. This statement may appear in the server's log. To keep a password out of the log,
    // hash it on the client, as psql's `\password` does.
    let statement = "SELECT format('ALTER ROLE CURRENT_USER PASSWORD %L', $1::text)";
    let statement: String = client.query_one(statement, &[&password]).await?.get(0);
    client.batch_execute(&statement).await?;
    drop(client);
    // For a short time, the vault still has the old password. When a server rejects the old password (28P01), the pool
    // calls the credentials provider again. If the provider returns the same password, the connection attempt fails and
    // the pool backs off. Open connections keep working.
    sleep(Duration::from_millis(200)).await;
    vault.send_replace(password.into());
    let before = pool.status().counters.opened;
    while pool.status().counters.opened < before + 8 {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(pool.status().counters.opened - before)
}

/// Sends requests until `stop` is true. Returns the number of requests and the number of failed requests.
async fn work(pool: Pool, stop: watch::Receiver<bool>) -> (u64, u64) {
    let (mut requests, mut failed) = (0, 0);
    while !*stop.borrow() {
        // Do not use `retry` here, because it would hide broken connections.
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
    let (vault, current) = watch::channel(Secret::from(first.as_str()));
    // Limit the connection lifetime to one second, so that the pool keeps opening new connections.
    let mut limits = *config.limits();
    limits.max_lifetime = Duration::from_secs(1);
    let provider = move |_: CredentialsRequest| std::future::ready(Ok::<_, Infallible>(current.borrow().clone()));
    let pool = Pool::builder(config.clone().with_limits(limits)).credentials(provider).build()?;
    pool.wait_ready(Target::Primary, Duration::from_secs(10)).await?;

    let ((stop, stopped), mut tasks) = (watch::channel(false), JoinSet::new());
    (0..4).for_each(|_| drop(tasks.spawn(work(pool.clone(), stopped.clone()))));
    for password in ["another 'one'", &first] {
        let opened = timeout(Duration::from_secs(30), rotate(&pool, &vault, password)).await??;
        println!("changed the password; opened {opened} connections with the new one");
        let old = if password == first { "another 'one'" } else { &first };
        let outdated = Pool::builder(config.clone().with_password(old)).build()?;
        let error = outdated.get().await.err().ok_or("the server still accepts the old password")?;
        println!("the old password causes an error of kind `{}`", error.kind());
    }
    stop.send(true)?;
    let (mut requests, mut failed) = (0, 0);
    for (task_requests, task_failed) in tasks.join_all().await {
        (requests, failed) = (requests + task_requests, failed + task_failed);
    }
    println!("{requests} requests, {failed} failed");
    Ok(())
}
