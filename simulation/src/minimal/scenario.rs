use std::{
    fmt::Display,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use podpool::{Config, Event, Observer, Pool, Target};
use tokio::time::{MissedTickBehavior, interval};

use super::{dns, postgres::Postgres};
use crate::world::{Host, World};

/// A client, a name server, and Pods: one primary and standbys.
pub struct Scenario {
    /// The host of the application with the pool.
    pub client: Host,
    /// The hosts of the servers.
    pub pods: Vec<Host>,
    /// Number of statements that each Pod has executed.
    statements: Vec<Arc<AtomicUsize>>,
}

const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);

fn pod_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, index as u8)
}

/// An observer that writes the pool's events into the trace.
struct Observe(Host);

impl Observer for Observe {
    fn event(&mut self, event: &Event) {
        self.0.event(event as &dyn Display);
    }
}

impl Scenario {
    /// Starts the hosts.
    pub fn start(world: &World, pods: usize) -> Self {
        let client = world.host("client", &[[10, 0, 2, 1].into()]);
        client.write_file("/etc/resolv.conf", format!("nameserver {NAME_SERVER}\noptions ndots:5\n"));
        dns::start(&world.host("dns", &[NAME_SERVER.into()]), NAME_SERVER, (0..pods).map(pod_address).collect());
        let hosts = (0..pods).map(|index| world.host(&format!("pod-{index}"), &[pod_address(index).into()])).collect();
        let scenario = Self { client, pods: hosts, statements: (0..pods).map(|_| Arc::default()).collect() };
        (0..pods).for_each(|index| scenario.start_server(index));
        scenario
    }

    fn start_server(&self, index: usize) {
        let (host, statements) = (self.pods[index].clone(), self.statements[index].clone());
        let listener = host.listen((pod_address(index), 5432).into()).expect("the port of the server is free");
        self.pods[index].run(Postgres { host, is_standby: index > 0, statements }.run(listener));
    }

    /// Starts a Pod after a crash.
    pub fn boot(&self, index: usize) {
        self.pods[index].boot();
        self.start_server(index);
    }

    /// Builds a pool on the client.
    ///
    /// # Panics
    ///
    /// Panics if the parameters are invalid.
    pub fn pool(&self, parameters: &str) -> Pool {
        let url = format!("postgres://app@postgresql-svc.shop.svc.cluster.local/shop?sslmode=disable&{parameters}");
        let config: Config = url.trim_end_matches('&').parse().expect("valid parameters");
        let observer = Observe(self.client.clone());
        self.client.enter(|| Pool::builder(config).observer(observer).build().expect("valid parameters"))
    }

    /// Runs statements at a constant rate. Returns the number of statements that each Pod has executed.
    ///
    /// # Panics
    ///
    /// Panics if a task of the client panics or is killed.
    pub async fn workload(&self, pool: &Pool, target: Target, per_second: u32, duration: Duration) -> Vec<usize> {
        let before: Vec<_> = self.statements.iter().map(|statements| statements.load(Ordering::Relaxed)).collect();
        let (pool, count) = (pool.clone(), (duration.as_secs_f64() * f64::from(per_second)).round() as u32);
        let client = self.client.clone();
        let work = self.client.run(async move {
            let mut ticks = interval(Duration::from_secs(1) / per_second);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut tasks = Vec::new();
            for number in 0..count {
                ticks.tick().await;
                let (pool, host) = (pool.clone(), client.clone());
                tasks.push(client.run(async move {
                    let result = match pool.get_for(target).await {
                        Ok(connection) => {
                            connection.simple_query("SELECT 'work'").await.map(drop).map_err(|e| e.to_string())
                        }
                        Err(error) => Err(error.to_string()),
                    };
                    host.event(format_args!("statement {number}: {result:?}"));
                }));
            }
            for task in tasks {
                task.await.expect("the client runs until the end of the workload");
            }
        });
        work.await.expect("the client runs until the end of the workload");
        self.statements.iter().zip(before).map(|(now, before)| now.load(Ordering::Relaxed) - before).collect()
    }
}
