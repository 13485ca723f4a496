//! Pods from somewhere else than DNS: a file that a sidecar, or a test, writes anew whenever the Pods change.
//!
//! `DATABASE_URL=postgres://user:password@any-name/database cargo run --example custom_resolver -- PODS`, where `PODS` is a
//! file with lines of a name and an address with its port: `postgresql-sfs-0 10.0.0.7:5432`. The host of the URL is then a
//! name for people.

use std::{future::Future, path::PathBuf, pin::Pin, time::Duration};

use podpool::{
    Config, Endpoint, Pool, Target,
    discovery::{Resolution, Resolve, ResolveError},
};
use tokio::time::Instant;

/// How long an answer holds; the pool asks again about then.
const VALID: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct File(PathBuf);

impl File {
    async fn read(&self) -> Result<Resolution, ResolveError> {
        let text = tokio::fs::read_to_string(&self.0).await.map_err(ResolveError::other)?;
        let mut endpoints = Vec::new();
        for line in text.lines() {
            let (name, address) =
                line.split_once(' ').ok_or_else(|| ResolveError::other(format!("no name and address in `{line}`")))?;
            let address =
                address.parse().map_err(|_| ResolveError::other(format!("`{address}` is no address:port")))?;
            endpoints.push(Endpoint::named(name, address));
        }
        // The pool believes an absence when it is told twice, and an error never removes anybody: no state here.
        Ok(Resolution::new(endpoints, Instant::now() + VALID))
    }
}

impl Resolve for File {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(self.read())
    }

    fn source(&self) -> String {
        format!("the file {}", self.0.display())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config: Config = std::env::var("DATABASE_URL")?.parse()?;
    let file = std::env::args_os().nth(1).ok_or("usage: custom_resolver PODS")?;
    let pool = Pool::builder(config).resolver(File(file.into())).build()?;
    pool.wait_ready(Target::Any, Duration::from_secs(10)).await?;
    let status = pool.status();
    println!("{} Pods by {}", status.endpoints.len(), status.resolve.source);
    for _ in 0..10 {
        let client = pool.get().await?;
        client.simple_query("SELECT 1").await?;
        println!("answered by {}", client.endpoint());
    }
    Ok(())
}
