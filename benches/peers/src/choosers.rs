//! Compares the time to choose one of several healthy Pods, without any connections.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::FutureExt as _;
use load_balancer::LoadBalancer as _;
use pingora_load_balancing::{
    LoadBalancer,
    selection::{Random, RoundRobin},
};
use podpool::{Endpoint, balance::LeastCost, bench::Set};
use tower::{
    Service,
    balance::p2c::Balance,
    discover::ServiceList,
    load::{CompleteOnResponse, Load, PeakEwma, PendingRequests},
};
use volo::{
    context,
    discovery::StaticDiscover,
    loadbalance::{LoadBalance as _, random::WeightedRandomBalance},
};

use crate::{
    rounds::{Case, measure},
    table::Table,
};

pub fn compare() {
    let mut table =
        Table::new("One choice among healthy Pods (ratio to podpool's default policy; above 1 is slower)", "ns", false);
    for pods in [3, 1000] {
        for threads in [1, 2] {
            let mut cases = cases(pods, threads);
            let names: Vec<_> = cases.iter().map(|case| case.name).collect();
            let readings = measure(&mut cases);
            let threads = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
            table.column(format!("{pods} Pods, {threads}"), &names, &readings);
        }
    }
    table.print();
}

fn cases(pods: u32, threads: usize) -> Vec<Case> {
    let addresses: Vec<_> = (0..pods).map(|i| format!("10.0.{}.{}:5432", i / 250, i % 250 + 1)).collect();
    let endpoints: Vec<_> =
        addresses.iter().map(|address| Endpoint::new(address.parse().expect("the address parses"))).collect();

    let set = Set::new(&endpoints);
    let (pick, counted) = (set.picker(LeastCost::new()), set.picker(LeastCost::new()));
    let pingora = LoadBalancer::<RoundRobin>::try_from_iter(&addresses).expect("the load balancer is created");
    let pingora_random = LoadBalancer::<Random>::try_from_iter(&addresses).expect("the load balancer is created");
    let p2c = Mutex::new(Balance::new(ServiceList::new(services(pods, |service| {
        PendingRequests::new(service, CompleteOnResponse::default())
    }))));
    let ewma = Mutex::new(Balance::new(ServiceList::new(services(pods, |service| {
        PeakEwma::new(service, Duration::from_millis(30), 1e10, CompleteOnResponse::default())
    }))));
    let volo = WeightedRandomBalance::new();
    let discover = StaticDiscover::from(
        addresses.iter().map(|address| address.parse().expect("the address parses")).collect::<Vec<_>>(),
    );
    let context = context::Endpoint::new("postgresql-svc".into());
    let round_robin = load_balancer::round_robin::RoundRobin::new(endpoints.iter().cloned().map(Arc::new).collect());
    let naive = RwLock::new(endpoints.into_iter().map(Arc::new).collect::<Vec<_>>());
    let (next, count, shared) = (AtomicUsize::new(0), AtomicUsize::new(0), Arc::new(0u64));

    vec![
        Case::on_threads("podpool", threads, move || {
            black_box(pick.pick().expect("a Pod is picked"));
        }),
        Case::on_threads("podpool, with in-flight counting", threads, move || {
            drop(black_box(counted.pick_counted().expect("a Pod is picked")));
        }),
        // A baseline in which the threads share no data. If it is slower with two threads than with one, the machine is
        // the cause.
        Case::on_threads("(a random number only)", threads, move || {
            black_box(fastrand::usize(..black_box(3)));
        }),
        // The minimum cost of in-flight counting.
        Case::on_threads("(an Arc cloned and dropped, one atomic addition)", threads, move || {
            count.fetch_add(1, Ordering::Relaxed);
            drop(black_box(shared.clone()));
        }),
        Case::on_threads("pingora-load-balancing, RoundRobin", threads, move || {
            black_box(pingora.select(b"", 256).expect("a backend is selected"));
        }),
        Case::on_threads("pingora-load-balancing, Random", threads, move || {
            black_box(pingora_random.select(b"", 256).expect("a backend is selected"));
        }),
        Case::on_threads("tower p2c, PendingRequests, in a Mutex", threads, move || request(&p2c)),
        Case::on_threads("tower p2c, PeakEwma, in a Mutex", threads, move || request(&ewma)),
        Case::on_threads("volo, WeightedRandomBalance", threads, move || {
            let picker = volo.get_picker(&context, &discover).now_or_never().expect("ready on the first poll");
            black_box(picker.ok().and_then(|mut picker| picker.next()).expect("the address parses"));
        }),
        Case::on_threads("load-balancer, RoundRobin", threads, move || {
            // `try_alloc` returns `None` while another thread holds the lock. Such a call counts as an iteration too.
            black_box(round_robin.try_alloc());
        }),
        Case::on_threads("RwLock<Vec<Arc>>, round robin", threads, move || {
            let pods = naive.read().expect("no thread panicked");
            black_box(pods[next.fetch_add(1, Ordering::Relaxed) % pods.len()].clone());
        }),
    ]
}

/// A backend that responds immediately.
struct Immediate;

impl Service<()> for Immediate {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

fn services<S>(pods: u32, load: impl Fn(Immediate) -> S) -> Vec<S> {
    (0..pods).map(|_| load(Immediate)).collect()
}

/// Sends one request and completes it. tower chooses the service in `poll_ready` and counts the request as pending
/// until its response.
fn request<S>(balance: &Mutex<Balance<ServiceList<Vec<S>>, ()>>)
where
    S: Service<(), Response = (), Error = Infallible> + Load,
    S::Metric: std::fmt::Debug,
    ServiceList<Vec<S>>: tower::discover::Discover<Key = usize, Service = S> + Unpin,
    Balance<ServiceList<Vec<S>>, ()>: Service<(), Response = ()>,
{
    let mut balance = balance.lock().expect("no thread panicked");
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(balance.poll_ready(&mut context), Poll::Ready(Ok(()))), "expected a service to be ready");
    let response = balance.call(());
    drop(balance);
    black_box(response.now_or_never().is_some_and(|response| response.is_ok()));
}
