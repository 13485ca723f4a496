//! Measures throughput and latency of a prepared `SELECT 1` for many callers: with `Pool::shared` and one or four
//! shared connections to each Pod, with `Pool::get`, with deadpool-postgres, and with one client of the driver for each
//! Pod that all callers share by hand.
//!
//! `cargo bench --features testkit --bench shared` measures three local Pods, and one Pod behind a relay that adds a
//! round trip of 1 and 5 ms. `--quick` shortens each measurement to 300 ms. Arguments such as `64`, `deadpool` and
//! `local` restrict the run to these numbers of callers, to these ways, and to local Pods.

#[path = "../tests/common/distance.rs"]
#[allow(unreachable_pub, reason = "a bench has no public API")]
mod distance;

use std::{
    env,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    Pool, Target,
    deadpool_postgres::{self, Manager, ManagerConfig, RecyclingMethod},
    testkit::Cluster,
    tokio_postgres::{Client, Config, NoTls, Statement},
};
use tokio::task::JoinSet;

use self::distance::Distance;

const TEXT: &str = "SELECT 1";
const CALLERS: [usize; 6] = [1, 4, 16, 64, 256, 1_024];
/// Number of connections of deadpool-postgres to all Pods together, and of `get`.
const CONNECTIONS: usize = 24;

/// A way to execute the statement.
#[derive(Clone)]
enum Way {
    /// The number of shared connections to each Pod.
    Shared(usize, Pool),
    Get(Pool),
    Deadpool(Vec<deadpool_postgres::Pool>, Arc<AtomicUsize>),
    ByHand(Arc<Vec<(Client, Statement)>>, Arc<AtomicUsize>),
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Shared(1, _) => "shared",
            Self::Shared(..) => "shared-4",
            Self::Get(_) => "get",
            Self::Deadpool(..) => "deadpool",
            Self::ByHand(..) => "by hand",
        }
    }

    /// Returns the number of connections that execute statements.
    fn connections(&self, pods: usize) -> usize {
        match self {
            // More are opened if the round trip limits the rate.
            Self::Shared(_, pool) => pool.status().endpoints.iter().map(|pod| pod.shared).sum(),
            Self::ByHand(..) => pods,
            Self::Get(_) | Self::Deadpool(..) => CONNECTIONS,
        }
    }

    async fn execute(&self) {
        match self {
            Self::Shared(_, pool) => {
                pool.shared(Target::Any).query_one(TEXT, &[]).await.expect("the statement succeeds");
            }
            Self::Get(pool) => {
                let client = pool.get().await.expect("checkout succeeds");
                let statement = client.prepare_cached(TEXT).await.expect("the statement is prepared");
                client.query_one(&statement, &[]).await.expect("the statement succeeds");
            }
            Self::Deadpool(pools, next) => {
                let pool = &pools[next.fetch_add(1, Ordering::Relaxed) % pools.len()];
                let client = pool.get().await.expect("checkout succeeds");
                let statement = client.prepare_cached(TEXT).await.expect("the statement is prepared");
                client.query_one(&statement, &[]).await.expect("the statement succeeds");
            }
            Self::ByHand(clients, next) => {
                let (client, statement) = &clients[next.fetch_add(1, Ordering::Relaxed) % clients.len()];
                client.query_one(statement, &[]).await.expect("the statement succeeds");
            }
        }
    }
}

/// Runs the callers, and prints the throughput and the latencies.
async fn measure(way: &Way, callers: usize, pods: usize, time: Duration) {
    let run = async |time: Duration| {
        let mut tasks = JoinSet::new();
        let end = Instant::now() + time;
        for _ in 0..callers {
            let way = way.clone();
            tasks.spawn(async move {
                let mut times = Vec::new();
                loop {
                    let began = Instant::now();
                    if began >= end {
                        return times;
                    }
                    way.execute().await;
                    times.push(began.elapsed());
                }
            });
        }
        tasks.join_all().await.concat()
    };
    run(time / 4).await; // opens the connections
    let began = Instant::now();
    let mut times = run(time).await;
    let took = began.elapsed();
    times.sort_unstable();
    let rate = times.len() as f64 / took.as_secs_f64();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let connections = way.connections(pods);
    println!(
        "| {callers} | {} | {connections} | {rate:.0} | {:.0} | {:.0?} | {:.0?} |",
        way.name(),
        rate / connections as f64,
        at(0.5),
        at(0.99)
    );
}

async fn ways(cluster: &Cluster, url: &str, pods: &[SocketAddr]) -> Vec<Way> {
    let pool = |parameters: String| async move {
        let url = format!("{url}sslmode=disable&connect_timeout=60s&acquire_timeout=60s{parameters}");
        Pool::connect(&url).await.expect("the pool is created")
    };
    let mut configs = Vec::new();
    for pod in pods {
        let mut config = Config::new();
        config.host(pod.ip().to_string()).port(pod.port()).user(cluster.user());
        config.password(cluster.password()).dbname(cluster.database());
        configs.push(config);
    }
    let (mut pools, mut clients) = (Vec::new(), Vec::new());
    for config in configs {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), NoTls, recycling);
        let size = CONNECTIONS / pods.len();
        pools.push(deadpool_postgres::Pool::builder(manager).max_size(size).build().expect("the pool is created"));
        let (client, connection) = config.connect(NoTls).await.expect("the connection is opened");
        tokio::spawn(connection);
        let statement = client.prepare(TEXT).await.expect("the statement is prepared");
        clients.push((client, statement));
    }
    vec![
        Way::Shared(1, pool("&min_idle=0".to_owned()).await),
        Way::Shared(4, pool("&min_idle=0&shared_connections=4".to_owned()).await),
        Way::Get(pool(format!("&pool_size={}", CONNECTIONS / pods.len())).await),
        Way::Deadpool(pools, Arc::default()),
        Way::ByHand(Arc::new(clients), Arc::default()),
    ]
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick" || argument == "--test");
    let chosen = |name: &str| arguments.iter().any(|argument| argument == name);
    let is_one_chosen = |names: &[String]| names.iter().any(|name| chosen(name));
    let is_selected = |all: &[String], name: &str| !is_one_chosen(all) || chosen(name);
    let callers = CALLERS.map(|callers| callers.to_string());
    let time = Duration::from_millis(if quick { 300 } else { 3_000 });
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    for delay in [0, 1, 5].map(Duration::from_millis) {
        if chosen("local") && !delay.is_zero() {
            continue;
        }
        let pod = cluster.pod(0).address();
        let distant = (!delay.is_zero()).then(|| Distance::start(pod, delay));
        let (url, pods) = match &distant {
            None => (format!("{}&", cluster.url()), cluster.pods().iter().map(|pod| pod.address()).collect()),
            Some(distant) => {
                let address = distant.address();
                let url = cluster.pod_url(0).replace(&pod.to_string(), &address.to_string());
                (format!("{url}?"), vec![address])
            }
        };
        println!("\n{} Pods, {delay:?} added to each round trip\n", pods.len());
        println!("| callers | | connections | statements/s | each | p50 | p99 |\n|---|---|---|---|---|---|---|");
        let ways = ways(&cluster, &url, &pods).await;
        let names: Vec<_> = ways.iter().map(|way| way.name().to_owned()).collect();
        for number in CALLERS.into_iter().filter(|number| is_selected(&callers, &number.to_string())) {
            for way in ways.iter().filter(|way| is_selected(&names, way.name())) {
                measure(way, number, pods.len(), time).await;
            }
        }
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
