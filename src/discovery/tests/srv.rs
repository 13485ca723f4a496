//! Tests lookups of SRV records.

use super::*;

fn by_srv(server: &FaultDns) -> Dns {
    let mut options = options(&[server]);
    options.srv_port_name = Some("postgresql-port".into());
    Dns::new(options).unwrap()
}

fn target(pod: usize) -> String {
    format!("postgresql-sfs-{pod}.{SVC}")
}

fn cluster(ports: &[u16]) -> Vec<Record> {
    let services = ports.iter().enumerate().map(|(pod, port)| service(SRV, *port, &target(pod)));
    let glue = (0..ports.len()).map(|pod| address(&target(pod), TTL, &format!("10.0.0.{}", pod + 1)));
    services.chain(glue).collect()
}

#[tokio::test]
async fn queries_addresses_that_the_srv_response_lacks() {
    let server = start().await;
    server.set_records(SVC, cluster(&[5432, 5432, 5433]));
    server.on(RecordType::SRV, Fault::NoGlue);
    let all =
        ["postgresql-sfs-0 (10.0.0.1:5432)", "postgresql-sfs-1 (10.0.0.2:5432)", "postgresql-sfs-2 (10.0.0.3:5433)"];
    let dns = by_srv(&server);
    assert_eq!(addresses(&dns.resolve().await.unwrap()), all);
    assert_eq!(kinds(&server.take_log()), [RecordType::A, RecordType::A, RecordType::A, RecordType::SRV]);

    // A Pod whose address query fails keeps its last good address.
    server.on(RecordType::A, Fault::Code(2));
    let resolution = dns.resolve().await.unwrap();
    assert_eq!(addresses(&resolution), all);
    assert!(resolution.partial);

    // A Pod that has only an IPv6 address is found by an AAAA query.
    server.heal();
    server.on(RecordType::SRV, Fault::NoGlue);
    server.set_records(SVC, vec![service(SRV, 5432, &target(0)), address(&target(0), TTL, "fd00::1")]);
    server.take_log();
    assert_eq!(addresses(&dns.resolve().await.unwrap()), ["postgresql-sfs-0 ([fd00::1]:5432)"]);
    assert_eq!(kinds(&server.take_log()), [RecordType::A, RecordType::AAAA, RecordType::SRV]);
}

#[tokio::test]
async fn changed_port_is_a_new_pod_and_changed_weights_are_ignored() {
    let server = start().await;
    server.set_records(SVC, cluster(&[5432, 5432]));
    let mut follower = Follower::new(by_srv(&server));
    let before = follower.step().await.unwrap();
    let mut weighted = cluster(&[5432, 5432]);
    for (pod, weight) in [(0, 7), (1, 90)] {
        weighted[pod] = weighted_service(SRV, weight, weight, 5432, &target(pod));
    }
    server.set_records(SVC, weighted);
    assert_eq!(follower.step().await.unwrap(), before);
    assert!(!follower.recheck);

    server.set_records(SVC, cluster(&[5432, 6432]));
    follower.step().await.unwrap();
    let after = follower.step().await.unwrap();
    assert_eq!(after, ["postgresql-sfs-0 (10.0.0.1:5432)", "postgresql-sfs-1 (10.0.0.2:6432)"]);
    assert_eq!(kinds(&server.take_log()), [RecordType::SRV; 4]);
}

#[tokio::test]
async fn weights_and_priorities_are_used_if_they_are_asked_for() {
    let server = start().await;
    let mut options = options(&[&server]);
    (options.srv_port_name, options.srv_weights) = (Some("postgresql-port".into()), true);
    let dns = Dns::new(options).unwrap();
    let mut records = cluster(&[5432, 5432, 5432]);
    for (weights, expected) in [
        ([(0, 500), (0, 250), (10, 3)], [(0, 100), (0, 50), (10, 100)]),
        ([(0, 500), (0, 0), (5, 3)], [(0, 100), (0, 1), (5, 100)]),
    ] {
        for (pod, (priority, weight)) in weights.into_iter().enumerate() {
            records[pod] = weighted_service(SRV, priority, weight, 5432, &target(pod));
        }
        server.set_records(SVC, records.clone());
        let resolution = dns.resolve().await.unwrap();
        let found: Vec<_> = resolution.endpoints.iter().map(|pod| (pod.priority(), pod.weight())).collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn fetches_an_srv_response_too_large_for_udp_over_tcp() {
    let server = start().await;
    for pods in [3, 40, 120] {
        server.set_records(SVC, cluster(&vec![5432; pods]));
        let resolution = by_srv(&server).resolve().await.unwrap();
        assert_eq!(resolution.endpoints.len(), pods);
        let log = server.take_log();
        assert_eq!(tcp(&log), usize::from(pods > 11));
        assert!(log.iter().all(|packet| packet.kind == RecordType::SRV));
    }
}

#[tokio::test]
async fn returns_a_dual_stack_pod_once() {
    let server = start().await;
    let mut records = cluster(&[5432, 5432]);
    records.extend([0, 1].map(|pod| address(&target(pod), TTL, &format!("fd00::{}", pod + 1))));
    server.set_records(SVC, records);
    let resolution = by_srv(&server).resolve().await.unwrap();
    assert_eq!(addresses(&resolution), ["postgresql-sfs-0 (10.0.0.1:5432)", "postgresql-sfs-1 (10.0.0.2:5432)"]);
}

#[tokio::test]
async fn missing_srv_records_are_negative_and_servfail_is_an_error() {
    let server = start().await;
    server.set(SVC, &["10.0.0.1"]);
    // The errors tell which records of which name were queried, even before a name of the search list has resolved.
    let missing = by_srv(&server).resolve().await.unwrap_err();
    assert_eq!((missing.is_negative(), missing.name()), (true, Some(SRV)));
    assert_eq!((missing.servers()[0].record_type().as_str(), missing.servers()[0].name()), ("SRV", SRV));
    server.always(Fault::Code(2));
    let failed = by_srv(&server).resolve().await.unwrap_err();
    assert_eq!((failed.kind(), failed.name()), (ResolveErrorKind::ServerFailure("SERVFAIL"), Some(SRV)));
    assert!(
        failed.to_string().starts_with(&format!("{SRV}: the name server returned SERVFAIL: SRV query")),
        "{failed}"
    );
}
