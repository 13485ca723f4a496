//! Tests dual-stack Pods: a name returns an IPv4 and an IPv6 address of each Pod, and the pool counts each Pod once.
//! The servers listen on IPv4 loopback addresses. Relays on `::1` are their IPv6 addresses.

use std::{
    collections::BTreeMap,
    future::Future,
    net::{Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use podpool::{
    Config, Endpoint, EndpointStatus, Event, Pool, Target,
    discovery::{Resolution, Resolve, ResolveError},
    testkit::{Cluster, Shutdown},
};
use tokio::time::{Instant, sleep, timeout};

mod common;
use common::{load::Load, relay::Relay, trials, until};

const PODS: usize = 3;
const SOON: Duration = Duration::from_secs(20);

/// A resolver whose answers the test sets.
#[derive(Clone, Debug, Default)]
struct Answers(Arc<Mutex<Vec<SocketAddr>>>);

impl Answers {
    fn set(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        *self.0.lock().unwrap() = addresses.into_iter().collect();
    }
}

impl Resolve for Answers {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async {
            let endpoints = self.0.lock().unwrap().iter().map(|address| Endpoint::new(*address)).collect();
            Ok(Resolution::new(endpoints, Instant::now() + Duration::from_secs(1)))
        })
    }

    fn source(&self) -> String {
        "addresses of both families".into()
    }
}

/// Returns true if the pool uses exactly one address of each Pod, all of this family, and each is usable.
fn uses(pool: &Pool, ipv6: bool) -> bool {
    let endpoints = pool.status().endpoints;
    let of_family = |pod: &&EndpointStatus| pod.endpoint.address().tcp().unwrap().is_ipv6() == ipv6 && pod.is_usable();
    endpoints.iter().filter(of_family).count() == PODS
}

/// Each Pod is one endpoint, and if one family of addresses disappears from DNS, or becomes unreachable, the pool uses
/// the other family without a failed read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_dual_stack_pod_is_one_endpoint() {
    common::init_logging();
    for _ in 0..trials::count(1) {
        lose_each_family().await;
    }
}

/// Removes the IPv4 addresses from DNS, and later ends the relays on the IPv6 addresses, under load.
async fn lose_each_family() {
    let cluster = Cluster::start(PODS).await.expect("the cluster starts");
    let ipv4: Vec<_> = cluster.pods().iter().map(|pod| pod.address()).collect();
    let mut relays = Vec::new();
    for server in &ipv4 {
        relays.push(Relay::start(Ipv6Addr::LOCALHOST, *server).await);
    }
    let ipv6: Vec<_> = relays.iter().map(|relay| relay.address).collect();
    let both = || ipv4.iter().chain(&ipv6).copied();
    let answers = Answers::default();
    answers.set(both());
    let config: Config = format!("{}&absent_pods=drain", cluster.url()).parse().expect("the URL parses");
    let pool = Pool::builder(config).resolver(answers.clone()).build().expect("the pool is created");
    let mut events = pool.events();
    let is_merged = || {
        let endpoints = pool.status().endpoints;
        endpoints.len() == PODS && endpoints.iter().all(|pod| pod.is_usable() && pod.alternatives.len() == 1)
    };
    until(SOON, "three endpoints, each with one alternative", is_merged).await;

    let load = Load::start(&pool, Target::Any, 8);
    sleep(Duration::from_secs(3)).await;
    answers.set(ipv6.iter().copied());
    let without_ipv4 = Instant::now();
    until(SOON, "the IPv6 addresses are in use", || uses(&pool, true)).await;
    let switched = without_ipv4.elapsed();
    sleep(Duration::from_secs(2)).await;
    answers.set(both());
    until(SOON, "three endpoints, each with one alternative", is_merged).await;
    assert!(uses(&pool, true), "the addresses in use stay in use: {:?}", pool.status().endpoints);

    relays.clear();
    let unreachable = Instant::now();
    until(SOON, "the IPv4 addresses are in use", || uses(&pool, false)).await;
    let switched_back = unreachable.elapsed();
    sleep(Duration::from_secs(2)).await;
    let report = load.stop().await;

    let mut counts = BTreeMap::<_, usize>::new();
    report.answers.iter().for_each(|(_, address)| *counts.entry(address).or_default() += 1);
    println!(
        "IPv6 in use {switched:.1?} after the IPv4 addresses left DNS, IPv4 in use {switched_back:.1?} after the IPv6 \
         addresses became unreachable; reads per Pod {counts:?}, {} failed",
        report.failures.len()
    );
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let fair = report.answers.len() as f64 / PODS as f64;
    assert_eq!(counts.len(), PODS);
    assert!(counts.values().all(|&count| (0.7..1.3).contains(&(count as f64 / fair))), "{counts:?}");
    let mut merged = 0;
    while let Ok(Some(Ok(event))) = timeout(Duration::ZERO, events.next()).await {
        assert!(!matches!(event, Event::EndpointFenced { .. }), "{event:?}");
        merged += usize::from(matches!(event, Event::EndpointAlternative { .. }));
    }
    assert!(merged >= PODS, "{merged} events about alternative addresses");
}

/// With a subset of one Pod, the two addresses of a failed Pod are probed until one of them works, and do not replace
/// each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_addresses_of_a_failed_pod_do_not_replace_each_other() {
    /// Time after the failure in which each replacement counts.
    const WATCHED: Duration = Duration::from_secs(8);
    common::init_logging();
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let ipv4 = cluster.pod(0).address();
    let relay = Relay::start(Ipv6Addr::LOCALHOST, ipv4).await;
    let answers = Answers::default();
    answers.set([ipv4, relay.address]);
    let config: Config = format!("{}&subset_size=1", cluster.url()).parse().expect("the URL parses");
    let pool = Pool::builder(config).resolver(answers).build().expect("the pool is created");
    drop(pool.get().await.expect("checkout succeeds"));
    let mut events = pool.events();
    cluster.stop(0, Shutdown::Immediate).await.expect("the server stops");
    until(SOON, "the server is ejected", || pool.status().endpoints.iter().all(|pod| !pod.is_usable())).await;
    sleep(WATCHED).await;
    let mut replaced = Vec::new();
    while let Ok(Some(Ok(event))) = timeout(Duration::ZERO, events.next()).await {
        if matches!(event, Event::EndpointAdded { .. } | Event::EndpointDrained { .. }) {
            replaced.push(event.to_string());
        }
    }
    println!("within {WATCHED:?} of the failure: {replaced:?}");
    assert!(replaced.len() <= 1, "only the other address is added: {replaced:?}");
    cluster.start_pod(0).await.expect("the server starts");
    until(SOON, "the server is used again", || pool.status().endpoints.iter().any(EndpointStatus::is_usable)).await;
    drop(pool.get().await.expect("checkout succeeds"));
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
