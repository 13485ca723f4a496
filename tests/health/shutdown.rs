//! How soon a Pod that shuts down gets nothing more, and is let go.

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
    stage::{addresses, alone, pool, row, state_of, warm},
};

const TRIALS: usize = 20;
/// The last checkout of a Pod after it was asked to stop.
const LAST_CHECKOUT: Duration = Duration::from_millis(50);
/// From the refresh that confirms that a Pod is gone to the end of its server.
const LET_GO: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_checked_out_50_ms_after_a_fast_shutdown() {
    let _alone = alone().await;
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pods = addresses(&cluster);
    let mut last = Vec::new();
    for trial in 0..TRIALS {
        // Of its own each time: a Pod that traffic ejects again and again is let back later and later.
        let pool = pool(&cluster).await;
        let ordinal = 1 + trial % 2;
        let load = Paced::start(&pool, Target::Any);
        warm(&load, &pods).await;
        let asked = Instant::now();
        cluster.stop(ordinal, Shutdown::Fast).await.expect("a fast shutdown");
        until(Duration::from_secs(5), "the load goes on", || asked.elapsed() > Duration::from_millis(500)).await;
        let requests = load.stop().await;
        assert_eq!(failures(&requests), BTreeMap::new());
        let tries = requests.iter().flat_map(|request| &request.tries);
        let there = tries.filter(|one| one.address == pods[ordinal] && one.got > asked).map(|one| one.got - asked);
        last.push(there.max().unwrap_or_default());
        drop(pool);
        cluster.start_pod(ordinal).await.expect("a start");
    }
    let last = Spread::new(last);
    println!("the last checkout of a Pod after it was asked to stop, in {TRIALS} trials: {last}");
    let most = last.at(0.95);
    row(
        "fast shutdown",
        "nothing: no new checkout there",
        &format!("last checkout {most:.1?} after the request (p95)"),
    );
    assert!(last.at(0.95) <= LAST_CHECKOUT, "{last}");
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smart_shutdown_ends_within_a_second_of_the_confirmed_removal() {
    let _alone = alone().await;
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pods = addresses(&cluster);
    let pool = pool(&cluster).await;
    let load = Paced::start(&pool, Target::Any);
    let (mut ended, mut gone) = (Vec::new(), Vec::new());
    for trial in 0..TRIALS {
        let ordinal = 1 + trial % 2;
        warm(&load, &pods).await;
        let mut events = pool.events();
        cluster.unpublish(ordinal).expect("out of DNS");
        let unpublished = Instant::now();
        let drained = async {
            loop {
                match events.next().await.expect("the pool lives") {
                    Ok(Event::EndpointDrained { endpoint }) if endpoint.address().ip() == pods[ordinal] => break,
                    Ok(_) => {}
                    Err(lagged) => panic!("{lagged}"),
                }
            }
            Instant::now()
        };
        let (drained, stopped) = tokio::join!(timeout(Duration::from_secs(15), drained), async {
            cluster.stop(ordinal, Shutdown::Smart).await.expect("a smart shutdown");
            Instant::now()
        });
        let drained = drained.expect("the pool hears of it");
        ended.push(stopped.saturating_duration_since(drained));
        gone.push(drained - unpublished);
        cluster.start_pod(ordinal).await.expect("a start");
        cluster.publish(ordinal).expect("in DNS");
        let healthy = || state_of(&pool, pods[ordinal]) == Some(State::Healthy);
        until(Duration::from_secs(15), "the Pod serves again", healthy).await;
    }
    let requests: Vec<Request> = load.stop().await;
    let (ended, gone) = (Spread::new(ended), Spread::new(gone));
    println!("removal confirmed after it left DNS, in {TRIALS} trials: {gone}");
    println!("end of the server after that: {ended}; {} reads meanwhile", requests.len());
    assert_eq!(failures(&requests), BTreeMap::new());
    row(
        "out of DNS, then smart shutdown",
        "nothing: borrowed connections are given back first",
        &format!("noticed {:.1?}, server ended {:.1?} later (p95)", gone.at(0.95), ended.at(0.95)),
    );
    assert!(ended.at(0.95) < LET_GO, "{ended}");
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}
