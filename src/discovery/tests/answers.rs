//! Tests forged and invalid responses, failures in one address family, and CNAME chains.

use super::*;

#[tokio::test]
async fn ignores_a_forged_response_and_uses_the_genuine_one() {
    for fault in [Fault::WrongId, Fault::WrongSource, Fault::WrongQuestion] {
        let server = start().await;
        server.set(SVC, &["10.0.0.1"]);
        // The first response for each family is forged. The response to the retransmitted query is genuine.
        server.nth(None, 0, 2, fault.clone());
        let resolution = dns(&[&server]).resolve().await.unwrap();
        assert_eq!(addresses(&resolution), pods(&[1]), "{fault:?}");
        assert!(server.take_log().iter().filter(|packet| packet.kind == RecordType::A).count() >= 2, "{fault:?}");
    }
}

#[tokio::test]
async fn lookup_with_only_invalid_responses_fails_and_keeps_the_pods() {
    for (fault, kind) in [
        (Fault::WrongId, ResolveErrorKind::Timeout),
        (Fault::WrongSource, ResolveErrorKind::Timeout),
        (Fault::WrongQuestion, ResolveErrorKind::Timeout),
        (Fault::Garbage, ResolveErrorKind::Malformed),
        (Fault::ForeignOwner([10, 9, 9, 9].into()), ResolveErrorKind::Malformed),
        (Fault::ForeignClass, ResolveErrorKind::Malformed),
        (
            Fault::Records(vec![address(SVC, TTL, "0.0.0.0"), address(SVC, TTL, "224.0.0.1")]),
            ResolveErrorKind::Malformed,
        ),
    ] {
        let server = start().await;
        server.set(SVC, &["10.0.0.1", "fd00::1"]);
        let mut options = options(&[&server]);
        options.timeout = Duration::from_millis(400);
        let mut follower = Follower::new(Dns::new(options).unwrap());
        let set = follower.step().await.unwrap();
        server.always(fault.clone());
        let error = follower.step().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert_eq!(follower.set(), set);
    }
}

#[tokio::test]
async fn drops_addresses_that_no_pod_can_have() {
    let server = start().await;
    server.set(
        SVC,
        &["10.0.0.1", "0.0.0.0", "224.0.0.9", "255.255.255.255", "::", "ff02::1", "::ffff:10.0.0.2", "fd00::1"],
    );
    let resolution = dns(&[&server]).resolve().await.unwrap();
    assert_eq!(addresses(&resolution), ["10.0.0.1:5432", "10.0.0.2:5432", "[fd00::1]:5432"]);
    assert_eq!(kinds(&server.take_log()), [RecordType::A, RecordType::AAAA]);
    // A name server on loopback may return loopback addresses.
    server.set(SVC, &["127.0.0.11", "::1"]);
    let resolution = dns(&[&server]).resolve().await.unwrap();
    assert_eq!(addresses(&resolution), ["127.0.0.11:5432", "[::1]:5432"]);
}

#[tokio::test]
async fn failing_family_does_not_delay_or_clear_the_other() {
    let unresponsive = |kind| (kind, Fault::Drop, Duration::from_millis(390), Duration::from_millis(700));
    let failing = |kind, fault| (kind, fault, Duration::ZERO, Duration::from_millis(200));
    for (kind, fault, at_least, at_most) in [
        unresponsive(RecordType::AAAA),
        unresponsive(RecordType::A),
        failing(RecordType::AAAA, Fault::Code(2)),
        failing(RecordType::A, Fault::Code(2)),
        failing(RecordType::AAAA, Fault::NoSuchName(5)),
        failing(RecordType::A, Fault::NoSuchName(5)),
    ] {
        let server = start().await;
        let (name, other) = if kind == RecordType::A { ("fd00::1", "10.0.0.1") } else { ("10.0.0.1", "fd00::1") };
        server.set(SVC, &[name]);
        server.on(kind, fault.clone());
        let dns = dns(&[&server]);
        let only = Endpoint::new((name.parse::<std::net::IpAddr>().unwrap(), 5432).into());
        let begin = Instant::now();
        let resolution = dns.resolve().await.unwrap();
        let took = begin.elapsed();
        assert_eq!(resolution.endpoints, std::slice::from_ref(&only), "{kind} {fault:?}");
        assert!(took >= at_least && took <= at_most, "{kind} {fault:?}: {took:?}");

        // An error keeps the family's last good addresses. A negative response clears them.
        server.heal();
        server.set(SVC, &[name, other]);
        while dns.resolve().await.unwrap().endpoints.len() < 2 {}
        server.on(kind, fault.clone());
        let resolution = dns.resolve().await.unwrap();
        let negative = matches!(fault, Fault::NoSuchName(_));
        assert_eq!(resolution.endpoints.len(), if negative { 1 } else { 2 }, "{kind} {fault:?}");
        assert_eq!(resolution.partial, !negative);
        assert!(resolution.endpoints.contains(&only));
    }
}

#[tokio::test]
async fn error_in_one_family_outweighs_nxdomain_in_the_other() {
    for (failing, missing) in [(RecordType::A, RecordType::AAAA), (RecordType::AAAA, RecordType::A)] {
        let server = start().await;
        server.on(failing, Fault::Code(2));
        server.on(missing, Fault::NoSuchName(5));
        let error = dns(&[&server]).resolve().await.unwrap_err();
        assert_eq!(error.kind(), ResolveErrorKind::ServerFailure("SERVFAIL"));
        assert!(!error.is_negative());
        assert_eq!(error.servers().len(), 2);
        assert_eq!(server.take_log().len(), 2);
    }
}

#[tokio::test]
async fn follows_up_to_eight_cname_records_and_rejects_a_loop() {
    let hop = |n: usize| if n == 0 { SVC.to_owned() } else { format!("hop{n}.example.") };
    let chain = |length: usize| -> Vec<Record> {
        (0..length)
            .map(|n| alias(&hop(n), &hop(n + 1)))
            .chain([address(&hop(length), 30, "10.0.0.1"), address(&hop(length), 30, "fd00::1")])
            .collect()
    };
    // The server returns all aliases in one response.
    let server = start().await;
    server.set_records(".", chain(8));
    let resolution = dns(&[&server]).resolve().await.unwrap();
    assert_eq!(addresses(&resolution), ["10.0.0.1:5432", "[fd00::1]:5432"]);
    assert_eq!(kinds(&server.take_log()), [RecordType::A, RecordType::AAAA]);
    server.set_records(".", chain(9));
    assert_eq!(dns(&[&server]).resolve().await.unwrap_err().kind(), ResolveErrorKind::Malformed);
    server.take_log();

    // The server returns one alias per response, so each alias is queried separately.
    server.always(Fault::OneAlias);
    server.set_records(".", chain(3));
    let resolution = dns(&[&server]).resolve().await.unwrap();
    assert_eq!(addresses(&resolution), ["10.0.0.1:5432", "[fd00::1]:5432"]);
    assert_eq!(server.take_log().len(), 2 * 4);

    // A CNAME loop within one response or across several responses is an error, not a negative response.
    let cname_loop =
        vec![alias(SVC, "a.example."), alias("a.example.", "b.example."), alias("b.example.", "a.example.")];
    for fault in [Fault::OneAlias, Fault::None] {
        server.always(fault);
        server.set_records(".", cname_loop.clone());
        let error = dns(&[&server]).resolve().await.unwrap_err();
        assert_eq!(error.kind(), ResolveErrorKind::Malformed);
        assert!(error.to_string().contains("CNAME loop"), "{error}");
        assert!(server.take_log().len() <= 2 * 3);
    }

    // An alias for a name that does not exist is a negative response, and a single negative response removes no Pod.
    server.set_records(".", vec![address(SVC, TTL, "10.0.0.1")]);
    server.heal();
    let mut follower = Follower::new(dns(&[&server]));
    follower.step().await.unwrap();
    server.set_records(".", vec![alias(SVC, "nowhere.example.")]);
    assert!(follower.step().await.unwrap_err().is_negative());
    assert_eq!(follower.set(), pods(&[1]));
}

#[tokio::test]
async fn repeats_a_query_over_tcp_after_a_lower_case_response() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1"]);
    let mut options = options(&[&server]);
    options.randomize_case = true;
    let dns = Dns::new(options).unwrap();
    assert_eq!(addresses(&dns.resolve().await.unwrap()), pods(&[1]));
    let log = server.take_log();
    assert!(log.iter().any(|packet| packet.name != SVC && packet.name.eq_ignore_ascii_case(SVC)), "{log:?}");
    assert_eq!(tcp(&log), 0);

    server.always(Fault::LowerCase);
    let resolution = dns.resolve().await.unwrap();
    assert_eq!(addresses(&resolution), pods(&[1]));
    let log = server.take_log();
    let a = |tcp| log.iter().filter(|packet| packet.kind == RecordType::A && packet.tcp == tcp).count();
    assert_eq!((a(false), a(true)), (1, 1));
}
