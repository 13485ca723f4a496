//! Measures the time from a Pod's fast shutdown to its last checkout, and from its removal from DNS to the end of its
//! smart shutdown.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use podpool::{
    Event, State, Target,
    testkit::{Cluster, Shutdown},
};
use tokio::time::timeout;

use crate::{
    common::{
        paced::{Paced, Request, Spread, failures},
        until,
    },
    setup::{addresses, pool, row, run_alone, state_of, warm},
};

const TRIALS: usize = 20;
/// Maximum time from a shutdown request to the last checkout of a connection to the Pod.
const LAST_CHECKOUT: Duration = Duration::from_millis(50);
/// Maximum time from the refresh that confirms a Pod's removal from DNS until its server exits.
const SERVER_END: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_shutdown_stops_checkouts_within_50_ms() {
    let _alone = run_alone().await;
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pods = addresses(&cluster);
    let mut last = Vec::new();
    for trial in 0..TRIALS {
        // Each trial uses a new pool, because the ejection time of a Pod grows with each ejection.
        let pool = pool(&cluster).await;
        let ordinal = 1 + trial % 2;
        let load = Paced::start(&pool, Target::Any);
        warm(&load, &pods).await;
        let requested = Instant::now();
        cluster.stop(ordinal, Shutdown::Fast).await.expect("the Pod stops");
        let half_second = || requested.elapsed() > Duration::from_millis(500);
        until(Duration::from_secs(5), "the load runs for half a second", half_second).await;
        let requests = load.stop().await;
        assert_eq!(failures(&requests), BTreeMap::new(), "failed reads");
        let checkouts = requests.iter().flat_map(|request| &request.attempts);
        let late = checkouts.filter(|one| one.address == pods[ordinal] && one.checked_out > requested);
        last.push(late.map(|one| one.checked_out - requested).max().unwrap_or_default());
        drop(pool);
        cluster.start_pod(ordinal).await.expect("the Pod starts");
    }
    let last = Spread::new(last);
    println!("time from the shutdown request to the Pod's last checkout, in {TRIALS} trials: {last}");
    let p95 = last.at(0.95);
    row(
        "fast shutdown",
        "no effect: the Pod gets no new checkouts",
        &format!("last checkout {p95:.1?} after the request (p95)"),
    );
    assert!(p95 <= LAST_CHECKOUT, "the Pod was checked out too long after its shutdown request: {last}");
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smart_shutdown_ends_within_1_s_of_confirmed_dns_removal() {
    let _alone = run_alone().await;
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pods = addresses(&cluster);
    let pool = pool(&cluster).await;
    let load = Paced::start(&pool, Target::Any);
    let (mut ended, mut confirmed) = (Vec::new(), Vec::new());
    for trial in 0..TRIALS {
        let ordinal = 1 + trial % 2;
        warm(&load, &pods).await;
        let mut events = pool.events();
        cluster.unpublish(ordinal).expect("the Pod is removed from DNS");
        let unpublished = Instant::now();
        let drained = async {
            loop {
                match events.next().await.expect("the event stream is open") {
                    Ok(Event::EndpointDrained { endpoint })
                        if endpoint.address().tcp().unwrap().ip() == pods[ordinal] =>
                    {
                        break;
                    }
                    Ok(_) => {}
                    Err(lagged) => panic!("the event receiver lagged: {lagged}"),
                }
            }
            Instant::now()
        };
        let (drained, stopped) = tokio::join!(timeout(Duration::from_secs(15), drained), async {
            cluster.stop(ordinal, Shutdown::Smart).await.expect("the Pod stops");
            Instant::now()
        });
        let drained = drained.expect("the Pod is drained within 15 s");
        ended.push(stopped.saturating_duration_since(drained));
        confirmed.push(drained - unpublished);
        cluster.start_pod(ordinal).await.expect("the Pod starts");
        cluster.publish(ordinal).expect("the Pod is added to DNS");
        let healthy = || state_of(&pool, pods[ordinal]) == Some(State::Healthy);
        until(Duration::from_secs(15), "the Pod serves again", healthy).await;
    }
    let requests: Vec<Request> = load.stop().await;
    let (ended, confirmed) = (Spread::new(ended), Spread::new(confirmed));
    println!("time from the removal from DNS to its confirmation, in {TRIALS} trials: {confirmed}");
    println!("time from the confirmation until the server exits: {ended}; {} reads", requests.len());
    assert_eq!(failures(&requests), BTreeMap::new(), "failed reads");
    row(
        "removed from DNS, then smart shutdown",
        "no effect: connections in use are returned first",
        &format!("removal noticed after {:.1?}, server exits {:.1?} later (p95)", confirmed.at(0.95), ended.at(0.95)),
    );
    assert!(ended.at(0.95) < SERVER_END, "the server exited too late after the removal: {ended}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
