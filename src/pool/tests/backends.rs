//! The sessions that a fleet of clients keeps open on each server, in simulated time. Each client is a whole pool; only
//! the streams of its connections and the servers are simulated. `PODPOOL_FLEET=500` simulates all clients; see
//! [`fleet`](super::fleet).
#![allow(clippy::print_stdout, reason = "prints the measured figures")]

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Duration, Instant, sleep},
};

use super::fleet::{FLEET, PODS, clients, endpoint};
use crate::{
    config::{Config, Limits, Target},
    discovery::{Resolution, Resolve, ResolveError},
    endpoint::Role,
    pool::Pool,
    sync::lock,
};

/// Time after which all connections have been opened.
const SETTLED: Duration = Duration::from_secs(20);
/// Time for which the sessions are counted.
const WATCHED: Duration = Duration::from_secs(40);

/// The open sessions of one server.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    pooled: usize,
    probes: usize,
}

type Servers = Arc<Mutex<[Open; PODS]>>;

#[derive(Debug)]
struct AllPods;

impl Resolve for AllPods {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        let pods = (0..PODS).map(endpoint).collect();
        Box::pin(async move { Ok(Resolution::new(pods, Instant::now() + Duration::from_secs(30))) })
    }

    fn source(&self) -> String {
        "a simulation".into()
    }
}

/// A session that is counted until it ends.
struct Counted {
    servers: Servers,
    pod: usize,
    is_probe: bool,
}

impl Counted {
    fn count<'a>(&self, servers: &'a mut [Open; PODS]) -> &'a mut usize {
        let open = &mut servers[self.pod];
        if self.is_probe { &mut open.probes } else { &mut open.pooled }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.count(&mut lock(&self.servers)) -= 1;
    }
}

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("the message is short");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// Returns the response to the query for the server's state. Pod 0 is the primary.
pub(super) fn facts(pod: usize) -> Vec<u8> {
    let started = (pod + 1).to_string();
    let columns: [Option<&str>; 12] = match pod {
        0 => {
            let (timeline, started) = (Some("00000001"), Some(&*started));
            [
                Some("f"),
                Some("7"),
                timeline,
                Some("0/1"),
                Some("f"),
                None,
                Some("9999"),
                None,
                None,
                None,
                started,
                None,
            ]
        }
        _ => {
            let (one, at, upstream) = (Some("1"), Some("0/1"), Some("10.0.0.1 5432"));
            [Some("t"), Some("7"), None, at, Some("t"), None, Some("9999"), one, one, at, Some(&started), upstream]
        }
    };
    row(&columns)
}

/// Returns the response to a query that returns one row.
pub(super) fn row(columns: &[Option<&str>]) -> Vec<u8> {
    let mut description = u16::try_from(columns.len()).expect("few columns").to_be_bytes().to_vec();
    let mut row = description.clone();
    for column in columns {
        // A column without a name, of the type `text`: the other fields are those of an expression.
        description.extend(b"\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
        match column {
            Some(text) => {
                row.extend([&u32::try_from(text.len()).expect("short").to_be_bytes()[..], text.as_bytes()].concat())
            }
            None => row.extend([0xff; 4]),
        }
    }
    [message(b'T', &description), message(b'D', &row), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

async fn serve(mut stream: DuplexStream, servers: Servers, pod: usize) -> io::Result<()> {
    let mut startup = vec![0; stream.read_u32().await? as usize - 4];
    stream.read_exact(&mut startup).await?;
    let is_probe = startup.windows(7).any(|name| name == b"/probe\0");
    let session = Counted { servers: servers.clone(), pod, is_probe };
    *session.count(&mut lock(&servers)) += 1;
    let role: &[u8] = if pod == 0 { b"in_hot_standby\0off\0" } else { b"in_hot_standby\0on\0" };
    let response = [message(b'R', &[0; 4]), message(b'S', role), message(b'Z', b"I")].concat();
    sleep(Duration::from_millis(1)).await;
    stream.write_all(&response).await?;
    loop {
        let kind = stream.read_u8().await?;
        let mut body = vec![0; stream.read_u32().await? as usize - 4];
        stream.read_exact(&mut body).await?;
        sleep(Duration::from_millis(1)).await;
        match kind {
            b'S' => stream.write_all(&message(b'Z', b"I")).await?,
            b'Q' if body.windows(17).any(|text| text == b"pg_is_in_recovery") => stream.write_all(&facts(pod)).await?,
            b'Q' => stream.write_all(&[message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()).await?,
            b'X' => return Ok(()),
            _ => {}
        }
    }
}

/// Runs one caller: on average one statement per second, one after the other.
async fn call(pool: Pool, target: Target, seed: usize) {
    let mut random = fastrand::Rng::with_seed(seed as u64);
    loop {
        sleep(Duration::from_secs(1).mul_f64(-random.f64().max(1e-9).ln())).await;
        let client = pool.get_for(target).await.expect("a connection");
        client.simple_query("SELECT 1").await.expect("the statement succeeds");
    }
}

/// Starts a client whose callers have requested these targets. The callers hold no connections, but if they have
/// requested a primary, they write.
fn start(client: usize, limits: Limits, servers: &Servers, targets: &'static [Target]) -> Pool {
    let limits = Limits { clients: Some(FLEET), ..limits };
    let config = Config::new("simulated.svc.cluster.local").expect("a name").with_limits(limits);
    let config = config.with_client_id(format!("client-{client}")).with_user("user");
    let pool = Pool::builder(config).resolver(AllPods).build().expect("a pool");
    let servers = servers.clone();
    pool.0.inner.shared.dialer.get().expect("the pool exists").simulate(move |pod| {
        let pod = (0..PODS).find(|&i| endpoint(i) == *pod).expect("a simulated Pod");
        let (stream, server) = duplex(4096);
        // The session ends with an error when the client closes the stream.
        drop(tokio::spawn({
            let servers = servers.clone();
            async move { serve(server, servers, pod).await.ok() }
        }));
        stream
    });
    let inner = pool.0.inner.clone();
    targets.iter().for_each(|target| inner.shared.request_target(*target));
    if targets.contains(&Target::ReadWrite) {
        drop(tokio::spawn(async move {
            loop {
                inner.shared.wrote();
                sleep(Duration::from_secs(1)).await;
            }
        }));
    }
    pool
}

/// Asserts that the sessions on each server, those of probes included, stay within 1.05 times the number of clients
/// times `min_idle`. If `with_callers` is true, each client has one caller for each target.
fn assert_bounded(name: &str, limits: Limits, targets: &'static [Target], with_callers: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (servers, clients) = (Servers::default(), clients());
        let pools: Vec<_> = (0..clients).map(|client| start(client, limits, &servers, targets)).collect();
        let calls = pools.iter().flat_map(|pool| targets.iter().map(move |target| (pool.clone(), *target)));
        let calls = calls.enumerate().filter(|_| with_callers);
        let callers: Vec<_> = calls.map(|(i, (pool, target))| tokio::spawn(call(pool, target, i))).collect();
        sleep(SETTLED).await;
        let watched = Instant::now();
        let (mut most, mut probes, mut least) = (0, 0, usize::MAX);
        while watched.elapsed() < WATCHED {
            let open = *lock(&servers);
            let all = || open.iter().map(|open| open.pooled + open.probes);
            most = most.max(all().max().unwrap_or(0));
            least = least.min(all().max().unwrap_or(0));
            probes = probes.max(open.iter().map(|open| open.probes).max().unwrap_or(0));
            sleep(Duration::from_millis(50)).await;
        }
        let scaled = |sessions: usize| sessions * FLEET / clients;
        let limit = 1.05 * (FLEET * limits.min_idle) as f64;
        println!(
            "{name}, {clients} clients, min_idle={}: at most {} sessions per Pod for {FLEET} clients (limit {limit}), \
             {} of them for probes only",
            limits.min_idle,
            scaled(most),
            scaled(probes)
        );
        assert!(scaled(most) as f64 <= limit, "{most} sessions from {clients} clients");
        assert!(least > 0, "no client is connected");
        callers.iter().for_each(tokio::task::JoinHandle::abort);
        drop(pools);
    });
}

#[test]
fn clients_of_all_pods_keep_min_idle_sessions_on_each() {
    for min_idle in [1, 2] {
        let limits = Limits { min_idle, ..Limits::default() };
        assert_bounded("all Pods", limits, &[Target::ReadWrite, Target::Any], false);
    }
}

#[test]
fn clients_whose_statements_do_not_overlap_keep_min_idle_sessions_on_each_pod() {
    assert_bounded(
        "all Pods, a reader and a writer per client",
        Limits::default(),
        &[Target::ReadWrite, Target::Standby],
        true,
    );
}

#[test]
fn clients_that_measure_lag_keep_one_session_on_a_primary_outside_their_subset() {
    let limits = Limits { subset_size: Some(3), max_lag: Some(Duration::from_secs(10)), ..Limits::default() };
    assert_bounded("subset of 3 with `max_lag`, without writers", limits, &[Target::Any], false);
}

#[test]
fn clients_that_write_keep_min_idle_sessions_on_a_primary_outside_their_subset() {
    let limits = Limits { subset_size: Some(3), ..Limits::default() };
    assert_bounded(
        "subset of 3, a reader and a writer per client",
        limits,
        &[Target::ReadWrite, Target::Standby],
        true,
    );
}

/// Callers that prefer a role do not wait for it, because every Pod serves them.
#[test]
fn a_preferred_role_is_searched_outside_the_subset() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let limits = Limits { subset_size: Some(1), ..Limits::default() };
        for (target, role) in [(Target::PreferPrimary, Role::Primary), (Target::PreferStandby, Role::Standby)] {
            let mut longest = Duration::ZERO;
            for client in 0..PODS {
                let pool = start(client, limits, &Servers::default(), &[]);
                // A caller that waited for the first connection would start a search.
                sleep(SETTLED).await;
                let began = Instant::now();
                while pool.get_for(target).await.expect("a connection").role() != role {
                    assert!(began.elapsed() < Duration::from_secs(60), "{target:?}, client {client}");
                    sleep(Duration::from_millis(100)).await;
                }
                longest = longest.max(began.elapsed());
            }
            println!("{target:?}: the first call on a Pod of the preferred role comes after at most {longest:.1?}");
        }
    });
}
