//! One choice among Pods that are all well. Nothing is connected.

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
        Table::new("One choice, all Pods well (ratio to podpool's default policy; above 1 is slower)", "ns", false);
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
        addresses.iter().map(|address| Endpoint::new(address.parse().expect("an address"))).collect();

    let set = Set::new(&endpoints);
    let (pick, counted) = (set.picker(LeastCost::new()), set.picker(LeastCost::new()));
    let pingora = LoadBalancer::<RoundRobin>::try_from_iter(&addresses).expect("a balancer");
    let pingora_random = LoadBalancer::<Random>::try_from_iter(&addresses).expect("a balancer");
    let p2c = Mutex::new(Balance::new(ServiceList::new(services(pods, |service| {
        PendingRequests::new(service, CompleteOnResponse::default())
    }))));
    let ewma = Mutex::new(Balance::new(ServiceList::new(services(pods, |service| {
        PeakEwma::new(service, Duration::from_millis(30), 1e10, CompleteOnResponse::default())
    }))));
    let volo = WeightedRandomBalance::new();
    let discover =
        StaticDiscover::from(addresses.iter().map(|address| address.parse().expect("an address")).collect::<Vec<_>>());
    let context = context::Endpoint::new("postgresql-svc".into());
    let round_robin = load_balancer::round_robin::RoundRobin::new(endpoints.iter().cloned().map(Arc::new).collect());
    let naive = RwLock::new(endpoints.into_iter().map(Arc::new).collect::<Vec<_>>());
    let (next, count, shared) = (AtomicUsize::new(0), AtomicUsize::new(0), Arc::new(0u64));

    vec![
        Case::on_threads("podpool", threads, move || {
            black_box(pick.pick().expect("a Pod"));
        }),
        Case::on_threads("podpool, counted out and in", threads, move || {
            drop(black_box(counted.pick_counted().expect("a Pod")));
        }),
        // What the machine itself gives: nothing is shared, so two threads are as fast as one, where it lets them.
        Case::on_threads("(a random number, no choice)", threads, move || {
            black_box(fastrand::usize(..black_box(3)));
        }),
        // What counting is made of at the least.
        Case::on_threads("(an Arc cloned and dropped, one atomic addition)", threads, move || {
            count.fetch_add(1, Ordering::Relaxed);
            drop(black_box(shared.clone()));
        }),
        Case::on_threads("pingora-load-balancing, RoundRobin", threads, move || {
            black_box(pingora.select(b"", 256).expect("a backend"));
        }),
        Case::on_threads("pingora-load-balancing, Random", threads, move || {
            black_box(pingora_random.select(b"", 256).expect("a backend"));
        }),
        Case::on_threads("tower p2c, PendingRequests, in a Mutex", threads, move || request(&p2c)),
        Case::on_threads("tower p2c, PeakEwma, in a Mutex", threads, move || request(&ewma)),
        Case::on_threads("volo, WeightedRandomBalance", threads, move || {
            let picker = volo.get_picker(&context, &discover).now_or_never().expect("no wait");
            black_box(picker.ok().and_then(|mut picker| picker.next()).expect("an address"));
        }),
        Case::on_threads("load-balancer, RoundRobin", threads, move || {
            // `None` while somebody else holds its lock for a moment.
            black_box(round_robin.try_alloc());
        }),
        Case::on_threads("RwLock<Vec<Arc>>, round robin", threads, move || {
            let pods = naive.read().expect("no panic");
            black_box(pods[next.fetch_add(1, Ordering::Relaxed) % pods.len()].clone());
        }),
    ]
}

/// A backend that answers at once.
struct Answer;

impl Service<()> for Answer {
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

fn services<S>(pods: u32, load: impl Fn(Answer) -> S) -> Vec<S> {
    (0..pods).map(|_| load(Answer)).collect()
}

/// The whole of a request, as tower counts it: from readiness to the answer.
fn request<S>(balance: &Mutex<Balance<ServiceList<Vec<S>>, ()>>)
where
    S: Service<(), Response = (), Error = Infallible> + Load,
    S::Metric: std::fmt::Debug,
    ServiceList<Vec<S>>: tower::discover::Discover<Key = usize, Service = S> + Unpin,
    Balance<ServiceList<Vec<S>>, ()>: Service<(), Response = ()>,
{
    let mut balance = balance.lock().expect("no panic");
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(balance.poll_ready(&mut context), Poll::Ready(Ok(()))), "a service is ready");
    let answer = balance.call(());
    drop(balance);
    black_box(answer.now_or_never().is_some_and(|answer| answer.is_ok()));
}
