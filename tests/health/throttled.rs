//! A standby that gets a tenth of its processor time: what the default policy makes of it.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{Target, testkit::Cluster};
use tokio::time::sleep;

use crate::{
    common::paced::{Paced, Request, Spread, failures},
    stage::{addresses, alone, pool, pool_of, row, warm},
};

const PODS: usize = 3;
/// How often the Pod is throttled. `PODPOOL_THROTTLES` sets another number.
const TIMES: usize = 2;
/// How long, each time; and how long it is given to recover.
const THROTTLED: Duration = Duration::from_secs(15);
const HEALED: Duration = Duration::from_secs(11);
/// What is compared with it: so long, just before each time, while a Pod that the pool does not know is throttled. Where
/// that is done by signals, they cost whatever shares the machine with the processes.
const CALM: Duration = Duration::from_secs(15);
/// Its share is known from the requests of so long.
const SPAN: Duration = Duration::from_secs(1);

/// The Pod's part, beside an equal share, of the requests made between these moments.
fn share(requests: &[Request], pod: IpAddr, from: Instant, to: Instant) -> f64 {
    let made: Vec<_> = requests.iter().filter(|request| (from..to).contains(&request.made)).collect();
    let its = made.iter().filter(|request| request.tries.first().is_some_and(|first| first.address == pod)).count();
    (its * PODS) as f64 / made.len() as f64
}

/// How long after `from` a span begins in which the share is as wanted; it is before `to`.
fn until(
    requests: &[Request],
    pod: IpAddr,
    from: Instant,
    to: Instant,
    wanted: impl Fn(f64) -> bool,
) -> Option<Duration> {
    let mut starts = (0u32..).map(|i| from + Duration::from_millis(50) * i).take_while(|start| *start + SPAN <= to);
    starts.find(|start| wanted(share(requests, pod, *start, *start + SPAN))).map(|start| start - from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_standby_gets_little_and_costs_nobody_much() {
    let times = std::env::var("PODPOOL_THROTTLES").ok().and_then(|times| times.parse().ok()).unwrap_or(TIMES);
    let _alone = alone().await;
    let cluster = Cluster::start(PODS).await.expect("a cluster");
    let pods = addresses(&cluster);
    let pool = pool(&cluster).await;
    let elsewhere = Cluster::start(2).await.expect("another cluster");
    let others = pool_of(&elsewhere.url(), 2).await;
    let load = Paced::start(&pool, Target::Any);
    warm(&load, &pods).await;
    let mut throttled = Vec::new();
    for _ in 0..times {
        let throttle = elsewhere.throttle(1, 0.1).await.expect("throttled");
        let calm = Instant::now();
        sleep(CALM).await;
        drop(throttle);
        let well = (calm, Instant::now());
        let throttle = cluster.throttle(1, 0.1).await.expect("throttled");
        let from = Instant::now();
        println!("{throttle:?}");
        sleep(THROTTLED).await;
        drop(throttle);
        throttled.push((well, (from, Instant::now())));
        sleep(HEALED).await;
    }
    let requests = load.stop().await;
    assert_eq!(failures(&requests), [].into());

    let p99 = |from, to| {
        let made = requests.iter().filter(|request| (from..to).contains(&request.made));
        Spread::new(made.map(Request::took)).at(0.99)
    };
    let (mut missed, mut most, mut came_back) = (Vec::new(), (Duration::ZERO, 0f64, 0f64), Vec::new());
    for &((calm, end), (from, to)) in &throttled {
        let well = p99(calm, end);
        let before = share(&requests, pods[1], calm, end);
        let known = until(&requests, pods[1], from, to, |share| share < 1.0 / 3.0);
        let late = share(&requests, pods[1], from + Duration::from_secs(5), to);
        let back = until(&requests, pods[1], to, to + HEALED, |share| share > 0.8);
        let slow = p99(from, to);
        let ratio = slow.as_secs_f64() / well.as_secs_f64();
        println!(
            "well: share {before:.2}, p99 {well:.1?}; throttled: below a third after {known:.1?}, share after 5 s \
             {late:.2}, p99 {slow:.1?}, {ratio:.1} times; healed: back after {back:.1?}"
        );
        most = (most.0.max(known.unwrap_or(THROTTLED)), most.1.max(late), most.2.max(ratio));
        came_back.push(back.unwrap_or(HEALED));
        if known.is_none_or(|known| known > Duration::from_secs(5))
            || late >= 1.0 / 3.0
            || slow > 2 * well
            || back.is_none_or(|back| back > Duration::from_secs(10))
        {
            missed.push((known, late, well, slow, back));
        }
    }
    let ((known, late, ratio), back) = (most, Spread::new(came_back).at(0.95));
    row(
        "a standby is left a tenth of its processor time",
        &format!("no failed read; p99 of all reads at most {ratio:.1} times that before"),
        &format!(
            "below a third of its share within {:.1?} at most, at {late:.2} of it at most after 5 s; back {back:.1?} after it \
             has all its time",
            known + SPAN
        ),
    );
    assert!(missed.is_empty(), "known, share, p99 before, p99, back: {missed:?}");
    drop((pool, others));
    cluster.shutdown().await.expect("an orderly end");
    elsewhere.shutdown().await.expect("an orderly end");
}
