//! A fleet of clients that use the same Pods, in simulated time. Each client is a whole pool with its real directory,
//! probers and upkeep; only its sockets are simulated. The tests count the Syncs and the connection attempts that each
//! Pod receives, and measure when the clients can write again.
//!
//! The servers have 500 clients, but only [`CLIENTS`] of them are simulated, each of which is configured with
//! `clients=500`. The counts are multiplied by `500 / CLIENTS`, which is exact, because the clients do not influence
//! each other. `PODPOOL_FLEET=500` simulates all of them:
//!
//! ```text
//! PODPOOL_FLEET=500 cargo test --release --lib --all-features pool::tests::fleet -- --nocapture
//! ```
#![allow(clippy::print_stdout, reason = "prints the measured figures")]

use std::{
    env,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use tokio::time::{Duration, Instant, sleep};

use super::world::{primary, standby};
use crate::{
    config::{Config, Limits, Target},
    discovery::{Resolution, Resolve, ResolveError},
    endpoint::Endpoint,
    error::Phase,
    pool::{
        Pool,
        inner::Inner,
        pod::{
            Pod,
            message::{Message, Probed},
            prober::{Probe, ProbeFactory, Watched},
        },
    },
    sync::lock,
    wire::{
        Class,
        connection_observer::Evidence,
        server_facts::{ServerFacts, Upstream},
    },
};

/// Number of clients of the simulated servers.
pub(super) const FLEET: usize = 500;
/// Number of clients that are simulated by default.
const CLIENTS: usize = 25;
pub(super) const PODS: usize = 20;
/// Interval at which the clients' callers notice whether a Pod can serve them.
const STEP: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Server {
    up: bool,
    /// Number of starts. Connections of an earlier start have ended.
    start: u32,
    pub(super) facts: ServerFacts,
    /// Time that the server needs to accept a connection.
    pub(super) accepts_within: Duration,
    syncs: Vec<Instant>,
    pub(super) dials: Vec<Instant>,
    /// The client and the time of each passed probe.
    pub(super) probes: Vec<(usize, Instant)>,
}

type Servers = Arc<Mutex<Vec<Server>>>;

/// The connections of one client, and its resolver.
#[derive(Debug)]
struct Network {
    client: usize,
    servers: Servers,
    /// The start of the server at which this prober's connection was opened.
    connected: Option<u32>,
}

/// Returns the number of clients to simulate.
pub(super) fn clients() -> usize {
    env::var("PODPOOL_FLEET").map_or(CLIENTS, |clients| clients.parse().expect("a number"))
}

pub(super) fn endpoint(pod: usize) -> Endpoint {
    Endpoint::new(([10, 0, 0, pod as u8 + 1], 5432).into())
}

pub(super) fn number(pod: &Pod) -> usize {
    (0..PODS).find(|&i| endpoint(i) == pod.endpoint).expect("a simulated Pod")
}

impl Probe for Network {
    fn probe<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>> {
        Box::pin(async move {
            if self.dials(pod) {
                let (connected, accepts_within) = {
                    let server = &mut lock(&self.servers)[number(pod)];
                    server.dials.push(Instant::now());
                    (server.up.then_some(server.start), server.accepts_within)
                };
                sleep(accepts_within).await;
                self.connected = connected;
            }
            let sent = Instant::now();
            sleep(Duration::from_millis(1)).await;
            let received = Instant::now();
            if self.connected.is_none() || self.dials(pod) {
                let attempt = pod.endpoint.attempt(Phase::Tcp, "refused");
                return Probed::Failed {
                    conclusive: true,
                    unresponsive_since: None,
                    class: Class::NotReady,
                    attempt,
                    pool: None,
                };
            }
            let facts = {
                let server = &mut lock(&self.servers)[number(pod)];
                server.probes.push((self.client, received));
                server.facts
            };
            Probed::Passed { facts, read_only: false, took: received - sent, sent, received, pool: None }
        })
    }

    fn watch_for_promotion<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Watched> + Send + 'a>> {
        Box::pin(async move {
            let now = Instant::now();
            let role = {
                let server = &mut lock(&self.servers)[number(pod)];
                if self.connected != Some(server.start) || !server.up {
                    return Watched::NoResponse;
                }
                server.syncs.push(now);
                server.facts.role
            };
            let (pod, generation, shared) = (pod.serial, pod.generation(), pod.shared());
            shared.send(Message::Observed { pod, pool: shared.id, generation, evidence: Evidence::Role(role) });
            Watched::Responded
        })
    }

    fn dials(&self, pod: &Pod) -> bool {
        let server = &lock(&self.servers)[number(pod)];
        !server.up || self.connected != Some(server.start)
    }
}

impl Resolve for Network {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        let pods = (0..PODS).map(endpoint).collect();
        Box::pin(async move { Ok(Resolution::new(pods, Instant::now() + Duration::from_secs(30))) })
    }

    fn source(&self) -> String {
        "a simulation".into()
    }
}

pub(super) struct Fleet {
    pub(super) servers: Servers,
    pub(super) pools: Vec<(Pool, Arc<Inner>)>,
    /// Time at which each client could write again.
    resumed: Vec<Option<Instant>>,
    /// If set, each caller leaves after this time, and the next one comes after the same time.
    pub(super) callers_leave_after: Option<Duration>,
}

impl Fleet {
    /// Starts clients whose callers write. Pod 0 is the primary.
    async fn start(limits: Limits) -> Self {
        let server = |pod| {
            let upstream = (pod > 0).then(|| Upstream::parse("10.0.0.1 5432")).flatten();
            let facts = if pod == 0 { primary(1) } else { ServerFacts { upstream, ..standby() } };
            let (syncs, dials, probes) = (Vec::new(), Vec::new(), Vec::new());
            Server { up: true, start: 0, facts, accepts_within: Duration::ZERO, syncs, dials, probes }
        };
        let servers: Servers = Arc::new(Mutex::new((0..PODS).map(server).collect()));
        let pool = |client: usize| {
            let limits = Limits { clients: Some(FLEET), min_idle: 0, ..limits };
            let config = Config::new("simulated.svc.cluster.local").expect("a name").with_limits(limits);
            let config = config.with_client_id(format!("client-{client}"));
            let network = servers.clone();
            let new = move || Box::new(Network { client, servers: network.clone(), connected: None }) as Box<dyn Probe>;
            let resolver = Network { client, servers: servers.clone(), connected: None };
            let pool = Pool::builder(config).resolver(resolver).probe_factory(ProbeFactory::new(new));
            let pool = pool.build().expect("a pool");
            let inner = pool.0.inner.clone();
            inner.shared.request_target(Target::ReadWrite);
            (pool, inner)
        };
        let pools: Vec<_> = (0..clients()).map(pool).collect();
        let mut fleet = Self { servers, resumed: vec![None; pools.len()], pools, callers_leave_after: None };
        fleet.pass(Duration::from_secs(8)).await;
        assert!(fleet.pools.iter().all(|(_, inner)| can_write(inner)), "all clients can write");
        fleet.forget();
        fleet
    }

    /// Lets time pass. Callers of each client wait while no Pod can take writes.
    pub(super) async fn pass(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            let is_waiting = self
                .callers_leave_after
                .is_none_or(|stay| (began.elapsed().as_millis() / stay.as_millis()).is_multiple_of(2));
            for ((_, inner), resumed) in self.pools.iter().zip(&mut self.resumed) {
                let serves = can_write(inner);
                let starving = !serves && is_waiting;
                let targets = if starving { Target::ReadWrite.bit() } else { 0 };
                inner.shared.group.urgent_probing.set(inner.shared.id, starving, Instant::now());
                inner.shared.send(Message::Starving { pool: inner.shared.id, targets });
                if serves {
                    resumed.get_or_insert_with(Instant::now);
                    inner.shared.wrote();
                }
            }
            sleep(STEP).await;
        }
    }

    /// Stops a server. Its sessions end.
    pub(super) async fn stop(&mut self, pod: usize) {
        lock(&self.servers)[pod].up = false;
        for (_, inner) in &self.pools {
            let view = inner.published.load();
            for (known, _) in view.pods().filter(|(known, _)| number(known) == pod) {
                for _ in 0..2 {
                    let evidence = Evidence::Fatal(*b"57P01");
                    let (pod, generation) = (known.serial, known.generation());
                    let pool = inner.shared.id;
                    inner.shared.send(Message::Observed { pod, pool, generation, evidence });
                }
            }
        }
        while self.pools.iter().any(|(_, inner)| can_write(inner)) {
            sleep(Duration::from_millis(1)).await;
        }
        self.resumed.fill(None);
        self.forget();
    }

    fn forget(&mut self) {
        for server in lock(&self.servers).iter_mut() {
            (server.syncs, server.dials, server.probes) = (Vec::new(), Vec::new(), Vec::new());
        }
    }

    /// Returns the maximum number of these events on one Pod within any second, over all clients of the fleet.
    pub(super) fn per_second(&self, events: impl Fn(&Server) -> &Vec<Instant>) -> usize {
        let servers = lock(&self.servers);
        let peak = |server: &Server| {
            let mut times = events(server).clone();
            times.sort_unstable();
            let mut first = 0;
            let counts = times.iter().enumerate().map(|(last, at)| {
                while times[first] + Duration::from_secs(1) < *at {
                    first += 1;
                }
                last + 1 - first
            });
            counts.max().unwrap_or(0)
        };
        servers.iter().map(peak).max().unwrap_or(0) * FLEET / self.pools.len()
    }

    /// Returns the times from `since` until each client could write again: the 95th percentile, and the maximum.
    pub(super) fn resumed_after(&self, since: Instant) -> (Duration, Duration) {
        let mut times: Vec<_> = self.resumed.iter().map(|at| at.expect("the client can write again") - since).collect();
        times.sort_unstable();
        (times[(times.len() * 95).div_ceil(100) - 1], times[times.len() - 1])
    }
}

fn can_write(inner: &Inner) -> bool {
    !inner.published.load().snapshot.candidates(Target::ReadWrite.index()).is_empty()
}

/// Runs a test in simulated time.
pub(super) fn run(limits: Limits, test: impl AsyncFnOnce(Fleet)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async { test(Fleet::start(limits).await).await });
}

/// Returns the bound for the peak of a second. With fewer simulated clients, the peak deviates more from the average,
/// so three standard deviations are allowed.
pub(super) fn bound(fleet: &Fleet, per_second: f64) -> f64 {
    let mean = per_second * fleet.pools.len() as f64 / FLEET as f64;
    if fleet.pools.len() == FLEET { per_second } else { per_second * (1.0 + 3.0 / mean.sqrt()) }
}

#[test]
fn a_promotion_is_found_by_at_most_500_syncs_per_second_and_pod() {
    run(Limits::default(), async |mut fleet| {
        fleet.pass(Duration::from_secs(5)).await;
        let (syncs, dials) = (fleet.per_second(|server| &server.syncs), fleet.per_second(|server| &server.dials));
        println!("while writing: at most {syncs} Syncs/s and {dials} dials/s per Pod");
        assert!((syncs as f64) <= bound(&fleet, 800.0) && dials == 0);
        assert_eq!(lock(&fleet.servers)[0].syncs.len(), 0, "Syncs to the primary, which cannot be promoted");

        for promoted in [1, 2] {
            fleet.stop(promoted - 1).await;
            fleet.pass(Duration::from_millis(4_000 + 311 * promoted as u64)).await;
            let (syncs, dials) = (fleet.per_second(|server| &server.syncs), fleet.per_second(|server| &server.dials));
            let promoted_at = Instant::now();
            lock(&fleet.servers)[promoted].facts = primary(promoted as u32 + 1);
            fleet.pass(Duration::from_secs(3)).await;
            let (p95, max) = fleet.resumed_after(promoted_at);
            println!(
                "before a promotion: at most {syncs} Syncs/s and {dials} dials/s per Pod; writes resume {p95:?} (p95), \
                 {max:?} (max) after it"
            );
            assert!(syncs as f64 <= bound(&fleet, 500.0), "{syncs} Syncs/s");
            assert!(dials as f64 <= bound(&fleet, 200.0), "{dials} dials/s");
            assert!(p95 <= Duration::from_millis(1500), "{p95:?}");
        }
    });
}

#[test]
fn a_restarting_primary_gets_at_most_200_connection_attempts_per_second() {
    run(Limits::default(), async |mut fleet| {
        for down in [300, 6_000] {
            fleet.stop(0).await;
            fleet.pass(Duration::from_millis(down)).await;
            let accepts_at = Instant::now();
            {
                let server = &mut lock(&fleet.servers)[0];
                (server.up, server.start) = (true, server.start + 1);
            }
            fleet.pass(Duration::from_secs(6)).await;
            let (p95, max) = fleet.resumed_after(accepts_at);
            let dials = fleet.per_second(|server| &server.dials);
            println!(
                "restart after {down} ms: at most {dials} dials/s; writes resume after {p95:?} (p95), {max:?} (max)"
            );
            assert!(dials as f64 <= bound(&fleet, 200.0), "{dials} dials/s");
            assert!(p95 <= Duration::from_secs(4), "{p95:?}");
        }
    });
}
