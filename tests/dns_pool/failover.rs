//! F7 in figures: how long a good second name server takes to answer for a bad first one.

use std::time::{Duration, Instant};

use podpool::{
    discovery::{Dns, DnsOptions, Resolve as _},
    testkit::fault_dns::{Fault, FaultDns},
};

use crate::site::SVC;

/// The times of all trials, the shortest first. Each trial is a resolver that knows nothing of either server yet.
async fn trials(count: usize, fault: Fault) -> Vec<Duration> {
    let (bad, good) = (FaultDns::start().await.expect("a server"), FaultDns::start().await.expect("a server"));
    bad.always(fault);
    good.set(SVC, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let mut times = Vec::new();
    for _ in 0..count {
        let mut options = DnsOptions::new(SVC, 5432);
        options.nameservers = vec![bad.address(), good.address()];
        let dns = Dns::new(options).expect("a resolver");
        let began = Instant::now();
        let resolution = dns.resolve().await.expect("the second server answers");
        times.push(began.elapsed());
        assert_eq!((resolution.endpoints.len(), resolution.server), (3, Some(good.address())));
    }
    times.sort_unstable();
    times
}

/// Nineteen of twenty are within the limit, in one of three rounds: the machine may be busy with other tests.
async fn within(limit: Duration, count: usize, what: &str, fault: Fault) {
    let mut missed = Vec::new();
    for _ in 0..3 {
        let times = trials(count, fault.clone()).await;
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!("first server {what}: p50 {:?}, p95 {:?}, max {:?} of {}", at(50), at(95), at(100), times.len());
        if at(95) <= limit {
            return;
        }
        missed.push(times);
    }
    panic!("more than {limit:?} when the first server {what}: {missed:?}");
}

#[tokio::test]
async fn f07_a_good_second_server_answers_within_350_ms_of_silence_and_10_ms_of_servfail() {
    within(Duration::from_millis(350), 24, "is silent", Fault::Drop).await;
    within(Duration::from_millis(10), 60, "says SERVFAIL", Fault::Code(2)).await;
}
