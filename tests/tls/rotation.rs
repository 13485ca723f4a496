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

/// A mounted Secret: Kubernetes writes each version into a folder of its own and moves a symbolic link.
struct Secret<'a> {
    folder: &'a Path,
    version: u32,
}

impl Secret<'_> {
    fn update(&mut self, root: &str, client: &Identity) {
        self.version += 1;
        let version = format!("..{}", self.version);
        let folder = self.folder.join(&version);
        std::fs::create_dir(&folder).expect("a folder");
        for (name, text) in [("ca.crt", root), ("tls.crt", &client.certificate), ("tls.key", &client.key)] {
            write(&folder.join(name), text);
            if self.version == 1 {
                std::os::unix::fs::symlink(Path::new("..data").join(name), self.folder.join(name)).expect("a link");
            }
        }
        let link = self.folder.join("..new");
        std::os::unix::fs::symlink(version, &link).expect("a link");
        std::fs::rename(link, self.folder.join("..data")).expect("a new version");
    }
}

async fn wait_for(events: &mut Events, wanted: &str) -> Event {
    let found = async {
        loop {
            match events.next().await.expect("the pool lives") {
                Ok(event) if event.name() == wanted => return event,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), found).await.unwrap_or_else(|_| panic!("no `{wanted}`"))
}

/// Waits until every connection of the application has shown a client certificate of this authority; a probe's, which
/// is never lent out, stays as it is.
async fn all_certified_by(cluster: &Cluster, authority: &str) {
    let deadline = Instant::now() + Duration::from_secs(15);
    for pod in 0..cluster.len() {
        let client = cluster.client(pod).await.expect("a connection");
        let question = "SELECT count(*) FILTER (WHERE issuer_dn = $1), count(*) FROM pg_stat_ssl \
                        JOIN pg_stat_activity USING (pid) WHERE usename = 'user' \
                        AND query NOT LIKE '%pg_is_in_recovery%'";
        loop {
            let row = client.query_one(question, &[&format!("/CN={authority}")]).await.expect("an answer");
            let (certified, all): (i64, i64) = (row.get(0), row.get(1));
            if all > 0 && certified == all {
                break;
            }
            assert!(Instant::now() < deadline, "{certified} of {all} connections to Pod {pod} show {authority}'s");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_both_sides_and_their_authority_change_without_a_failed_request() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = format!("{}{}", old.certificate(), new.certificate());
    let cluster = cluster(2, &old.issue(&[SERVICE])).client_ca(&both);
    let cluster = cluster.hba("hostssl all all 127.0.0.0/8 scram-sha-256 clientcert=verify-ca");
    let cluster = cluster.start().await.expect("a cluster");
    let files = tempfile::tempdir().expect("a directory");
    let path = |name| files.path().join(name);
    let mut secret = Secret { folder: files.path(), version: 0 };
    secret.update(old.certificate(), &old.client("app"));

    let mut limits = Limits::default();
    limits.max_lifetime = Duration::from_secs(1);
    limits.min_idle = 2;
    let ssl =
        Ssl::new(SslMode::VerifyFull).with_root_cert(path("ca.crt")).with_client_cert(path("tls.crt"), path("tls.key"));
    let pool = Pool::builder(config(&cluster, ssl).with_limits(limits)).build().expect("a pool");
    let mut events = pool.events();
    pool.wait_ready(podpool::Target::Standby, Duration::from_secs(5)).await.expect("it serves");
    pool.wait_ready(podpool::Target::Primary, Duration::from_secs(5)).await.expect("it serves");

    // Requests all the time, each on a connection that is at most a second old, none of them repeated.
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (pool, stop, done) = (pool.clone(), stop.clone(), done.clone());
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let client = pool.get().await.unwrap_or_else(|error| panic!("a failed request: {error}"));
                client.query_one("SELECT 1", &[]).await.unwrap_or_else(|error| panic!("a failed request: {error}"));
                done.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    all_certified_by(&cluster, "old").await;

    // The authority changes: the clients trust both, the servers change, the clients change and trust the new one.
    secret.update(&both, &old.client("app"));
    wait_for(&mut events, "certificates_reloaded").await;
    for pod in 0..2 {
        let identity = new.issue(&[SERVICE]);
        cluster.set_certificate(pod, identity.certificate, identity.key).await.expect("a new certificate");
    }
    secret.update(new.certificate(), &new.client("app"));
    wait_for(&mut events, "certificates_reloaded").await;
    all_certified_by(&cluster, "new").await;

    // What cannot be used is not: the good ones stay, and it is said why.
    let before = pool.status().counters.opened;
    let newest = new.client("app");
    secret.update("-----BEGIN CERTIFICATE-----\nhalf", &newest);
    let event = wait_for(&mut events, "certificates_refused").await;
    println!("{event}");
    assert!(event.to_string().contains("sslrootcert"), "{event}");
    secret.update(new.certificate(), &Identity { key: old.client("app").key, ..newest.clone() });
    let event = wait_for(&mut events, "certificates_refused").await;
    println!("{event}");
    assert!(event.to_string().contains("sslkey"), "{event}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while pool.status().counters.opened < before + 4 {
        assert!(Instant::now() < deadline, "nothing is opened with the last good ones");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    secret.update(new.certificate(), &newest);
    wait_for(&mut events, "certificates_reloaded").await;

    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("no request failed");
    }
    let counters = pool.status().counters;
    let (done, opened, failed) = (done.load(Ordering::Relaxed), counters.opened, counters.open_failed);
    println!("{done} requests, 0 failed; {opened} connections opened, {failed} failed to open");
    assert!(done > 500, "{done} requests are too few to show anything");
    assert_eq!(failed, 0, "every new connection was opened with certificates that fit");
    cluster.shutdown().await.expect("an orderly end");
}
