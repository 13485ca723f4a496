//! Compares the time to check out and return a warm connection, with three real servers.

use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use podpool::{Target, testkit::Cluster};
use tokio::runtime::Runtime;
use tokio_postgres::{Config, NoTls};

use crate::{
    rounds::{Case, measure},
    table::Table,
};

/// Default number of connections to each Pod, the same as podpool's default. A pool that connects to only one Pod gets
/// as many connections as the other pools have in total.
pub const SIZE: usize = 8;
pub const PODS: usize = 3;

pub fn compare(size: usize) {
    let title = "Checkout and return of a warm connection (ratio to podpool's default; above 1 is slower)";
    let mut table = Table::new(title, "ns", false);
    for (workers, tasks) in [(1, 1), (2, 2), (2, 8)] {
        let servers = Servers::start(workers, size);
        let mut cases = servers.cases(tasks);
        let names: Vec<_> = cases.iter().map(|case| case.name).collect();
        let readings = measure(&mut cases);
        let title =
            if tasks == 1 { "1 thread, 1 task".to_owned() } else { format!("{workers} threads, {tasks} tasks") };
        table.column(title, &names, &readings);
        drop(cases);
        servers.end();
    }
    table.print();
}

/// A cluster and the runtime that its clients run on.
pub struct Servers {
    pub runtime: &'static Runtime,
    /// Number of connections to each Pod.
    pub size: usize,
    pub cluster: Cluster,
}

impl Servers {
    pub fn start(workers: usize, size: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
        // Leak the runtime, because the cases need a `'static` reference. Only one runtime is leaked per number of
        // threads.
        let runtime: &'static Runtime = Box::leak(Box::new(runtime.expect("the runtime starts")));
        let cluster = runtime.block_on(Cluster::builder().pods(PODS).setting("max_connections", "400").start());
        Self { runtime, size, cluster: cluster.expect("the cluster starts") }
    }

    pub fn end(self) {
        self.runtime.block_on(self.cluster.shutdown()).expect("the cluster shuts down");
    }

    /// Returns the total number of connections to all Pods.
    pub fn total(&self) -> usize {
        PODS * self.size
    }

    /// Returns a warm pool of connections to one Pod.
    pub fn deadpool(&self, pod: usize, size: usize, configure: impl Fn(Builder) -> Builder) -> deadpool_postgres::Pool {
        self.deadpool_to(self.cluster.pod_url(pod).parse().expect("the URL parses"), size, configure)
    }

    pub fn deadpool_to(
        &self,
        config: Config,
        size: usize,
        configure: impl Fn(Builder) -> Builder,
    ) -> deadpool_postgres::Pool {
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool =
            configure(deadpool_postgres::Pool::builder(manager).max_size(size)).build().expect("the pool is created");
        self.runtime.block_on(async {
            let mut all = Vec::new();
            for _ in 0..size {
                all.push(pool.get().await.expect("checkout succeeds"));
            }
        });
        pool
    }

    /// Returns a warm pool for each Pod.
    pub fn deadpools(&self) -> Vec<deadpool_postgres::Pool> {
        (0..PODS).map(|pod| self.deadpool(pod, self.size, |builder| builder)).collect()
    }

    /// Returns a warm pool of connections to all Pods. tokio-postgres picks a random host for each connection.
    pub fn multi_host(&self) -> deadpool_postgres::Pool {
        let mut config: Config = self.cluster.pod_url(0).parse().expect("the URL parses");
        for pod in 1..PODS {
            let other: Config = self.cluster.pod_url(pod).parse().expect("the URL parses");
            let (host, port) = (other.get_hosts()[0].clone(), other.get_ports()[0]);
            let tokio_postgres::config::Host::Tcp(host) = host else { unreachable!("a TCP host") };
            config.host(host).port(port);
        }
        config.load_balance_hosts(tokio_postgres::config::LoadBalanceHosts::Random);
        self.deadpool_to(config, self.total(), |builder| builder)
    }

    pub fn podpool(&self) -> podpool::Pool {
        self.podpool_to(format!("{}&pool_size={size}&min_idle={size}", self.cluster.url(), size = self.size))
    }

    /// Returns a warm pool that has as many connections to one Pod as the other pools have to all Pods.
    pub fn podpool_to_one(&self) -> podpool::Pool {
        self.podpool_to(format!("{}?pool_size={total}&min_idle={total}", self.cluster.pod_url(0), total = self.total()))
    }

    fn podpool_to(&self, url: String) -> podpool::Pool {
        self.runtime.block_on(async {
            let pool = podpool::Pool::connect(&url).await.expect("the pool is created");
            pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("a Pod becomes ready");
            let mut all = Vec::new();
            for _ in 0..self.total() {
                all.push(pool.get().await.expect("checkout succeeds"));
            }
            drop(all);
            pool
        })
    }

    pub fn bb8(&self, test: bool) -> Bb8 {
        let config: Config = self.cluster.pod_url(0).parse().expect("the URL parses");
        let size = u32::try_from(self.total()).expect("the size fits in a u32");
        let builder = bb8::Pool::builder().max_size(size).min_idle(size).test_on_check_out(test);
        let manager = bb8_postgres::PostgresConnectionManager::new(config, NoTls);
        self.runtime.block_on(builder.build(manager)).expect("the pool is created")
    }

    pub fn sqlx(&self, test: bool) -> sqlx::PgPool {
        let size = u32::try_from(self.total()).expect("the size fits in a u32");
        let options = sqlx::postgres::PgPoolOptions::new();
        let options = options.max_connections(size).min_connections(size).test_before_acquire(test);
        let url = self.cluster.pod_url(0);
        let url = url.split('?').next().expect("the URL parses").to_owned();
        self.runtime.block_on(options.connect(&url)).expect("the pool is created")
    }

    pub fn qorb(&self) -> Arc<qorb::pool::Pool<Connection>> {
        let addresses = (0..PODS).map(|pod| self.cluster.pod(pod).address());
        let resolver = Box::new(qorb::resolvers::fixed::FixedResolver::new(addresses));
        let connector = Arc::new(Connector(self.cluster.pod_url(0).parse().expect("the URL parses")));
        let policy =
            qorb::policy::Policy { spares_wanted: self.total(), max_slots: 2 * self.total(), ..Default::default() };
        self.runtime.block_on(async {
            let pool = Arc::new(
                qorb::pool::Pool::new("peers".into(), resolver, connector, policy).expect("the pool is created"),
            );
            drop(pool.claim().await.expect("checkout succeeds"));
            pool
        })
    }

    fn cases(&self, tasks: u64) -> Vec<Case> {
        let runtime = self.runtime;
        macro_rules! case {
            ($name:expr, $pool:expr, $check_out:expr) => {{
                let pool = $pool;
                Case::on_tasks($name, runtime, tasks, move || {
                    let pool = pool.clone();
                    async move { $check_out(&pool).await }
                })
            }};
        }
        let limit = Some(Duration::from_secs(5));
        let timed = |builder: Builder| {
            let builder = builder.wait_timeout(limit).create_timeout(limit).recycle_timeout(limit);
            builder.runtime(deadpool_postgres::Runtime::Tokio1)
        };
        let unchanged = |builder| builder;
        let deadpool = async |pool: &deadpool_postgres::Pool| drop(pool.get().await.expect("checkout succeeds"));
        let bb8 = async |pool: &Bb8| drop(pool.get().await.expect("checkout succeeds"));
        let sqlx = async |pool: &sqlx::PgPool| drop(pool.acquire().await.expect("checkout succeeds"));
        let total = self.total();
        vec![
            case!("podpool, three Pods", self.podpool(), async |pool: &podpool::Pool| {
                drop(pool.get().await.expect("checkout succeeds"));
            }),
            case!("deadpool-postgres, one Pod", self.deadpool(0, total, unchanged), deadpool),
            case!("the same, repeated", self.deadpool(0, total, unchanged), deadpool),
            case!("deadpool-postgres with its three timeouts, one Pod", self.deadpool(0, total, timed), deadpool),
            case!("deadpool-postgres, tokio-postgres multi-host", self.multi_host(), deadpool),
            case!(
                "Vec<Pool>, round robin, three Pods",
                Arc::new(RoundRobin::new(self.deadpools())),
                async |pools: &Arc<RoundRobin>| drop(pools.next().get().await.expect("checkout succeeds"))
            ),
            case!(
                "RwLock<Vec<Pool>>, round robin, three Pods",
                Arc::new(Locked::new(self.deadpools())),
                async |pools: &Arc<Locked>| drop(pools.next().get().await.expect("checkout succeeds"))
            ),
            case!("bb8-postgres, one Pod", self.bb8(true), bb8),
            case!("bb8-postgres without its checkout test, one Pod", self.bb8(false), bb8),
            case!("sqlx, one Pod", self.sqlx(true), sqlx),
            case!("sqlx without its checkout test, one Pod", self.sqlx(false), sqlx),
            case!("qorb, three Pods", self.qorb(), async |pool: &Arc<qorb::pool::Pool<Connection>>| {
                drop(pool.claim().await.expect("checkout succeeds"));
            }),
        ]
    }
}

pub type Builder = deadpool_postgres::PoolBuilder;
pub type Bb8 = bb8::Pool<bb8_postgres::PostgresConnectionManager<NoTls>>;

/// A list of one pool per Pod, picked in round-robin order: the usual hand-written code if the set of Pods never
/// changes.
pub struct RoundRobin {
    pools: Vec<deadpool_postgres::Pool>,
    next: AtomicUsize,
}

impl RoundRobin {
    pub fn new(pools: Vec<deadpool_postgres::Pool>) -> Self {
        Self { pools, next: AtomicUsize::new(0) }
    }

    pub fn next(&self) -> &deadpool_postgres::Pool {
        &self.pools[self.next.fetch_add(1, Ordering::Relaxed) % self.pools.len()]
    }
}

/// A list of one pool per Pod in a lock, picked in round-robin order: the usual hand-written code if the set of Pods
/// changes.
pub struct Locked {
    pools: RwLock<Vec<deadpool_postgres::Pool>>,
    next: AtomicUsize,
}

impl Locked {
    pub fn new(pools: Vec<deadpool_postgres::Pool>) -> Self {
        Self { pools: RwLock::new(pools), next: AtomicUsize::new(0) }
    }

    pub fn next(&self) -> deadpool_postgres::Pool {
        let pools = self.pools.read().expect("no thread panicked");
        pools[self.next.fetch_add(1, Ordering::Relaxed) % pools.len()].clone()
    }
}

/// A connection in qorb's pool, with the task that drives it.
pub struct Connection {
    pub client: tokio_postgres::Client,
    _driver: tokio::task::AbortHandle,
}

struct Connector(Config);

#[async_trait::async_trait]
impl qorb::backend::Connector for Connector {
    type Connection = Connection;

    async fn connect(&self, backend: &qorb::backend::Backend) -> Result<Connection, qorb::backend::Error> {
        let mut config = Config::new();
        config.host(backend.address.ip().to_string()).port(backend.address.port());
        config
            .user(self.0.get_user().expect("the URL has a user"))
            .dbname(self.0.get_dbname().expect("the URL has a database"));
        config.password(self.0.get_password().expect("the URL has a password"));
        let connected = config.connect(NoTls).await;
        let (client, connection) = connected.map_err(|error| qorb::backend::Error::Other(error.into()))?;
        let driver = tokio::spawn(connection).abort_handle();
        Ok(Connection { client, _driver: driver })
    }
}
