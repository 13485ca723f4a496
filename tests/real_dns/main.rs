//! Tests discovery with real name servers.
//!
//! - dnsmasq: truncated responses that contain only some of the Pods, as CoreDNS sends them; changed hosts files; a
//!   name without Pods; SRV records.
//! - Knot: dynamic updates, including a set of Pods that is too large for a UDP packet; a name without Pods; a Pod
//!   whose address and port change in its SRV records; an expired zone (SERVFAIL) and recovery from it.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod server;

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use common::programs::programs;
use podpool::{
    Config, Pool,
    discovery::{Dns, DnsOptions, Resolve as _, ResolveErrorKind},
};
use server::{Server, ask, run};

const SVC: &str = "postgresql-svc.k8s-training.svc.cluster.local";
/// Maximum time until lookups return a change to the name server's data.
const CHANGE: Duration = Duration::from_secs(5);
/// Record type A (RFC 1035 section 3.2.2).
const A: u16 = 1;

/// Returns options for resolving the Service's addresses with this server.
fn options(server: &Server) -> DnsOptions {
    let mut options = DnsOptions::new(format!("{SVC}.").parse().expect("the Service name parses"), 5432);
    options.nameservers = vec![server.address()];
    options
}

/// Returns a resolver for the Service's SRV records.
fn srv_resolver(server: &Server) -> Dns {
    let mut options = options(server);
    options.srv_port_name = Some("postgresql-port".into());
    Dns::new(options).expect("the resolver is created")
}

/// Resolves the name and returns the Pods.
async fn resolved(dns: &Dns) -> Vec<String> {
    let deadline = Instant::now() + CHANGE;
    loop {
        match dns.resolve().await {
            Ok(resolution) => return resolution.endpoints.iter().map(ToString::to_string).collect(),
            // A server that has just started may still refuse UDP or TCP.
            Err(error) if error.kind() == ResolveErrorKind::Io && Instant::now() < deadline => {}
            Err(error) => panic!("the lookup failed: {error:?}"),
        }
    }
}

/// Resolves the name until the result is exactly these Pods.
async fn until_resolved(dns: &Dns, expected: &[String]) {
    let deadline = Instant::now() + CHANGE;
    loop {
        let result = dns.resolve().await;
        let pods = result.as_ref().map(|resolution| resolution.endpoints.iter().map(ToString::to_string).collect());
        if pods.as_ref().is_ok_and(|pods: &Vec<_>| pods == expected) {
            return;
        }
        assert!(Instant::now() < deadline, "not resolved within {CHANGE:?}: expected {expected:?}, got {pods:?}");
    }
}

/// Returns `count` different IPv4 addresses.
fn ips(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect()
}

/// Returns the Pods at these addresses, formatted and sorted like endpoints.
fn pods(ips: &[String]) -> Vec<String> {
    let mut ips: Vec<std::net::IpAddr> = ips.iter().map(|ip| ip.parse().expect("the address parses")).collect();
    ips.sort_unstable();
    ips.iter().map(|ip| format!("{ip}:5432")).collect()
}

// === dnsmasq ===

/// Replaces the hosts file atomically.
fn write_hosts(directory: &Path, ips: &[String]) {
    let mut text = String::new();
    for (n, ip) in ips.iter().enumerate() {
        writeln!(text, "{ip} {SVC} postgresql-sfs-{n}.{SVC}").expect("writing to a string succeeds");
    }
    let next = directory.join("hosts.next");
    fs::write(&next, text).expect("the file is written");
    fs::rename(next, directory.join("hosts")).expect("the hosts file is replaced");
}

/// Starts dnsmasq with these addresses. Returns `None` if it is not installed.
fn dnsmasq(ips: &[String]) -> Option<Server> {
    let [program] = programs(["dnsmasq"])?;
    Some(Server::start(|directory, address| {
        write_hosts(directory, ips);
        let mut command = Command::new(&program);
        command.args(["--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--bind-interfaces"]);
        command.args(["--no-resolv", "--no-hosts", "--local=/cluster.local/", "--local-ttl=5", "--user=root"]);
        command.arg(format!("--listen-address={}", address.ip())).arg(format!("--port={}", address.port()));
        command.arg(format!("--addn-hosts={}", directory.join("hosts").display()));
        command.arg(format!("--pid-file={}", directory.join("pid").display()));
        for pod in [0, 1] {
            let target = format!("postgresql-sfs-{pod}.{SVC}");
            command.arg(format!("--srv-host=_postgresql-port._tcp.{SVC},{target},{}", 5432 + pod));
        }
        command
    }))
}

#[tokio::test]
async fn returns_all_pods_if_dnsmasq_truncates_the_response() {
    let Some(server) = dnsmasq(&ips(200)) else { return };
    for payload in [None, Some(1232)] {
        let header = ask(server.address(), SVC, A, payload).expect("the name server responds");
        println!("UDP payload {payload:?}: {} of 200 records, truncated: {}", header.answers, header.truncated);
        assert!(
            header.truncated && (1..200).contains(&header.answers),
            "dnsmasq did not truncate the response in the middle of the set"
        );
    }
    let dns = Dns::new(options(&server)).expect("the resolver is created");
    for _ in 0..20 {
        assert_eq!(resolved(&dns).await, pods(&ips(200)));
    }
    // Each lookup sends one A query. AAAA queries are rare, since the name has no AAAA records. Retries over TCP are
    // not counted.
    let packets = dns.stats().packets;
    assert!((20..=25).contains(&packets), "expected 20 to 25 packets for 20 lookups, got {packets}");
}

#[tokio::test]
async fn follows_changes_to_the_dnsmasq_hosts_file() {
    let Some(server) = dnsmasq(&ips(3)) else { return };
    let dns = Dns::new(options(&server)).expect("the resolver is created");
    assert_eq!(resolved(&dns).await, pods(&ips(3)));
    // The numbers of Pods are just below and just above the limits at which dnsmasq truncates its responses, with and
    // without EDNS.
    for count in [28, 29, 72, 73, 74, 200, 5] {
        write_hosts(server.directory(), &ips(count));
        server.signal("HUP");
        until_resolved(&dns, &pods(&ips(count))).await;
    }
    write_hosts(server.directory(), &[]);
    server.signal("HUP");
    let deadline = Instant::now() + CHANGE;
    let error = loop {
        match dns.resolve().await {
            Ok(_) => assert!(Instant::now() < deadline, "the name still resolves, but has no addresses"),
            Err(error) => break error,
        }
    };
    assert!(error.is_negative(), "expected a negative response, got: {error}");
    assert_eq!(error.negative_ttl(), None, "dnsmasq sends no SOA record");
}

#[tokio::test]
async fn srv_lookup_in_dnsmasq_returns_names_addresses_and_ports() {
    let Some(server) = dnsmasq(&ips(2)) else { return };
    let dns = srv_resolver(&server);
    let expected = [(0, 5432), (1, 5433)].map(|(n, port)| format!("postgresql-sfs-{n} ({}:{port})", ips(2)[n]));
    assert_eq!(resolved(&dns).await, expected);
    write_hosts(server.directory(), &["10.2.0.9".into(), "10.2.0.8".into()]);
    server.signal("HUP");
    let moved = ["postgresql-sfs-0 (10.2.0.9:5432)", "postgresql-sfs-1 (10.2.0.8:5433)"].map(str::to_owned);
    until_resolved(&dns, &moved).await;
}

// === Knot ===

/// A running Knot server, and the paths of its tools.
struct Knot {
    server: Server,
    knotc: std::path::PathBuf,
    nsupdate: std::path::PathBuf,
}

/// Starts Knot with these records. Returns `None` if it is not installed.
fn knot(records: &[String]) -> Option<Knot> {
    let [knotd, knotc, nsupdate] = programs(["knotd", "knotc", "knsupdate"])?;
    let server = Server::start(|directory, address| {
        let mut zone = "cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\n\
                        cluster.local. 5 IN NS ns.dns.cluster.local.\nns.dns.cluster.local. 5 IN A 10.96.0.10\n"
            .to_owned();
        for record in records {
            writeln!(zone, "{record}").expect("writing to a string succeeds");
        }
        let directory = directory.display();
        let configuration = format!(
            "server:\n    rundir: {directory}\n    listen: {}@{}\n    udp-max-payload: 1232\n    answer-rotation: on\n\
             database:\n    storage: {directory}/db\n\
             log:\n  - target: stderr\n    any: info\n\
             acl:\n  - id: update\n    address: 127.0.0.0/8\n    action: update\n\
             zone:\n  - domain: cluster.local\n    storage: {directory}\n    file: zone\n    acl: update\n    \
             zonefile-sync: -1\n    zonefile-load: whole\n    journal-content: none\n",
            address.ip(),
            address.port()
        );
        fs::write(format!("{directory}/zone"), zone).expect("the file is written");
        fs::write(format!("{directory}/conf"), configuration).expect("the file is written");
        let mut command = Command::new(&knotd);
        command.arg("--config").arg(format!("{directory}/conf"));
        command
    });
    Some(Knot { server, knotc, nsupdate })
}

impl Knot {
    /// Sends these lines as one dynamic update (RFC 2136), which the server applies atomically.
    fn update(&self, lines: &[String]) {
        let address = self.server.address();
        let head = format!("server {} {}\nzone cluster.local.\n", address.ip(), address.port());
        run(Command::new(&self.nsupdate), &format!("{head}{}\nsend\nquit\n", lines.join("\n")));
    }

    /// Runs `knotc`, the server's control program, with these arguments.
    fn control(&self, arguments: &[&str]) {
        let mut command = Command::new(&self.knotc);
        command.arg("--config").arg(self.server.directory().join("conf")).arg("--blocking").arg("--force");
        command.args(arguments);
        run(command, "");
    }
}

fn address_records(ips: &[String]) -> Vec<String> {
    ips.iter().map(|ip| format!("{SVC}. 5 A {ip}")).collect()
}

/// Returns update lines that add or delete records. `action` is `add` or `del`.
fn change(action: &str, records: &[String]) -> Vec<String> {
    records.iter().map(|record| format!("update {action} {record}")).collect()
}

#[tokio::test]
async fn follows_dynamic_updates_in_knot() {
    let Some(knot) = knot(&address_records(&ips(3))) else { return };
    let dns = Dns::new(options(&knot.server)).expect("the resolver is created");
    assert_eq!(resolved(&dns).await, pods(&ips(3)));

    // Adds two Pods, then deletes three, then replaces all of them in one update.
    knot.update(&change("add", &address_records(&ips(5)[3..])));
    until_resolved(&dns, &pods(&ips(5))).await;
    knot.update(&change("del", &address_records(&ips(5)[..3])));
    until_resolved(&dns, &pods(&ips(5)[3..])).await;
    let new: Vec<String> = (1..=4).map(|n| format!("10.9.0.{n}")).collect();
    let mut lines = vec![format!("update del {SVC}. A")];
    lines.extend(change("add", &address_records(&new)));
    knot.update(&lines);
    until_resolved(&dns, &pods(&new)).await;

    // The set is too large for UDP, so Knot truncates the response and the resolver retries over TCP.
    knot.update(&change("add", &address_records(&ips(200))));
    let header = ask(knot.server.address(), SVC, A, Some(1232)).expect("the name server responds");
    println!("UDP payload 1232: {} of 204 records, truncated: {}", header.answers, header.truncated);
    assert!(header.truncated && header.answers < 204, "Knot did not truncate the response");
    let all: Vec<String> = ips(200).into_iter().chain(new).collect();
    until_resolved(&dns, &pods(&all)).await;

    // Without Pods, the response is negative, and its TTL comes from the zone's SOA record.
    knot.update(&[format!("update del {SVC}. A")]);
    let error = dns.resolve().await.expect_err("the name has no addresses");
    assert!(error.is_negative(), "expected a negative response, got: {error}");
    assert_eq!(error.negative_ttl(), Some(Duration::from_secs(5)));
    assert!(knot.server.log().contains("cluster.local"), "{}", knot.server.log());
}

#[tokio::test]
async fn follows_a_pod_whose_srv_address_and_port_change_in_knot() {
    let pod = |n: usize, port: u16, ip: &str| {
        let target = format!("postgresql-sfs-{n}.{SVC}.");
        [format!("_postgresql-port._tcp.{SVC}. 5 SRV 0 50 {port} {target}"), format!("{target} 5 A {ip}")]
    };
    let before = [pod(0, 5432, "10.1.0.1"), pod(1, 5432, "10.1.0.2")].concat();
    let Some(knot) = knot(&before) else { return };
    let dns = srv_resolver(&knot.server);
    let before = ["postgresql-sfs-0 (10.1.0.1:5432)", "postgresql-sfs-1 (10.1.0.2:5432)"];
    assert_eq!(resolved(&dns).await, before);
    // Changes the address and the port of one Pod in one update.
    let mut lines = change("del", &pod(1, 5432, "10.1.0.2"));
    lines.extend(change("add", &pod(1, 6432, "10.1.0.7")));
    knot.update(&lines);
    let after = ["postgresql-sfs-0 (10.1.0.1:5432)", "postgresql-sfs-1 (10.1.0.7:6432)"];
    until_resolved(&dns, &after.map(str::to_owned)).await;
}

#[tokio::test]
async fn an_expired_zone_in_knot_does_not_remove_pods() {
    let Some(mut knot) = knot(&address_records(&ips(3))) else { return };
    let dns = Dns::new(options(&knot.server)).expect("the resolver is created");
    assert_eq!(resolved(&dns).await, pods(&ips(3)));
    let server = knot.server.address();
    // No server listens on these loopback addresses. The test checks only the pool's members.
    let loopback: Vec<String> = (2..5).map(|n| format!("127.0.0.{n}")).collect();
    let mut lines = vec![format!("update del {SVC}. A")];
    lines.extend(change("add", &address_records(&loopback)));
    knot.update(&lines);
    let url = format!("postgres://user@{SVC}:1/database?nameservers={server}&refresh_max=1s");
    let config: Config = url.parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    let members = || {
        pool.status()
            .endpoints
            .iter()
            .map(|pod| pod.endpoint.address().tcp().unwrap().ip().to_string())
            .collect::<Vec<_>>()
    };
    common::until(CHANGE, "the pool has three members", || members() == loopback).await;

    knot.control(&["zone-purge", "cluster.local", "+expire"]);
    assert_eq!(ask(server, SVC, A, None).expect("the name server responds").code, 2, "the response is not SERVFAIL");
    let error = dns.resolve().await.expect_err("the zone is expired");
    assert_eq!(error.kind(), ResolveErrorKind::ServerFailure("SERVFAIL"), "unexpected error: {error}");
    assert!(!error.is_negative(), "SERVFAIL was treated as a negative response: {error}");
    common::until(CHANGE, "three refreshes of the pool fail", || pool.status().resolve.failures >= 3).await;
    assert_eq!(members(), loopback);

    // After a restart, Knot serves the zone from its file again.
    knot.server.restart();
    until_resolved(&dns, &pods(&ips(3))).await;
    common::until(Duration::from_secs(10), "the pool follows the zone again", || members() == ips(3)).await;
    assert!(pool.status().resolve.ok, "the last lookup failed");
}
