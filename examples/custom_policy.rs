//! Another way to choose among the Pods: the one that answers fastest, unless it is busy.
//!
//! `DATABASE_URL=postgres://… cargo run --example custom_policy`.

use std::{collections::BTreeMap, time::Duration};

use podpool::{
    Config, Pool, Target,
    balance::{Candidates, Policy, Rng},
};

/// The Pod with the least latency times load. What a Pod that nothing is known of would take is guessed low, so that it
/// is tried.
///
/// All clients that choose so go to the same Pod at once; the default, [`LeastCost`](podpool::balance::LeastCost), knows
/// latency in coarse classes only, which does not herd. This one is for few clients, of Pods that differ in distance.
#[derive(Debug)]
struct Fastest;

impl Policy for Fastest {
    // Called by every checkout, on every thread: no lock, no allocation, no clock.
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
