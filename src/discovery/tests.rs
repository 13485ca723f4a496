//! Lookups through real sockets, against a name server that does wrong.

use std::net::SocketAddr;

use super::{fault_dns::*, *};
use crate::time::{Duration, Instant};

const SVC: &str = "postgresql-svc.k8s-training.svc.cluster.local.";
const SRV: &str = "_postgresql-port._tcp.postgresql-svc.k8s-training.svc.cluster.local.";

fn options(servers: &[&FaultDns]) -> DnsOptions {
    let mut options = DnsOptions::new(SVC, 5432);
    options.nameservers = servers.iter().map(|server| server.address()).collect();
    options
}

fn dns(servers: &[&FaultDns]) -> Dns {
    Dns::new(options(servers)).unwrap()
}

fn addresses(resolution: &Resolution) -> Vec<String> {
    resolution.endpoints.iter().map(ToString::to_string).collect()
}

fn kinds(log: &[Packet]) -> Vec<RecordType> {
    let mut kinds: Vec<_> = log.iter().map(|packet| packet.kind).collect();
    kinds.sort_unstable();
    kinds
}

#[tokio::test]
async fn one_packet_a_family_and_the_answer_tells_name_and_server() {
    let server = FaultDns::start().await.unwrap();
    server.set(SVC, &["10.0.0.2", "10.0.0.1"]);
    let dns = dns(&[&server]);
    let resolution = dns.resolve().await.unwrap();
    assert_eq!(addresses(&resolution), ["10.0.0.1:5432", "10.0.0.2:5432"]);
    assert_eq!(resolution.server, Some(server.address()));
    assert_eq!(resolution.name.as_deref(), Some(SVC));
    let holds = resolution.valid_until - Instant::now();
    assert!(holds > Duration::from_secs(4) && holds <= Duration::from_secs(5), "{holds:?}");
    let log = server.take_log();
    assert_eq!(kinds(&log), [RecordType::A, RecordType::AAAA]);
    assert!(log.iter().all(|packet| packet.payload == Some(1232) && packet.name == SVC));
}

#[tokio::test]
async fn a_silent_first_server_costs_one_hedge_and_then_nothing() {
    let silent = FaultDns::start().await.unwrap();
    let good = FaultDns::start().await.unwrap();
    silent.always(Fault::Drop);
    good.set(SVC, &["10.0.0.1"]);
    let dns = dns(&[&silent, &good]);
    let begin = Instant::now();
    assert_eq!(addresses(&dns.resolve().await.unwrap()), ["10.0.0.1:5432"]);
    assert!(begin.elapsed() < Duration::from_millis(350), "{:?}", begin.elapsed());
    silent.take_log();
    let begin = Instant::now();
    dns.resolve().await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(50), "{:?}", begin.elapsed());
    assert_eq!(silent.take_log(), []);
}

#[tokio::test]
async fn srv_tells_name_port_and_address_in_one_packet() {
    let server = FaultDns::start().await.unwrap();
    let target = |pod: u8| format!("postgresql-sfs-{pod}.{SVC}");
    let mut records = vec![service(SRV, 5433, &target(1)), service(SRV, 5432, &target(0))];
    records.extend([0, 1].map(|pod| address(&target(pod), TTL, &format!("10.0.0.{}", pod + 1))));
    server.set_records(SVC, records);
    let mut options = options(&[&server]);
    options.srv_port_name = Some("postgresql-port".into());
    let resolution = Dns::new(options).unwrap().resolve().await.unwrap();
    assert_eq!(addresses(&resolution), ["postgresql-sfs-0 (10.0.0.1:5432)", "postgresql-sfs-1 (10.0.0.2:5433)"]);
    assert_eq!(kinds(&server.take_log()), [RecordType::SRV]);
}

#[tokio::test]
async fn a_closed_port_is_noticed_at_once() {
    let server = FaultDns::start().await.unwrap();
    let address: SocketAddr = server.address();
    server.stop().await;
    let mut options = DnsOptions::new(SVC, 5432);
    options.nameservers = vec![address];
    let begin = Instant::now();
    let error = Dns::new(options).unwrap().resolve().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::Io, "{error:?}");
    assert!(error.to_string().contains("efused"), "{error}");
    assert!(begin.elapsed() < Duration::from_millis(200), "{:?}", begin.elapsed());
}
