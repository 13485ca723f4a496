//! Tests the search list and resolv.conf.

use std::{fs, path::PathBuf};

use super::*;

const SEARCH: &str = "search k8s-training.svc.cluster.local svc.cluster.local cluster.local corp.example";

/// A resolv.conf file for one test, which is removed on drop.
struct Conf(PathBuf);

impl Conf {
    fn new(test: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("podpool-{}-{test}.conf", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    /// Replaces the file atomically, by renaming a new file over it.
    fn replace(&self, text: &str) {
        let fresh = self.0.with_extension("new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, &self.0).unwrap();
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // Ignore the error, because the test may have removed the file already.
        let _ = fs::remove_file(&self.0);
    }
}

fn named(name: &str, server: &FaultDns, conf: &Conf) -> Dns {
    let mut options = DnsOptions::new(name.parse().expect("the name is a valid Service name"), 5432);
    options.nameservers = vec![server.address()];
    options.resolv_conf = conf.0.clone();
    Dns::new(options).unwrap()
}

#[tokio::test]
async fn only_the_first_lookup_tries_the_search_list() {
    let conf = Conf::new("walk", &format!("{SEARCH}\noptions ndots:5\n"));
    let server = start().await;
    server.set(SVC, &["10.0.0.1"]);
    // Each candidate name costs one packet per address family. A complete name has only one candidate: the name itself.
    for (name, tried) in [
        ("postgresql-svc", 1),
        ("postgresql-svc.k8s-training", 2),
        ("postgresql-svc.k8s-training.svc", 3),
        ("postgresql-svc.k8s-training.svc.cluster.local", 1),
        ("postgresql-svc.k8s-training.svc.cluster.local.", 1),
    ] {
        let dns = named(name, &server, &conf);
        let resolution = dns.resolve().await.unwrap();
        assert_eq!((addresses(&resolution), resolution.name.as_deref()), (pods(&[1]), Some(SVC)), "{name}");
        assert_eq!(server.take_log().len(), 2 * tried, "{name}");
        dns.resolve().await.unwrap();
        assert!(server.take_log().iter().all(|packet| packet.name == SVC), "{name}");
        assert_eq!(dns.stats().packets, 2 * tried as u64 + 2);
    }
}

#[tokio::test]
async fn all_names_of_the_search_list_share_one_timeout() {
    const TIMEOUT: Duration = Duration::from_millis(800);
    let conf = Conf::new("slow", &format!("{SEARCH}\noptions ndots:5\n"));
    let server = start().await;
    // The third of five names.
    server.set("late.cluster.local.", &["10.0.0.1"]);
    server.always(Fault::Delay(Duration::from_millis(300)));
    let mut options = DnsOptions::new("late".parse().expect("the name is a valid Service name"), 5432);
    options.nameservers = vec![server.address()];
    options.resolv_conf = conf.0.clone();
    options.timeout = TIMEOUT;
    let dns = Dns::new(options).unwrap();
    let begin = Instant::now();
    let error = dns.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::Timeout);
    assert!(begin.elapsed() < TIMEOUT + Duration::from_millis(300), "{:?}", begin.elapsed());
    // The next lookup begins with the name that was not answered in time.
    server.take_log();
    assert_eq!(addresses(&dns.resolve().await.unwrap()), pods(&[1]));
    let log = server.take_log();
    assert!(log.iter().all(|packet| packet.name == "late.cluster.local."), "{log:?}");
}

#[tokio::test]
async fn error_for_one_candidate_ends_the_search() {
    let conf = Conf::new("inconclusive", &format!("{SEARCH}\noptions ndots:5\n"));
    let server = start().await;
    for fault in [Fault::Code(2), Fault::Drop] {
        let mut options = DnsOptions::new("postgresql-svc".parse().expect("the name is a valid Service name"), 5432);
        options.nameservers = vec![server.address()];
        options.resolv_conf = conf.0.clone();
        options.timeout = Duration::from_millis(300);
        let dns = Dns::new(options).unwrap();
        server.always(fault);
        server.take_log();
        let error = dns.resolve().await.unwrap_err();
        assert!(!error.is_negative(), "{error}");
        let log = server.take_log();
        assert_eq!(log.len(), 2);
        assert!(log.iter().all(|packet| packet.name == SVC));
    }
    // The error is negative only if the response for every candidate and family is negative.
    server.heal();
    let error = named("postgresql-svc", &server, &conf).resolve().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::NoSuchName);
    assert_eq!((error.servers().len(), server.take_log().len()), (10, 10));
    assert!(error.to_string().contains("postgresql-svc.corp.example."), "{error}");
}

#[tokio::test]
async fn skips_a_search_domain_with_a_wildcard_record() {
    let conf = Conf::new("wildcard", &format!("{SEARCH}\noptions ndots:5\n"));
    let server = start().await;
    server.set_records("corp.example.", vec![address("*.corp.example.", TTL, "192.0.2.1")]);
    let dns = named("postgresql-svc", &server, &conf);
    let error = dns.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::NoSuchName);
    assert_eq!(server.take_log().len(), 10 + 1);

    // If the search domain has no wildcard record, a name in that domain is used.
    server.set("postgresql-svc.corp.example.", &["10.0.0.9"]);
    server.set_records("*.corp.example.", vec![]);
    let dns = named("postgresql-svc", &server, &conf);
    let resolution = dns.resolve().await.unwrap();
    assert_eq!(resolution.name.as_deref(), Some("postgresql-svc.corp.example."));
    assert_eq!(addresses(&resolution), pods(&[9]));
    server.take_log();
    dns.resolve().await.unwrap();
    assert_eq!(server.take_log().len(), 2);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn rereads_a_changed_resolv_conf_and_ignores_an_unusable_one() {
    let one = start().await;
    let port = one.address().port();
    let two = FaultDns::start_at(([127, 0, 0, 2], port).into()).await.unwrap();
    one.set(SVC, &["10.0.0.1"]);
    two.set(SVC, &["10.0.0.2"]);
    let conf = Conf::new("reread", &format!("{SEARCH}\nnameserver 127.0.0.1\noptions ndots:5\n"));
    let mut options = DnsOptions::new("postgresql-svc".parse().expect("the name is a valid Service name"), 5432);
    options.nameserver_port = port;
    options.resolv_conf = conf.0.clone();
    let dns = Dns::new(options.clone()).unwrap();
    let answer = async || addresses(&dns.resolve().await.unwrap());
    assert_eq!(answer().await, pods(&[1]));

    conf.replace(&format!("{SEARCH}\nnameserver 127.0.0.2\noptions ndots:5\n"));
    assert_eq!(answer().await, pods(&[2]));
    one.take_log();
    conf.replace("# half writ");
    assert_eq!(answer().await, pods(&[2]));
    fs::remove_file(&conf.0).unwrap();
    assert_eq!(answer().await, pods(&[2]));
    assert_eq!(one.take_log(), []);

    // Reordering the search list does not reset the name that an earlier lookup found.
    conf.replace("search svc.cluster.local cluster.local k8s-training.svc.cluster.local\nnameserver 127.0.0.1\n");
    one.take_log();
    assert_eq!(answer().await, pods(&[1]));
    assert!(one.take_log().iter().all(|packet| packet.name == SVC));

    // If the file was never readable, the error contains its path and a way to do without it.
    options.resolv_conf = conf.0.with_extension("missing");
    let error = Dns::new(options).unwrap().resolve().await.unwrap_err();
    assert_eq!(error.kind(), ResolveErrorKind::NoNameServer);
    assert!(error.to_string().contains("missing"), "{error}");
    assert!(error.to_string().contains("set `nameservers`, for example `nameservers=10.96.0.10`"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}
