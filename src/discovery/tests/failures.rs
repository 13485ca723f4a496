//! Tests lookups while name servers fail, do not respond or respond late, and lookups with concurrent callers.

use std::sync::Arc;

use hickory_resolver::proto::rr::Name;

use super::*;
use crate::discovery::server::Server;

/// Returns the maximum number of packets in any window of one second. The times are those at which the packets were
/// sent. The server may receive them later, because it runs in the same thread, which other programs can delay.
fn max_per_second(sent: &[Instant]) -> usize {
    let within =
        |first: &Instant| sent.iter().filter(|at| *at >= first && **at < *first + Duration::from_secs(1)).count();
    sent.iter().map(within).max().unwrap_or(0)
}

/// Asserts that at most four packets per second were sent, and that the servers have received no others.
fn assert_limited(dns: &Dns, received: usize) {
    let sent = dns.take_sent();
    assert!(max_per_second(&sent) <= 4, "{sent:?}");
    assert!(received > 0 && received <= sent.len(), "{received} packets received, {} sent", sent.len());
}

/// Performs scheduled lookups in real time for `span` and returns their number.
async fn follow(follower: &mut Follower, span: Duration) -> u32 {
    let (end, mut lookups) = (Instant::now() + span, 0);
    while Instant::now() < end {
        follower.now = Instant::now();
        // Ignore the result of the lookup, because the tests check the set of Pods.
        let _ = follower.step().await;
        lookups += 1;
        tokio::time::sleep_until(follower.now).await;
    }
    lookups
}

#[tokio::test]
async fn servfail_keeps_the_pods_and_limits_packets_to_four_per_second() {
    let each = [2, 5, 1].map(|code| async move {
        let server = start().await;
        server.set(SVC, &["10.0.0.1"]);
        let mut follower = Follower::new(dns(&[&server]));
        follower.step().await.unwrap();
        drop((server.take_log(), follower.dns.take_sent()));
        server.always(Fault::Code(code));
        let lookups = follow(&mut follower, Duration::from_secs(3)).await;
        assert!(lookups >= 2);
        assert_eq!(follower.set(), pods(&[1]));
        assert_limited(&follower.dns, server.take_log().len());
        let error = follower.dns.resolve().await.unwrap_err();
        assert!(matches!(error.kind(), ResolveErrorKind::ServerFailure("SERVFAIL" | "REFUSED" | "FORMERR")), "{error}");

        server.heal();
        server.set(SVC, &["10.0.0.1", "10.0.0.2"]);
        follower.step().await.unwrap();
        assert_eq!(follower.set(), pods(&[1, 2]));
        assert!(follower.waited <= Duration::from_secs(6));
    });
    let [one, two, three] = each;
    tokio::join!(one, two, three);
}

#[tokio::test]
async fn three_failing_servers_share_one_packet_limit() {
    let each = [Fault::Code(2), Fault::Drop].map(|fault| async move {
        let servers = [start().await, start().await, start().await];
        servers.iter().for_each(|server| server.set(SVC, &["10.0.0.1"]));
        let mut follower = Follower::new(dns(&servers.each_ref()));
        follower.step().await.unwrap();
        servers.iter().for_each(|server| server.always(fault.clone()));
        // The rate limit does not apply to the first failing lookup, so the packets of that lookup are not counted.
        follower.step().await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(1)).await;
        servers.iter().for_each(|server| drop(server.take_log()));
        drop(follower.dns.take_sent());
        let lookups = follow(&mut follower, Duration::from_secs(5)).await;
        assert!(lookups >= 1);
        assert_eq!(follower.set(), pods(&[1]));
        assert_limited(&follower.dns, servers.iter().map(|server| server.take_log().len()).sum());

        servers[2].heal();
        let begin = Instant::now();
        let recovered = follower.dns.resolve().await;
        assert!(recovered.is_ok(), "{recovered:?}");
        assert!(begin.elapsed() < Duration::from_secs(3));
    });
    let [failing, unresponsive] = each;
    tokio::join!(failing, unresponsive);
}

#[tokio::test]
async fn unresponsive_server_and_closed_port_keep_the_pods() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1"]);
    let mut follower = Follower::new(dns(&[&server]));
    follower.step().await.unwrap();
    drop((server.take_log(), follower.dns.take_sent()));

    server.always(Fault::Drop);
    let begin = Instant::now();
    let error = follower.step().await.unwrap_err();
    let took = begin.elapsed();
    assert_eq!(error.kind(), ResolveErrorKind::Timeout);
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_millis(2200), "{took:?}");
    assert_eq!(follower.set(), pods(&[1]));
    let log = server.take_log();
    assert!(log.len() <= 6, "{log:?}");
    assert_limited(&follower.dns, log.len());
    // The packet limit also applies to later lookups.
    follow(&mut follower, Duration::from_secs(3)).await;
    assert_limited(&follower.dns, server.take_log().len());

    server.stop().await;
    let begin = Instant::now();
    let error = follower.step().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::Io);
    assert!(error.to_string().contains("onnection refused"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(follower.set(), pods(&[1]));
}

#[tokio::test]
async fn second_server_answers_when_the_first_fails() {
    let good = start().await;
    good.set(SVC, &["10.0.0.1"]);
    let took = async |fault: Option<Fault>| -> Duration {
        let bad = start().await;
        bad.set(SVC, &["10.0.0.7", "10.0.0.8"]);
        let dns = dns(&[&bad, &good]);
        match fault {
            Some(fault) => bad.always(fault),
            None => bad.stop().await,
        }
        good.take_log();
        let begin = Instant::now();
        let resolution = dns.resolve().await.unwrap();
        let took = begin.elapsed();
        assert_eq!((addresses(&resolution), resolution.server), (pods(&[1]), Some(good.address())));
        assert_eq!(kinds(&good.take_log()), [RecordType::A, RecordType::AAAA]);
        took
    };
    let limit = Duration::from_millis(350);
    let hedged = shortest(limit, || took(Some(Fault::Drop))).await;
    assert!(hedged >= Duration::from_millis(300) && hedged <= limit, "{hedged:?}");
    // The second server is asked immediately, before a response would be late.
    let limit = Duration::from_millis(300) / 2;
    for fault in [
        Some(Fault::Code(2)),
        Some(Fault::Code(5)),
        Some(Fault::Garbage),
        Some(Fault::ForeignOwner([10, 9, 9, 9].into())),
        Some(Fault::Truncate(1, Tcp::Close)),
        None,
    ] {
        let immediate = shortest(limit, || took(fault.clone())).await;
        assert!(immediate <= limit, "{fault:?}: {immediate:?}");
    }
}

#[tokio::test]
async fn retries_a_negative_response_only_if_configured() {
    let (wrong, good) = (start().await, start().await);
    good.set(SVC, &["10.0.0.1"]);
    let mut options = options(&[&wrong, &good]);
    let error = Dns::new(options.clone()).unwrap().resolve().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::NoSuchName);
    assert_eq!(good.take_log(), []);

    options.retry_negative = true;
    let dns = Dns::new(options).unwrap();
    let resolution = dns.resolve().await.unwrap();
    assert_eq!((addresses(&resolution), resolution.server), (pods(&[1]), Some(good.address())));
    assert_eq!(kinds(&good.take_log()), [RecordType::A, RecordType::AAAA]);
    let stats = dns.stats();
    assert_eq!((stats.lookups, stats.without_answer, stats.pods, stats.packets), (1, 0, 1, 4));
    let counts: Vec<_> = stats.servers.iter().map(|server| (server.answers, server.negative, server.failed)).collect();
    assert_eq!(counts, [(0, 2, 0), (1, 1, 0)]);
}

#[tokio::test]
async fn retransmits_within_350_ms_even_after_40_negative_responses() {
    let server = start().await;
    let one = Server::new(server.address(), &options(&[&server]), Arc::default()).unwrap();
    let name = Name::from_ascii(SVC).unwrap();
    let lost = async || {
        // Wait until the rate limit has space again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.set(SVC, &["10.0.0.1"]);
        server.nth(None, 0, 1, Fault::Drop);
        server.take_log();
        let begin = Instant::now();
        assert_eq!(one.query(&name, RecordType::A, false).await.unwrap().addresses.len(), 1);
        let took = begin.elapsed();
        let log = server.take_log();
        assert_eq!(log.len(), 2);
        assert_eq!(log[0].id, log[1].id);
        took
    };
    let limit = Duration::from_millis(350);
    let first = shortest(limit, lost).await;
    server.set(SVC, &[]);
    for _ in 0..40 {
        one.query(&name, RecordType::A, false).await.unwrap_err();
    }
    let after = shortest(limit, lost).await;
    for took in [first, after] {
        assert!(took >= Duration::from_millis(300) && took <= limit, "{took:?}");
    }
}

#[tokio::test]
async fn discards_a_late_response_to_an_earlier_lookup() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1"]);
    let dns = dns(&[&server]);
    for millis in [50, 500] {
        let delay = Duration::from_millis(millis);
        server.always(Fault::Delay(delay));
        let begin = Instant::now();
        assert_eq!(addresses(&dns.resolve().await.unwrap()), pods(&[1]));
        assert!(begin.elapsed() >= delay && begin.elapsed() < delay + Duration::from_millis(500));
    }
    server.take_log();
    server.always(Fault::Delay(Duration::from_secs(3)));
    // Concurrent calls share one lookup.
    let (one, two) = tokio::join!(dns.resolve(), dns.resolve());
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert_eq!(error.kind(), ResolveErrorKind::Timeout);
    }
    let log = server.take_log();
    let mut ids: Vec<_> = log.iter().map(|packet| (packet.kind, packet.id)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() <= 2, "two lookups overlap: {log:?}");
    server.heal();
    server.set(SVC, &["10.0.0.2"]);
    assert_eq!(addresses(&dns.resolve().await.unwrap()), pods(&[2]));
    // The delayed responses to the failed lookup arrive during this sleep and must be discarded.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(addresses(&dns.resolve().await.unwrap()), pods(&[2]));
}

#[tokio::test]
async fn concurrent_callers_share_one_lookup() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1"]);
    server.always(Fault::Delay(Duration::from_millis(200)));
    let dns = Arc::new(dns(&[&server]));
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let dns = dns.clone();
            tokio::spawn(async move { dns.resolve().await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for caller in callers.iter().step_by(10) {
        caller.abort();
    }
    let mut answered = 0;
    for caller in callers {
        if let Ok(result) = caller.await {
            assert_eq!(addresses(&result.unwrap()), pods(&[1]));
            answered += 1;
        }
    }
    assert_eq!(answered, 900);
    assert_eq!(kinds(&server.take_log()), [RecordType::A, RecordType::AAAA]);

    // Cancelling the only caller stops the lookup. The next lookup succeeds.
    let alone = tokio::time::timeout(Duration::from_millis(20), dns.resolve()).await;
    assert!(alone.is_err());
    assert_eq!(addresses(&dns.resolve().await.unwrap()), pods(&[1]));

    // A cancelled lookup does not lose the last good addresses: the IPv6 address survives a later failure of the AAAA
    // query.
    server.set(SVC, &["10.0.0.1", "fd00::1"]);
    let dns = super::dns(&[&server]);
    let both = dns.resolve().await.unwrap().endpoints;
    assert_eq!(both.len(), 2);
    assert!(tokio::time::timeout(Duration::from_millis(20), dns.resolve()).await.is_err());
    server.on(RecordType::AAAA, Fault::Code(2));
    let resolution = dns.resolve().await.unwrap();
    assert_eq!((resolution.endpoints, resolution.partial), (both, true));
}

#[tokio::test]
async fn keeps_the_pods_through_ten_minutes_without_dns() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1", "10.0.0.2"]);
    let mut follower = Follower::new(dns(&[&server]));
    follower.step().await.unwrap();
    let at = server.address();
    server.stop().await;
    let begin = follower.now;
    let mut pass = false;
    while follower.now - begin < Duration::from_secs(600) {
        assert!(!follower.step().await.unwrap_err().is_negative());
        assert_eq!(follower.set(), pods(&[1, 2]));
        // Toggle the Pods' health, as if they restarted in place, and skip a minute on the test's clock. The rate limit
        // still uses real time.
        pass = !pass;
        follower.all_pass(pass);
        follower.now += Duration::from_secs(60);
    }
    let server = FaultDns::start_at(at).await.unwrap();
    server.set(SVC, &["10.0.0.1", "10.0.0.3"]);
    follower.all_pass(true);
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 2, 3]));
    assert_eq!(follower.step().await.unwrap(), pods(&[1, 3]));
}
