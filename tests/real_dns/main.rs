//! Discovery through real name servers: dnsmasq, whose truncated answers hold a part of the Pods as CoreDNS's do, and
//! Knot, whose zone changes while it serves.
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
/// How long a change may take to be answered.
const CHANGE: Duration = Duration::from_secs(5);
const A: u16 = 1;

fn options(server: &Server) -> DnsOptions {
    let mut options = DnsOptions::new(format!("{SVC}."), 5432);
    options.nameservers = vec![server.address()];
    options
}

fn by_srv(server: &Server) -> Dns {
    let mut options = options(server);
    options.srv_port_name = Some("postgresql-port".into());
    Dns::new(options).expect("a resolver")
}

async fn resolved(dns: &Dns) -> Vec<String> {
    let deadline = Instant::now() + CHANGE;
    loop {
        match dns.resolve().await {
            Ok(resolution) => return resolution.endpoints.iter().map(ToString::to_string).collect(),
            // A server that has just come up may still refuse one of its ways.
            Err(error) if error.kind() == ResolveErrorKind::Io && Instant::now() < deadline => {}
            Err(error) => panic!("an answer: {error:?}"),
        }
    }
}

/// Asks until the answer is this.
async fn until_resolved(dns: &Dns, expected: &[String]) {
    let deadline = Instant::now() + CHANGE;
    loop {
        let result = dns.resolve().await;
        let pods = result.as_ref().map(|resolution| resolution.endpoints.iter().map(ToString::to_string).collect());
        if pods.as_ref().is_ok_and(|pods: &Vec<_>| pods == expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{pods:?} and not {expected:?}");
    }
}

fn ips(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect()
}

/// As endpoints are written, in their order.
fn pods(ips: &[String]) -> Vec<String> {
    let mut ips: Vec<std::net::IpAddr> = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
    ips.sort_unstable();
    ips.iter().map(|ip| format!("{ip}:5432")).collect()
}

// === dnsmasq ===

fn write_hosts(directory: &Path, ips: &[String]) {
    let mut text = String::new();
    for (n, ip) in ips.iter().enumerate() {
        writeln!(text, "{ip} {SVC} postgresql-sfs-{n}.{SVC}").expect("a string");
    }
    let next = directory.join("hosts.next");
    fs::write(&next, text).expect("written");
    fs::rename(next, directory.join("hosts")).expect("replaced at once");
}

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
async fn dnsmasq_truncates_in_the_middle_of_the_set_and_the_whole_set_comes() {
    let Some(server) = dnsmasq(&ips(200)) else { return };
    for payload in [None, Some(1232)] {
        let header = ask(server.address(), SVC, A, payload).expect("an answer");
        println!("UDP payload {payload:?}: {} of 200 answers, truncated: {}", header.answers, header.truncated);
        assert!(header.truncated && (1..200).contains(&header.answers), "what this test is for");
    }
    let dns = Dns::new(options(&server)).expect("a resolver");
    for _ in 0..20 {
        assert_eq!(resolved(&dns).await, pods(&ips(200)));
    }
    // One packet a lookup, and IPv6, which is not there, now and then; the truncated ones were fetched by TCP.
    let packets = dns.stats().packets;
    assert!((20..=25).contains(&packets), "{packets} packets for 20 lookups");
}

#[tokio::test]
async fn dnsmasq_reads_its_hosts_again_and_the_set_follows() {
    let Some(server) = dnsmasq(&ips(3)) else { return };
    let dns = Dns::new(options(&server)).expect("a resolver");
    assert_eq!(resolved(&dns).await, pods(&ips(3)));
    // Around the sizes at which answers begin to be truncated, with and without EDNS.
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
            Ok(_) => assert!(Instant::now() < deadline, "nobody is left, and somebody is told of"),
            Err(error) => break error,
        }
    };
    assert!(error.is_negative(), "{error}");
    assert_eq!(error.negative_ttl(), None, "dnsmasq sends no SOA record");
}

#[tokio::test]
async fn dnsmasq_tells_names_ports_and_addresses_by_srv() {
    let Some(server) = dnsmasq(&ips(2)) else { return };
    let dns = by_srv(&server);
    let expected = [(0, 5432), (1, 5433)].map(|(n, port)| format!("postgresql-sfs-{n} ({}:{port})", ips(2)[n]));
    assert_eq!(resolved(&dns).await, expected);
    write_hosts(server.directory(), &["10.2.0.9".into(), "10.2.0.8".into()]);
    server.signal("HUP");
    let moved = ["postgresql-sfs-0 (10.2.0.9:5432)", "postgresql-sfs-1 (10.2.0.8:5433)"].map(str::to_owned);
    until_resolved(&dns, &moved).await;
}

// === Knot ===

struct Knot {
    server: Server,
    knotc: std::path::PathBuf,
    nsupdate: std::path::PathBuf,
}

fn knot(records: &[String]) -> Option<Knot> {
    let [knotd, knotc, nsupdate] = programs(["knotd", "knotc", "knsupdate"])?;
    let server = Server::start(|directory, address| {
        let mut zone = "cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\n\
                        cluster.local. 5 IN NS ns.dns.cluster.local.\nns.dns.cluster.local. 5 IN A 10.96.0.10\n"
            .to_owned();
        for record in records {
            writeln!(zone, "{record}").expect("a string");
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
        fs::write(format!("{directory}/zone"), zone).expect("written");
        fs::write(format!("{directory}/conf"), configuration).expect("written");
        let mut command = Command::new(&knotd);
        command.arg("--config").arg(format!("{directory}/conf"));
        command
    });
    Some(Knot { server, knotc, nsupdate })
}

impl Knot {
    /// One dynamic update (RFC 2136): these lines, whole or not at all.
    fn update(&self, lines: &[String]) {
        let address = self.server.address();
        let head = format!("server {} {}\nzone cluster.local.\n", address.ip(), address.port());
        run(Command::new(&self.nsupdate), &format!("{head}{}\nsend\nquit\n", lines.join("\n")));
    }

    fn control(&self, words: &[&str]) {
        let mut command = Command::new(&self.knotc);
        command.arg("--config").arg(self.server.directory().join("conf")).arg("--blocking").arg("--force").args(words);
        run(command, "");
    }
}

fn address_records(ips: &[String]) -> Vec<String> {
    ips.iter().map(|ip| format!("{SVC}. 5 A {ip}")).collect()
}

fn change(word: &str, records: &[String]) -> Vec<String> {
    records.iter().map(|record| format!("update {word} {record}")).collect()
}

#[tokio::test]
async fn knot_is_updated_while_it_serves_and_the_set_follows() {
    let Some(knot) = knot(&address_records(&ips(3))) else { return };
    let dns = Dns::new(options(&knot.server)).expect("a resolver");
    assert_eq!(resolved(&dns).await, pods(&ips(3)));

    // Two more; two less; all replaced in one update.
    knot.update(&change("add", &address_records(&ips(5)[3..])));
    until_resolved(&dns, &pods(&ips(5))).await;
    knot.update(&change("del", &address_records(&ips(5)[..3])));
    until_resolved(&dns, &pods(&ips(5)[3..])).await;
    let new: Vec<String> = (1..=4).map(|n| format!("10.9.0.{n}")).collect();
    let mut lines = vec![format!("update del {SVC}. A")];
    lines.extend(change("add", &address_records(&new)));
    knot.update(&lines);
    until_resolved(&dns, &pods(&new)).await;

    // A set that no UDP packet holds: truncated to nothing, fetched by TCP.
    knot.update(&change("add", &address_records(&ips(200))));
    let header = ask(knot.server.address(), SVC, A, Some(1232)).expect("an answer");
    println!("UDP payload 1232: {} of 204 answers, truncated: {}", header.answers, header.truncated);
    assert!(header.truncated && header.answers < 204, "what this step is for");
    let all: Vec<String> = ips(200).into_iter().chain(new).collect();
    until_resolved(&dns, &pods(&all)).await;

    // Nobody is left: a negative answer, with the TTL of the zone's SOA record.
    knot.update(&[format!("update del {SVC}. A")]);
    let error = dns.resolve().await.expect_err("nobody");
    assert!(error.is_negative(), "{error}");
    assert_eq!(error.negative_ttl(), Some(Duration::from_secs(5)));
    assert!(knot.server.log().contains("cluster.local"), "{}", knot.server.log());
}

#[tokio::test]
async fn knot_moves_a_pod_under_its_name_by_srv() {
    let pod = |n: usize, port: u16, ip: &str| {
        let target = format!("postgresql-sfs-{n}.{SVC}.");
        [format!("_postgresql-port._tcp.{SVC}. 5 SRV 0 50 {port} {target}"), format!("{target} 5 A {ip}")]
    };
    let before = [pod(0, 5432, "10.1.0.1"), pod(1, 5432, "10.1.0.2")].concat();
    let Some(knot) = knot(&before) else { return };
    let dns = by_srv(&knot.server);
    let written = |pods: [&str; 2]| pods.map(str::to_owned);
    assert_eq!(resolved(&dns).await, written(["postgresql-sfs-0 (10.1.0.1:5432)", "postgresql-sfs-1 (10.1.0.2:5432)"]));
    // The same name at a new address, and another port, in one update.
    let mut lines = change("del", &pod(1, 5432, "10.1.0.2"));
    lines.extend(change("add", &pod(1, 6432, "10.1.0.7")));
    knot.update(&lines);
    until_resolved(&dns, &written(["postgresql-sfs-0 (10.1.0.1:5432)", "postgresql-sfs-1 (10.1.0.7:6432)"])).await;
}

#[tokio::test]
async fn knot_with_an_expired_zone_fails_and_takes_no_pod_away() {
    let Some(mut knot) = knot(&address_records(&ips(3))) else { return };
    let dns = Dns::new(options(&knot.server)).expect("a resolver");
    assert_eq!(resolved(&dns).await, pods(&ips(3)));
    let server = knot.server.address();
    // Nobody serves behind these addresses of loopback: what is looked at is who exists.
    let loopback: Vec<String> = (2..5).map(|n| format!("127.0.0.{n}")).collect();
    let mut lines = vec![format!("update del {SVC}. A")];
    lines.extend(change("add", &address_records(&loopback)));
    knot.update(&lines);
    let url = format!("postgres://user@{SVC}:1/database?nameservers={server}&refresh_max=1s");
    let config: Config = url.parse().expect("a URL");
    let pool = Pool::builder(config).build().expect("a pool");
    let set = || pool.status().endpoints.iter().map(|pod| pod.endpoint.address().ip().to_string()).collect::<Vec<_>>();
    common::until(CHANGE, "three Pods are known", || set() == loopback).await;

    knot.control(&["zone-purge", "cluster.local", "+expire"]);
    assert_eq!(ask(server, SVC, A, None).expect("an answer").code, 2, "SERVFAIL");
    let error = dns.resolve().await.expect_err("the zone is expired");
    assert_eq!(error.kind(), ResolveErrorKind::ServerFailure("SERVFAIL"), "{error}");
    assert!(!error.is_negative());
    common::until(CHANGE, "the pool has failed three times", || pool.status().resolve.failures >= 3).await;
    assert_eq!(set(), loopback);

    // Back with the zone as its file has it.
    knot.server.restart();
    until_resolved(&dns, &pods(&ips(3))).await;
    common::until(Duration::from_secs(10), "the pool follows again", || set() == ips(3)).await;
    assert!(pool.status().resolve.ok);
}
