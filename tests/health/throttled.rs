//! Tests that the default policy sends few requests to a standby that is throttled to a tenth of its processor time.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{Target, testkit::Cluster};
use tokio::time::sleep;

use crate::{
    common::paced::{Paced, Request, Spread, failures},
    setup::{addresses, pool, pool_of, row, run_alone, warm},
};

const PODS: usize = 3;
/// Number of throttling periods. `PODPOOL_THROTTLES` overrides it.
const TIMES: usize = 2;
/// Duration of each throttling period.
const THROTTLED: Duration = Duration::from_secs(15);
/// Time after each throttling period, in which the Pod must recover.
const RECOVERY: Duration = Duration::from_secs(11);
/// Duration of the baseline measurement before each throttling period. During that time a Pod of another cluster is
/// throttled: throttling by signals slows down the whole machine, so the baseline must include that effect.
const BASELINE: Duration = Duration::from_secs(15);
/// Window over which the Pod's share is computed.
const WINDOW: Duration = Duration::from_secs(1);

/// Returns the Pod's share of the requests that started in this interval, as a multiple of an equal share.
fn share(requests: &[Request], pod: IpAddr, from: Instant, to: Instant) -> f64 {
    let started: Vec<_> = requests.iter().filter(|request| (from..to).contains(&request.started)).collect();
    let first_on_pod = |request: &&&Request| request.attempts.first().is_some_and(|first| first.address == pod);
    (started.iter().filter(first_on_pod).count() * PODS) as f64 / started.len() as f64
}

/// Returns the time from `from` to the start of the first window in which the Pod's share satisfies the condition.
/// Windows end at `to` or earlier.
fn time_until(
    requests: &[Request],
    pod: IpAddr,
    from: Instant,
    to: Instant,
    condition: impl Fn(f64) -> bool,
) -> Option<Duration> {
    let mut starts = (0u32..).map(|i| from + Duration::from_millis(50) * i).take_while(|start| *start + WINDOW <= to);
    starts.find(|start| condition(share(requests, pod, *start, *start + WINDOW))).map(|start| start - from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_standby_gets_few_requests_and_p99_stays_low() {
    let times = std::env::var("PODPOOL_THROTTLES").ok().and_then(|times| times.parse().ok()).unwrap_or(TIMES);
    let _alone = run_alone().await;
    let cluster = Cluster::start(PODS).await.expect("the cluster starts");
    let pods = addresses(&cluster);
    let pool = pool(&cluster).await;
    let other_cluster = Cluster::start(2).await.expect("the other cluster starts");
    let other_pool = pool_of(&other_cluster.url(), 2).await;
    let load = Paced::start(&pool, Target::Any);
    warm(&load, &pods).await;
    let mut throttled = Vec::new();
    for _ in 0..times {
        let throttle = other_cluster.throttle(1, 0.1).await.expect("the Pod is throttled");
        let began = Instant::now();
        sleep(BASELINE).await;
        drop(throttle);
        let baseline = (began, Instant::now());
        let throttle = cluster.throttle(1, 0.1).await.expect("the Pod is throttled");
        let from = Instant::now();
        println!("{throttle:?}");
        sleep(THROTTLED).await;
        drop(throttle);
        throttled.push((baseline, (from, Instant::now())));
        sleep(RECOVERY).await;
    }
    let requests = load.stop().await;
    assert_eq!(failures(&requests), [].into(), "failed reads");

    let p99 = |from, to| {
        let started = requests.iter().filter(|request| (from..to).contains(&request.started));
        Spread::new(started.map(Request::took)).at(0.99)
    };
    let (mut missed, mut max, mut recovery_times) = (Vec::new(), (Duration::ZERO, 0f64, 0f64), Vec::new());
    for &((began, end), (from, to)) in &throttled {
        let baseline_p99 = p99(began, end);
        let baseline_share = share(&requests, pods[1], began, end);
        let reduced = time_until(&requests, pods[1], from, to, |share| share < 1.0 / 3.0);
        let throttled_share = share(&requests, pods[1], from + Duration::from_secs(5), to);
        let recovered = time_until(&requests, pods[1], to, to + RECOVERY, |share| share > 0.8);
        let throttled_p99 = p99(from, to);
        let ratio = throttled_p99.as_secs_f64() / baseline_p99.as_secs_f64();
        println!(
            "baseline: share {baseline_share:.2}, p99 {baseline_p99:.1?}; \
             throttled: below a third after {reduced:.1?}, share after 5 s {throttled_share:.2}, \
             p99 {throttled_p99:.1?}, {ratio:.1} times the baseline; recovered after {recovered:.1?}"
        );
        max = (max.0.max(reduced.unwrap_or(THROTTLED)), max.1.max(throttled_share), max.2.max(ratio));
        recovery_times.push(recovered.unwrap_or(RECOVERY));
        if reduced.is_none_or(|reduced| reduced > Duration::from_secs(5))
            || throttled_share >= 1.0 / 3.0
            || throttled_p99 > 2 * baseline_p99
            || recovered.is_none_or(|recovered| recovered > Duration::from_secs(10))
        {
            missed.push((reduced, throttled_share, baseline_p99, throttled_p99, recovered));
        }
    }
    let ((reduced, throttled_share, ratio), recovered) = (max, Spread::new(recovery_times).at(0.95));
    row(
        "a standby is throttled to a tenth of its processor time",
        &format!("no failed read; p99 of all reads at most {ratio:.1} times the baseline"),
        &format!(
            "below a third of an equal share within {:.1?}, at most {throttled_share:.2} of it after 5 s; \
             back {recovered:.1?} after the end of the throttling",
            reduced + WINDOW
        ),
    );
    assert!(
        missed.is_empty(),
        "limits exceeded (time to a third, share after 5 s, baseline p99, p99, recovery time): {missed:?}"
    );
    drop((pool, other_pool));
    cluster.shutdown().await.expect("the cluster shuts down");
    other_cluster.shutdown().await.expect("the other cluster shuts down");
}
