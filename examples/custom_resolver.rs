//! Custom discovery: read the Pods from a file, which a sidecar or a test replaces when the Pods change.
//!
//! `DATABASE_URL="postgres://user:password@a-name/database?sslmode=verify-full&sslrootcert=ca.crt" \
//!     cargo run --example custom_resolver -- PODS`
//!
//! Each line of the file `PODS` is a name and an address: `postgresql-sfs-0 10.0.0.7:5432`. The host of the URL is not
//! resolved, but the servers' certificate must contain it.

use std::{future::Future, path::PathBuf, pin::Pin, time::Duration};

use podpool::{
    Config, Endpoint, Pool, Target,
    discovery::{Resolution, Resolve, ResolveError},
};
use tokio::time::Instant;

/// Time for which a resolution is valid. The pool calls the resolver again after about this time.
const VALID: Duration = Duration::from_secs(2);

/// A resolver that reads the Pods from the file at this path.
#[derive(Debug)]
struct File(PathBuf);

impl File {
    async fn read(&self) -> Result<Resolution, ResolveError> {
        let text = tokio::fs::read_to_string(&self.0).await.map_err(ResolveError::other)?;
        let mut endpoints = Vec::new();
        for line in text.lines() {
            let (name, address) = line
                .split_once(' ')
                .ok_or_else(|| ResolveError::other(format!("expected a name and an address, got `{line}`")))?;
            let address =
                address.parse().map_err(|_| ResolveError::other(format!("expected IP:PORT, got `{address}`")))?;
            endpoints.push(Endpoint::named(name, address));
        }
        // The resolver does not have to smooth out changes: the pool removes a Pod only after two resolutions without
        // it, and keeps all Pods after an error.
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
    println!("{} Pods from {}", status.endpoints.len(), status.resolve.source);
    for _ in 0..10 {
        let client = pool.get().await?;
        client.simple_query("SELECT 1").await?;
        println!("{} responded", client.endpoint());
    }
    Ok(())
}
