//! Custom load balancing: pick the Pod with the lowest latency unless it is busy.
//!
//! `DATABASE_URL=postgres://… cargo run --example custom_policy`

use std::{collections::BTreeMap, time::Duration};

use podpool::{
    Config, Pool, Target,
    balance::{Candidates, Policy, Rng},
};

/// A policy that picks the Pod with the lowest product of latency and load. A Pod without a measured latency counts as
/// fast, so that it gets traffic and is measured.
///
/// With many clients, this policy herds: all clients prefer the same Pod at the same time. The default,
/// [`LeastCost`](podpool::balance::LeastCost), distinguishes only coarse classes of latency, which prevents herding.
/// Use a policy such as this one only with few clients, and with Pods at different network distances.
#[derive(Debug)]
struct Fastest;

impl Policy for Fastest {
    // Every checkout calls this function, on any thread. It must not lock, allocate or read the clock.
    fn pick(&self, candidates: &Candidates<'_>, _: &mut Rng) -> Option<usize> {
        let cost = |place: usize| {
            let latency = candidates.latency(place).unwrap_or(Duration::from_micros(1));
            latency * (candidates.in_flight(place) + 1)
        };
        (0..candidates.len()).min_by_key(|place| cost(*place))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config: Config = std::env::var("DATABASE_URL")?.parse()?;
    let pool = Pool::builder(config).policy(Fastest).build()?;
    pool.wait_ready(Target::Any, Duration::from_secs(10)).await?;
    let mut shares = BTreeMap::new();
    for _ in 0..200 {
        let client = pool.get().await?;
        client.simple_query("SELECT 1").await?;
        *shares.entry(client.endpoint().to_string()).or_insert(0) += 1;
    }
    for pod in pool.status().endpoints {
        let name = pod.endpoint.to_string();
        println!("{name}: {} of 200, latency {:?}", shares.get(&name).unwrap_or(&0), pod.latency.unwrap_or_default());
    }
    Ok(())
}
