//! Measures throughput and latency of a prepared `SELECT 1` for many callers: with `Pool::shared`, with `Pool::get`,
//! with deadpool-postgres, and with one client of the driver for each Pod that all callers share by hand.
//!
//! `cargo bench --features testkit --bench shared` measures three local Pods, and one Pod behind a relay that adds a
//! round trip of 1 and 5 ms. `--quick` shortens each measurement to 300 ms.

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
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::mpsc,
    task::JoinSet,
};

const TEXT: &str = "SELECT 1";
const CALLERS: [usize; 6] = [1, 4, 16, 64, 256, 1_024];
/// Number of connections of deadpool-postgres to all Pods together, and of `get`.
const CONNECTIONS: usize = 24;

/// A way to execute the statement.
#[derive(Clone)]
enum Way {
    Shared(Pool),
    Get(Pool),
    Deadpool(Vec<deadpool_postgres::Pool>, Arc<AtomicUsize>),
    ByHand(Arc<Vec<(Client, Statement)>>, Arc<AtomicUsize>),
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Shared(_) => "shared",
            Self::Get(_) => "get",
            Self::Deadpool(..) => "deadpool",
            Self::ByHand(..) => "by hand",
        }
    }

    /// Returns the number of connections that execute statements.
    fn connections(&self, pods: usize) -> usize {
        match self {
            Self::Shared(_) | Self::ByHand(..) => pods,
            Self::Get(_) | Self::Deadpool(..) => CONNECTIONS,
        }
    }

    async fn execute(&self) {
        match self {
            Self::Shared(pool) => {
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
    println!(
        "| {callers} | {} | {rate:.0} | {:.0} | {:.0?} | {:.0?} |",
        way.name(),
        rate / way.connections(pods) as f64,
        at(0.5),
        at(0.99)
    );
}

/// Forwards connections to a Pod, and delays the responses.
async fn relay(pod: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the socket has an address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(pod).await else { continue };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(forward(from_client, to_server, Duration::ZERO));
            tokio::spawn(forward(from_server, to_client, delay));
        }
    });
    address
}

async fn forward(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
    let write = async move {
        while let Some((at, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let read = async move {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            let _ = sender.send((tokio::time::Instant::now() + delay, bytes[..length].to_vec()));
        }
    };
    tokio::join!(write, read);
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
        Way::Shared(pool("&min_idle=0".to_owned()).await),
        Way::Get(pool(format!("&pool_size={}", CONNECTIONS / pods.len())).await),
        Way::Deadpool(pools, Arc::default()),
        Way::ByHand(Arc::new(clients), Arc::default()),
    ]
}

#[tokio::main]
async fn main() {
    let quick = env::args().any(|argument| argument == "--quick" || argument == "--test");
    let time = Duration::from_millis(if quick { 300 } else { 3_000 });
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    for delay in [0, 1, 5].map(Duration::from_millis) {
        let (url, pods) = if delay.is_zero() {
            let pods: Vec<_> = cluster.pods().iter().map(|pod| pod.address()).collect();
            (format!("{}&", cluster.url()), pods)
        } else {
            let pod = cluster.pod(0).address();
            let relay = relay(pod, delay).await;
            (format!("{}?", cluster.pod_url(0).replace(&pod.to_string(), &relay.to_string())), vec![relay])
        };
        println!("\n{} Pods, {delay:?} added to each round trip\n", pods.len());
        println!("| callers | | statements/s | per connection | p50 | p99 |\n|---|---|---|---|---|---|");
        let ways = ways(&cluster, &url, &pods).await;
        for callers in CALLERS {
            for way in &ways {
                measure(way, callers, pods.len(), time).await;
            }
        }
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
