//! Tests the DNS server's responses over UDP and TCP, its faults, and its restart.

use std::net::Ipv4Addr;

use hickory_server::proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode as Code},
    rr::{RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::*;

const SERVICE: &str = "postgresql-svc.k8s-training.svc.cluster.local";

/// Time to wait for a response: long enough over loopback, and short enough for tests that expect no response.
const SHORT: Duration = Duration::from_millis(300);

fn pod(ordinal: u8) -> Endpoint {
    Endpoint::named(format!("postgresql-sfs-{ordinal}"), (Ipv4Addr::new(127, 0, 0, 2 + ordinal), 5432).into())
}

async fn server(pods: u8) -> DnsServer {
    let dns = DnsServer::start("cluster.local").await.unwrap();
    dns.set_pods(SERVICE, (0..pods).map(pod)).unwrap();
    dns
}

/// Encodes a query for a name and record type. `payload` is the EDNS UDP payload size.
fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Query;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// Queries over UDP. Returns `None` if no response arrives in time or the port is closed.
async fn try_udp(dns: &DnsServer, name: &str, kind: RecordType) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(dns.address()).await.unwrap();
    socket.send(&query(name, kind, Some(1232))).await.unwrap();
    let mut packet = [0; 2048];
    let length = timeout(SHORT, socket.recv(&mut packet)).await.ok()?.ok()?;
    Some(Message::from_vec(&packet[..length]).unwrap())
}

async fn udp(dns: &DnsServer, name: &str, kind: RecordType) -> Message {
    try_udp(dns, name, kind).await.expect("a response over UDP")
}

async fn tcp(dns: &DnsServer, name: &str, kind: RecordType) -> Message {
    let mut stream = TcpStream::connect(dns.address()).await.unwrap();
    let query = query(name, kind, None);
    let mut packet = u16::try_from(query.len()).unwrap().to_be_bytes().to_vec();
    packet.extend(query);
    stream.write_all(&packet).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut response = vec![0; usize::from(length)];
    stream.read_exact(&mut response).await.unwrap();
    Message::from_vec(&response).unwrap()
}

fn last_octets(message: &Message) -> Vec<u8> {
    let octet = |data: &RData| match data {
        RData::A(a) => a.0.octets()[3],
        other => panic!("expected an A record, got {other:?}"),
    };
    let mut octets: Vec<u8> = message.answers.iter().map(|record| octet(&record.data)).collect();
    octets.sort_unstable();
    octets
}

#[tokio::test]
async fn returns_the_published_pods_in_rotating_order() {
    let dns = server(3).await;
    dns.set_ttl(Duration::from_millis(1500));
    let response = udp(&dns, SERVICE, RecordType::A).await;
    assert_eq!((response.metadata.response_code, response.metadata.authoritative), (Code::NoError, true));
    assert_eq!(last_octets(&response), [2, 3, 4]);
    assert!(response.answers.iter().all(|record| record.ttl == 2));
    assert_ne!(udp(&dns, SERVICE, RecordType::A).await.answers[0], response.answers[0]);

    dns.add(SERVICE, pod(3)).unwrap();
    dns.add(SERVICE, pod(3)).unwrap();
    dns.remove(SERVICE, &pod(0)).unwrap();
    assert_eq!(last_octets(&udp(&dns, &SERVICE.to_uppercase(), RecordType::A).await), [3, 4, 5]);
    assert_eq!(last_octets(&udp(&dns, &format!("postgresql-sfs-3.{SERVICE}"), RecordType::A).await), [5]);
    assert_eq!(dns.pods(SERVICE).unwrap(), [pod(1), pod(2), pod(3)]);
}

#[tokio::test]
async fn srv_records_contain_names_ports_and_addresses() {
    let dns = server(2).await;
    let response = udp(&dns, &format!("_postgresql-port._tcp.{SERVICE}"), RecordType::SRV).await;
    let mut targets: Vec<_> = response
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::SRV(srv) => (srv.target.to_string(), srv.port),
            other => panic!("expected an SRV record, got {other:?}"),
        })
        .collect();
    targets.sort();
    assert_eq!(targets, [0, 1].map(|i| (format!("postgresql-sfs-{i}.{SERVICE}."), 5432)));
    let mut additionals: Vec<_> = response.additionals.iter().map(|record| record.name.to_string()).collect();
    additionals.sort();
    assert_eq!(additionals, [0, 1].map(|i| format!("postgresql-sfs-{i}.{SERVICE}.")));

    dns.set_port_name("other");
    assert!(udp(&dns, &format!("_other._tcp.{SERVICE}"), RecordType::SRV).await.answers.len() == 2);
}

#[tokio::test]
async fn negative_responses_contain_an_soa_record() {
    let dns = server(1).await;
    let cases = [
        (SERVICE.to_owned(), RecordType::AAAA, Code::NoError),
        (format!("_tcp.{SERVICE}"), RecordType::SRV, Code::NoError),
        ("svc.cluster.local".to_owned(), RecordType::A, Code::NoError),
        (format!("postgresql-sfs-9.{SERVICE}"), RecordType::A, Code::NXDomain),
        (format!("_mysql._tcp.{SERVICE}"), RecordType::SRV, Code::NXDomain),
        ("other.svc.cluster.local".to_owned(), RecordType::A, Code::NXDomain),
    ];
    for (name, kind, code) in cases {
        let response = udp(&dns, &name, kind).await;
        assert_eq!(response.metadata.response_code, code, "{name}");
        assert_eq!((response.answers.len(), response.authorities.len()), (0, 1), "{name}");
        assert!(matches!(response.authorities[0].data, RData::SOA(_)));
    }
    dns.set_pods(SERVICE, []).unwrap();
    assert_eq!(udp(&dns, SERVICE, RecordType::A).await.metadata.response_code, Code::NXDomain);
    assert_eq!(udp(&dns, "example.org", RecordType::A).await.metadata.response_code, Code::Refused);
}

#[tokio::test]
async fn rejects_invalid_names() {
    assert!(matches!(DnsServer::start("a..b").await, Err(Error::Name { .. })));
    let dns = server(0).await;
    assert!(matches!(dns.add("other.example.org", pod(0)), Err(Error::Name { .. })));
    let named = |name: &str| Endpoint::named(name, pod(0).address().tcp().unwrap());
    for name in ["two.labels", "", "a".repeat(64).as_str()] {
        assert!(matches!(dns.add(SERVICE, named(name)), Err(Error::Name { .. })), "`{name}`");
    }
    // A Pod without a name gets a DNS name from its address, as in Kubernetes.
    dns.add(SERVICE, Endpoint::new(pod(0).address().tcp().unwrap())).unwrap();
    assert_eq!(last_octets(&udp(&dns, &format!("127-0-0-2.{SERVICE}"), RecordType::A).await), [2]);
}

#[tokio::test]
async fn fails_pauses_and_delays_on_request() {
    let dns = server(1).await;
    dns.fail(ResponseCode::ServFail);
    assert_eq!(udp(&dns, SERVICE, RecordType::A).await.metadata.response_code, Code::ServFail);
    dns.pause();
    assert!(try_udp(&dns, SERVICE, RecordType::A).await.is_none());
    dns.resume();
    assert_eq!(last_octets(&udp(&dns, SERVICE, RecordType::A).await), [2]);
    dns.set_delay(SHORT * 2);
    assert!(try_udp(&dns, SERVICE, RecordType::A).await.is_none());
    dns.set_delay(Duration::ZERO);

    let before = dns.queries();
    udp(&dns, SERVICE, RecordType::A).await;
    udp(&dns, SERVICE, RecordType::AAAA).await;
    tcp(&dns, SERVICE, RecordType::SRV).await;
    dns.pause();
    assert!(try_udp(&dns, SERVICE, RecordType::TXT).await.is_none());
    assert_eq!(dns.queries() - before, Queries { a: 1, aaaa: 1, srv: 1, other: 1, tcp: 1 });
}

#[tokio::test]
async fn stops_and_restarts_on_the_same_port() {
    let dns = server(1).await;
    let address = dns.address();
    let mut open = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        dns.stop().await;
        assert!(!dns.is_running());
        assert!(try_udp(&dns, SERVICE, RecordType::A).await.is_none());
        assert!(TcpStream::connect(address).await.is_err());
        dns.restart().await.unwrap();
        dns.restart().await.unwrap();
        assert_eq!(dns.address(), address);
        assert_eq!(last_octets(&tcp(&dns, SERVICE, RecordType::A).await), [2]);
    }
    let closed = timeout(SHORT, open.read(&mut [0])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "stop did not close an open TCP connection");
}

#[tokio::test]
async fn truncates_a_large_response_over_udp_but_not_over_tcp() {
    let dns = server(200).await;
    assert!(udp(&dns, SERVICE, RecordType::A).await.metadata.truncation);
    let over_tcp = tcp(&dns, SERVICE, RecordType::A).await;
    assert!(!over_tcp.metadata.truncation);
    assert_eq!(last_octets(&over_tcp), (2..202).collect::<Vec<u8>>());
    assert_eq!(tcp(&dns, &format!("_postgresql-port._tcp.{SERVICE}"), RecordType::SRV).await.answers.len(), 200);
}

#[test]
fn keeps_responding_after_its_runtime_has_ended() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dns = runtime().block_on(server(1));
    let response = runtime().block_on(async { udp(&dns, SERVICE, RecordType::A).await });
    assert_eq!(last_octets(&response), [2]);
}
