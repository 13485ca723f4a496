//! A group of servers with an operator, its Pods and a client.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Client, Config, NoTls, config::SslMode};

use crate::{
    operator::*,
    postgres::{tests::Network, *},
    spawn::{Spawn, Task},
};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A host whose tasks can be killed.
#[derive(Clone, Debug, Default)]
pub(super) struct Host(Arc<Mutex<Vec<AbortHandle>>>);

impl Spawn for Host {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap();
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(task).abort_handle());
    }
}

impl Host {
    pub(super) fn kill(&self) {
        self.0.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

/// Starts the agent or instance manager of a server.
type Manager = dyn Fn(&Arc<World>, &Arc<Server>) -> Task<'static> + Send + Sync;

/// A group of servers with an operator and a client.
pub(super) struct World {
    begin: Instant,
    /// The events.
    pub(super) trace: Arc<Mutex<Vec<String>>>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) network: Arc<Network>,
    pub(super) servers: Vec<Arc<Server>>,
    hosts: BTreeMap<String, Host>,
    /// The tasks of the managers, on the same hosts.
    managers: BTreeMap<String, Host>,
    pub(super) store: Arc<MemoryStore>,
    manager: Box<Manager>,
    /// The last report of each Pod.
    pub(super) reports: Mutex<BTreeMap<String, (bool, Role)>>,
    /// The Pods that were created again, in this order.
    pub(super) recreated: Mutex<Vec<String>>,
    /// The ids whose commits were acknowledged to the client.
    pub(super) acknowledged: Mutex<Vec<i64>>,
}

/// The Pods of a world. Weak, because the world owns their managers.
pub(super) struct WorldPods(pub(super) std::sync::Weak<World>);

impl Pods for WorldPods {
    fn report(&self, pod: &str, ready: bool, role: Role) {
        if let Some(world) = self.0.upgrade() {
            world.reports.lock().unwrap().insert(pod.to_owned(), (ready, role));
        }
    }

    fn recreate<'a>(&'a self, pod: &'a str) -> Task<'a> {
        Box::pin(async move {
            let Some(world) = self.0.upgrade() else { return };
            world.recreated.lock().unwrap().push(pod.to_owned());
            world.kill(pod);
            sleep(2 * SECOND).await;
            world.manage(pod);
        })
    }
}

impl World {
    /// Creates a group of running servers, whose managers are started by `manager`.
    pub(super) async fn new(
        size: usize,
        manager: impl Fn(&Arc<Self>, &Arc<Server>) -> Task<'static> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let network = Arc::new(Network::default());
        let print = std::env::var_os("TRACE").is_some();
        let (begin, trace) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let events = trace.clone();
        let cluster = Cluster::new(7, network.clone(), move |host, text| {
            let event = format!("{:10.6} {host}: {text}", begin.elapsed().as_secs_f64());
            if print {
                println!("{event}");
            }
            events.lock().unwrap().push(event);
        });
        let names: Vec<_> = (0..size).map(|index| format!("pg-{index}")).collect();
        let hosts: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), Host::default())).collect();
        let create = |name: &String| Server::new(name, &cluster, hosts[name].clone(), Settings::default(), 1);
        let servers: Vec<_> = names.iter().map(create).collect();
        bootstrap(&servers).await.unwrap();
        let store = MemoryStore::new("store", network.clone(), 10 * SECOND);
        Arc::new(Self {
            begin,
            trace,
            cluster,
            network,
            servers,
            managers: hosts.keys().map(|name| (name.clone(), Host::default())).collect(),
            hosts,
            store,
            manager: Box::new(manager),
            reports: Mutex::default(),
            recreated: Mutex::default(),
            acknowledged: Mutex::default(),
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.name().to_owned()).collect()
    }

    /// Starts the manager of a server on its host.
    pub(super) fn manage(self: &Arc<Self>, name: &str) {
        let server = self.cluster.server(name).unwrap();
        self.managers[name].spawn((self.manager)(self, &server));
    }

    /// Ends the manager of a server.
    pub(super) fn end_manager(&self, name: &str) {
        self.managers[name].kill();
    }

    /// Ends all tasks of a host.
    fn kill(&self, name: &str) {
        self.managers[name].kill();
        self.hosts[name].kill();
        self.cluster.server(name).unwrap().crash();
    }

    /// Kills a host, and starts it again after `outage`.
    pub(super) async fn restart_host(self: &Arc<Self>, name: &str, outage: Duration) {
        self.cluster.event(name, "the host is killed");
        self.network.isolate(name, true);
        self.kill(name);
        sleep(outage).await;
        self.network.isolate(name, false);
        self.manage(name);
    }

    /// Returns the servers that run as primaries.
    pub(super) fn primaries(&self) -> Vec<String> {
        let primaries = self.servers.iter().filter(|server| server.status().is_primary());
        primaries.map(|server| server.name().to_owned()).collect()
    }

    /// Waits until one server is the primary and all others receive from it. Returns the primary.
    pub(super) async fn healthy(&self, limit: Duration) -> String {
        let healthy = async {
            loop {
                let receiving = self.servers.iter().filter(|server| server.status().receiving).count();
                if let [primary] = &self.primaries()[..]
                    && receiving + 1 == self.servers.len()
                {
                    return primary.clone();
                }
                sleep(SECOND / 10).await;
            }
        };
        let states = || self.servers.iter().map(|server| server.status()).collect::<Vec<_>>();
        timeout(limit, healthy)
            .await
            .unwrap_or_else(|_| panic!("not healthy: {:#?}, {:?}", states(), self.store.peek()))
    }

    async fn connect(&self, server: &Arc<Server>) -> Option<Client> {
        let (stream, peer) = tokio::io::duplex(65_536);
        let serving = server.clone();
        let serve = async move { serving.serve(peer, ([10, 0, 0, 1], 4711).into()).await };
        self.hosts[server.name()].spawn(serve);
        let mut config = Config::new();
        config.user("app").ssl_mode(SslMode::Disable);
        let (client, connection) = timeout(SECOND, config.connect_raw(stream, NoTls)).await.ok()?.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// Inserts ids, one after the other, into any server that accepts them, until the task is dropped. No id is
    /// inserted twice.
    pub(super) async fn insert_forever(self: Arc<Self>) {
        let mut id = 0;
        loop {
            for server in &self.servers {
                let Some(client) = self.connect(server).await else { continue };
                loop {
                    id += 1;
                    let insert = async { client.execute("INSERT INTO history (id) VALUES ($1)", &[&id]).await };
                    match timeout(5 * SECOND, insert).await {
                        Ok(Ok(_)) => self.acknowledged.lock().unwrap().push(id),
                        Ok(Err(_)) | Err(_) => break,
                    }
                    sleep(SECOND / 20).await;
                }
            }
            sleep(SECOND / 10).await;
        }
    }

    /// Returns the acknowledged ids that the primary does not have. Fails if an id is there twice.
    pub(super) fn lost(&self, primary: &str) -> Vec<i64> {
        let log = self.cluster.server(primary).unwrap().log();
        let mut ids: Vec<_> = log.ids(log.end()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "an id was inserted twice");
        let acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.iter().filter(|id| ids.binary_search(id).is_err()).copied().collect()
    }

    /// Applies random faults, and waits for `recovery` after the last one. Returns the number of acknowledged ids that
    /// were lost, and the simulated time.
    pub(super) async fn random_history(self: &Arc<Self>, seed: u64, recovery: Duration) -> (usize, Duration) {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..3 {
            self.fault(&mut random).await;
            sleep(Duration::from_millis(random.u64(..30_000))).await;
        }
        sleep(recovery).await;
        let primary = self.healthy(180 * SECOND).await;
        let before = self.acknowledged.lock().unwrap().len();
        sleep(10 * SECOND).await;
        assert!(self.acknowledged.lock().unwrap().len() > before, "seed {seed}: the client is not served");
        (self.lost(&primary).len(), self.begin.elapsed())
    }

    /// Applies a random fault for a random time.
    pub(super) async fn fault(self: &Arc<Self>, random: &mut fastrand::Rng) {
        let primary = self.primaries().pop();
        let victim = match primary.filter(|_| random.u8(..3) > 0) {
            Some(primary) => self.cluster.server(&primary).unwrap(),
            None => self.servers[random.usize(..self.servers.len())].clone(),
        };
        let duration = Duration::from_millis(random.u64(500..60_000));
        let name = victim.name();
        match random.u8(..8) {
            0 | 1 => self.restart_host(name, duration).await,
            2 => victim.crash(),
            3 => victim.crash_backend(),
            4 => victim.stop(Shutdown::Fast),
            5 => {
                self.cluster.event(name, "isolated");
                self.network.isolate(name, true);
                sleep(duration).await;
                self.network.isolate(name, false);
                self.cluster.event(name, "no longer isolated");
            }
            6 => {
                self.store.set_outage(true);
                sleep(duration / 2).await;
                self.store.set_outage(false);
            }
            _ => {
                let other = &self.servers[random.usize(..self.servers.len())];
                self.cluster.event(name, format!("partition from {}", other.name()));
                self.network.partition(name, other.name(), true);
                sleep(duration).await;
                self.network.partition(name, other.name(), false);
            }
        }
    }
}

/// Runs `history` for each of 100 seeds, each on a runtime of its own. Returns the numbers of lost ids, and prints the
/// simulated time of all histories.
pub(super) fn random_histories(history: impl AsyncFn(u64) -> (usize, Duration)) -> Vec<usize> {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(seed))
    };
    let (lost, times): (Vec<_>, Vec<_>) = (0..100).map(run).unzip();
    println!("simulated {} s", times.iter().sum::<Duration>().as_secs());
    lost
}
