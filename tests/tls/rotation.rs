//! Tests that the certificates and authorities of clients and servers can be replaced under load without a failed
//! request, and that invalid files are refused while the previous certificates stay in use.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    Event, Events, Pool,
    config::{
        Limits,
        ssl::{Ssl, SslMode},
    },
    testkit::Cluster,
};

use crate::{Authority, Identity, SERVICE, cluster, config, write};

/// A directory that imitates a mounted Secret. An update writes new files to a new directory and then replaces a
/// symbolic link, as the kubelet does.
struct Secret<'a> {
    directory: &'a Path,
    version: u32,
}

impl Secret<'_> {
    fn update(&mut self, root: &str, client: &Identity) {
        self.version += 1;
        let version = format!("..{}", self.version);
        let directory = self.directory.join(&version);
        std::fs::create_dir(&directory).expect("the directory is created");
        for (name, text) in [("ca.crt", root), ("tls.crt", &client.certificate), ("tls.key", &client.key)] {
            write(&directory.join(name), text);
            if self.version == 1 {
                let (target, link) = (Path::new("..data").join(name), self.directory.join(name));
                std::os::unix::fs::symlink(target, link).expect("the symbolic link is created");
            }
        }
        let link = self.directory.join("..new");
        std::os::unix::fs::symlink(version, &link).expect("the symbolic link is created");
        std::fs::rename(link, self.directory.join("..data")).expect("the version link is replaced");
    }
}

/// Waits for the next event with this name.
async fn wait_for(events: &mut Events, wanted: &str) -> Event {
    let found = async {
        loop {
            match events.next().await.expect("the event stream is open") {
                Ok(event) if event.name() == wanted => return event,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), found)
        .await
        .unwrap_or_else(|_| panic!("no event `{wanted}` within 15 s"))
}

/// Waits until every session of the pool uses a client certificate from this authority. Probe sessions do not count,
/// because the pool does not replace them.
async fn all_certified_by(cluster: &Cluster, authority: &str) {
    let deadline = Instant::now() + Duration::from_secs(15);
    for pod in 0..cluster.len() {
        let client = cluster.client(pod).await.expect("the superuser connects");
        let query = "SELECT count(*) FILTER (WHERE issuer_dn = $1), count(*) FROM pg_stat_ssl \
                        JOIN pg_stat_activity USING (pid) WHERE usename = 'user' \
                        AND query NOT LIKE '%pg_is_in_recovery%'";
        loop {
            let row = client.query_one(query, &[&format!("/CN={authority}")]).await.expect("the query succeeds");
            let (certified, all): (i64, i64) = (row.get(0), row.get(1));
            if all > 0 && certified == all {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "only {certified} of {all} sessions on Pod {pod} have a certificate from the authority `{authority}`"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_and_ca_rotation_causes_no_failed_requests() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = format!("{}{}", old.certificate(), new.certificate());
    let cluster = cluster(2, &old.issue(&[SERVICE])).client_ca(&both);
    let cluster = cluster.hba("hostssl all all 127.0.0.0/8 scram-sha-256 clientcert=verify-ca");
    let cluster = cluster.start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let path = |name| files.path().join(name);
    let mut secret = Secret { directory: files.path(), version: 0 };
    secret.update(old.certificate(), &old.client("app"));

    let mut limits = Limits::default();
    limits.max_lifetime = Duration::from_secs(1);
    limits.min_idle = 2;
    let ssl =
        Ssl::new(SslMode::VerifyFull).with_root_cert(path("ca.crt")).with_client_cert(path("tls.crt"), path("tls.key"));
    let pool = Pool::builder(config(&cluster, ssl).with_limits(limits)).build().expect("the pool is created");
    let mut events = pool.events();
    pool.wait_ready(podpool::Target::Standby, Duration::from_secs(5)).await.expect("a Pod is ready");
    pool.wait_ready(podpool::Target::Primary, Duration::from_secs(5)).await.expect("a Pod is ready");

    // Runs a constant load without retries. Connections live for at most one second.
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (pool, stop, done) = (pool.clone(), stop.clone(), done.clone());
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let client = pool.get().await.unwrap_or_else(|error| panic!("checkout failed: {error}"));
                client.query_one("SELECT 1", &[]).await.unwrap_or_else(|error| panic!("a query failed: {error}"));
                done.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    all_certified_by(&cluster, "old").await;

    // Rotates the authority: the clients trust both authorities, then the servers get new certificates, then the
    // clients get new certificates and trust only the new authority.
    secret.update(&both, &old.client("app"));
    wait_for(&mut events, "certificates_reloaded").await;
    for pod in 0..2 {
        let identity = new.issue(&[SERVICE]);
        cluster.set_certificate(pod, identity.certificate, identity.key).await.expect("the certificate is replaced");
    }
    secret.update(new.certificate(), &new.client("app"));
    wait_for(&mut events, "certificates_reloaded").await;
    all_certified_by(&cluster, "new").await;

    // The pool refuses invalid files, reports the reason, and keeps the last valid certificates.
    let before = pool.status().counters.opened;
    let newest = new.client("app");
    secret.update("-----BEGIN CERTIFICATE-----\nhalf", &newest);
    let event = wait_for(&mut events, "certificates_refused").await;
    println!("{event}");
    assert!(event.to_string().contains("sslrootcert"), "the event does not name the parameter: {event}");
    secret.update(new.certificate(), &Identity { key: old.client("app").key, ..newest.clone() });
    let event = wait_for(&mut events, "certificates_refused").await;
    println!("{event}");
    assert!(event.to_string().contains("sslkey"), "the event does not name the parameter: {event}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while pool.status().counters.opened < before + 4 {
        assert!(Instant::now() < deadline, "the pool opens no connections with the last valid certificates");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    secret.update(new.certificate(), &newest);
    wait_for(&mut events, "certificates_reloaded").await;

    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("no request fails");
    }
    let counters = pool.status().counters;
    let (done, opened, failed) = (done.load(Ordering::Relaxed), counters.opened, counters.open_failed);
    println!("{done} requests, 0 failed; {opened} connections opened, {failed} failed to open");
    assert!(done > 500, "too few requests to be conclusive: {done}");
    assert_eq!(failed, 0, "connections that failed to open");
    cluster.shutdown().await.expect("the cluster shuts down");
}
