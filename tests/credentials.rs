//! Passwords from files and providers, on servers that ask for SCRAM, and what becomes of one that is changed.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    Config, CredentialsError, CredentialsRequest, Event, Kind, Phase, Pool, State, Target,
    config::{Limits, Secret},
    testkit::Cluster,
};

mod common;
use common::{in_state, load::Load, until};

/// How to reach the cluster, but for the password.
fn config(cluster: &Cluster) -> Config {
    let (host, port) = (cluster.service(), cluster.port());
    let (user, dbname, dns) = (cluster.user(), cluster.database(), cluster.dns().address());
    format!("host={host} port={port} user={user} dbname={dbname} nameservers={dns}")
        .parse()
        .expect("keywords and values")
}

/// Connections live for a second at most, so that new ones are opened all the time.
fn short_lived(config: Config) -> Config {
    let mut limits = Limits::default();
    limits.max_lifetime = Duration::from_secs(1);
    config.with_limits(limits)
}

/// A Secret as the kubelet mounts it: the file is a link through a directory that is exchanged as a whole.
struct Mounted(tempfile::TempDir, AtomicUsize);

impl Mounted {
    fn new(password: &str) -> Self {
        let mounted = Self(tempfile::tempdir().expect("a directory"), AtomicUsize::new(0));
        mounted.write(password);
        symlink("..data/password", mounted.path()).expect("a link");
        mounted
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("password")
    }

    fn write(&self, password: &str) {
        let version = format!("..{}", self.1.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(self.0.path().join(&version)).expect("a directory");
        fs::write(self.0.path().join(&version).join("password"), format!("{password}\n")).expect("a file");
        symlink(&version, self.0.path().join("..next")).expect("a link");
        fs::rename(self.0.path().join("..next"), self.0.path().join("..data")).expect("an exchange");
    }
}

fn write_passfile(path: &Path, cluster: &Cluster, password: &str) {
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    let next = path.with_extension("next");
    let line = format!("# of the test\n{}:{}:*:{}:{escaped}\n", cluster.service(), cluster.port(), cluster.user());
    fs::write(&next, line).expect("a file");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).expect("its permissions");
    fs::rename(&next, path).expect("an exchange");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_rotated_under_load_fails_no_request_from_file_passfile_or_provider() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    let first = cluster.password();
    let mounted = Mounted::new(&first);
    let directory = tempfile::tempdir().expect("a directory");
    let passfile = directory.path().join("pgpass");
    write_passfile(&passfile, &cluster, &first);
    let vault = Arc::new(Mutex::new(first.clone()));
    let provider = {
        let vault = vault.clone();
        move |_: CredentialsRequest| {
            let vault = vault.clone();
            async move { Ok::<_, io::Error>(vault.lock().unwrap().clone()) }
        }
    };
    let pools = [
        ("file", Pool::builder(short_lived(config(&cluster)).with_password_file(mounted.path()))),
        ("passfile", Pool::builder(short_lived(config(&cluster)).with_passfile(&passfile))),
        ("provider", Pool::builder(short_lived(config(&cluster))).credentials(provider)),
    ]
    .map(|(name, builder)| (name, builder.build().expect("a pool")));
    let mut loads = Vec::new();
    for (_, pool) in &pools {
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("a Pod serves");
        loads.push(Load::start(pool, Target::Any, 2));
    }

    let passwords = ["se:cond\\ p@ss", "third", "fo'urth"];
    for (round, password) in passwords.iter().enumerate() {
        let change_sources = || {
            mounted.write(password);
            write_passfile(&passfile, &cluster, password);
            *vault.lock().unwrap() = (*password).to_owned();
        };
        // Both orders happen in life.
        if round % 2 == 1 {
            change_sources();
        }
        cluster.set_password(password).await.expect("a rotation");
        change_sources();
        let opened: Vec<_> = pools.iter().map(|(_, pool)| pool.status().counters.opened).collect();
        let renewed =
            || pools.iter().zip(&opened).all(|((_, pool), opened)| pool.status().counters.opened >= opened + 8);
        until(Duration::from_secs(20), "every pool has opened connections with the new password", renewed).await;
    }
    for ((name, pool), load) in pools.iter().zip(loads) {
        let report = load.stop().await;
        let counters = pool.status().counters;
        println!(
            "{name}: {} requests, {} failed; {} connections opened, {} refused on the way",
            report.answers.len() + report.failures.len(),
            report.failures.len(),
            counters.opened,
            counters.open_failed
        );
        assert!(report.failures.is_empty(), "{name}: {:?}", report.failures);
        assert!(report.answers.len() > 500, "{name}: only {} answers", report.answers.len());
    }
    // The old one is good for nothing any more.
    let old = Pool::builder(config(&cluster).with_password(first)).build().expect("a pool");
    assert_eq!(old.get().await.expect_err("the old password").kind(), Kind::Auth);
    drop((pools, old));
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_password_is_asked_for_again_once_and_then_shown() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let right = cluster.password();

    // What has changed is tried at once, in the same dial.
    let calls = Arc::new(Mutex::new(Vec::new()));
    let stale_at_first = {
        let (right, calls) = (right.clone(), calls.clone());
        move |request: CredentialsRequest| {
            calls.lock().unwrap().push(request.refused);
            let password = if request.refused { right.clone() } else { "stale".to_owned() };
            async move { Ok::<_, io::Error>(password) }
        }
    };
    let pool = Pool::builder(config(&cluster)).credentials(stale_at_first).build().expect("a pool");
    drop(pool.get().await.expect("a connection, with the second password"));
    let status = pool.status();
    assert_eq!(status.counters.open_failed, 0, "{status:?}");
    {
        let calls = calls.lock().unwrap();
        assert!(calls.chunks(2).filter(|pair| *pair == [false, true]).count() > 0, "{calls:?}");
        assert_eq!(calls.iter().filter(|refused| **refused).count() * 2, calls.len(), "once each: {calls:?}");
    }
    drop(pool);

    // What has not changed fails fast, and says where and why.
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "wrong\n").expect("a password");
    let pool = Pool::builder(config(&cluster).with_password_file(file.path())).build().expect("a pool");
    let mut events = pool.events();
    let error = pool.get().await.expect_err("the wrong password");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth);
    assert!(error.elapsed().expect("measured") < Duration::from_secs(1), "not at the deadline: {error}");
    let [attempt] = error.attempts() else { panic!("one Pod: {error}") };
    assert_eq!((attempt.phase(), attempt.address()), (Phase::Startup, cluster.pod(0).address()));
    let path = file.path().display().to_string();
    for part in ["SQLSTATE 28P01", path.as_str(), "password authentication failed", "failed in startup"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let said = loop {
        match events.next().await.expect("the pool is open").expect("not behind") {
            Event::LoginFailed { endpoint, cause } => break (endpoint, cause),
            _ => continue,
        }
    };
    assert_eq!(said.0.address(), cluster.pod(0).address());
    assert!(said.1.contains("SQLSTATE 28P01"), "{}", said.1);
    // It heals without a restart.
    fs::write(file.path(), &right).expect("a password");
    until(Duration::from_secs(10), "the Pod serves", || in_state(&pool, State::Healthy) == 1).await;
    drop(pool.get().await.expect("a connection"));
    drop(pool);

    // A password that nobody can give is no secret to keep asking for either.
    let pool = Pool::builder(config(&cluster)).build().expect("a pool");
    let error = pool.get().await.expect_err("no password");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth);
    let cause = error.attempts()[0].cause().expect("a cause");
    assert!(matches!(cause.downcast_ref(), Some(CredentialsError::Missing { .. })), "{error}");
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_hangs_fails_or_panics_costs_no_more_than_the_deadline_and_no_pod() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let right = cluster.password();
    #[derive(Clone, Copy, PartialEq)]
    enum Mood {
        Hangs,
        Fails,
        Panics,
        Works,
    }
    let mood = Arc::new(Mutex::new(Mood::Hangs));
    let provider = {
        let mood = mood.clone();
        move |_: CredentialsRequest| {
            let (mood, right) = (*mood.lock().unwrap(), right.clone());
            async move {
                match mood {
                    Mood::Hangs => std::future::pending().await,
                    Mood::Fails => Err(io::Error::other("the vault is sealed")),
                    Mood::Panics => panic!("of the test"),
                    Mood::Works => Ok(Secret::from(right)),
                }
            }
        }
    };
    let mut limits = Limits::default();
    limits.connect_timeout = Duration::from_millis(200);
    limits.acquire_timeout = Duration::from_secs(1);
    let pool = Pool::builder(config(&cluster).with_limits(limits)).credentials(provider).build().expect("a pool");
    for (next, expected) in [
        (Mood::Hangs, "no credentials within 200ms"),
        (Mood::Fails, "the credentials' provider failed: the vault is sealed"),
        (Mood::Panics, "the credentials' provider panicked"),
    ] {
        *mood.lock().unwrap() = next;
        let shown = || {
            let trouble = pool.status().endpoints.first().and_then(|pod| pod.last_failure.clone());
            trouble.is_some_and(|trouble| trouble.contains(expected))
        };
        until(Duration::from_secs(10), expected, shown).await;
        let began = Instant::now();
        let error = pool.get().await.expect_err("no credentials");
        println!("after {:?}: {error}", began.elapsed());
        assert!(began.elapsed() < Duration::from_millis(1050), "{:?}", began.elapsed());
        assert_eq!(error.kind(), Kind::Auth);
        assert_eq!(error.attempts()[0].phase(), Phase::Credentials);
        assert!(error.to_string().contains(expected), "{error}");
    }
    *mood.lock().unwrap() = Mood::Works;
    until(Duration::from_secs(10), "the Pod serves", || in_state(&pool, State::Healthy) == 1).await;
    drop(pool.get().await.expect("a connection"));

    // With connections open, a provider that fails costs nobody anything.
    *mood.lock().unwrap() = Mood::Fails;
    let load = Load::start(&pool, Target::Any, 4);
    let failed = || pool.status().counters.open_failed;
    let before = failed();
    until(Duration::from_secs(10), "connections could not be opened", || failed() > before + 2).await;
    assert_eq!(in_state(&pool, State::Healthy), 1);
    let report = load.stop().await;
    println!("{} answers while the provider fails", report.answers.len());
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_file_that_others_may_read_is_ignored_with_an_event() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let directory = tempfile::tempdir().expect("a directory");
    let passfile = directory.path().join("pgpass");
    write_passfile(&passfile, &cluster, &cluster.password());
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o644)).expect("its permissions");
    let pool = Pool::builder(config(&cluster).with_passfile(&passfile)).build().expect("a pool");
    let mut events = pool.events();
    let error = pool.get().await.expect_err("no password");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth);
    assert!(error.to_string().contains("was ignored: its permissions are 0644, and should be 0600 or less"), "{error}");

    // Said anew when the reason is another, and not again before.
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o604)).expect("its permissions");
    let mut causes = Vec::new();
    loop {
        match events.next().await.expect("the pool is open").expect("not behind") {
            Event::PassfileIgnored { path, cause } => {
                assert_eq!(*path, *passfile);
                causes.push(cause);
                if causes.len() == 2 {
                    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).expect("its permissions");
                }
            }
            Event::StateChanged { to: "healthy", .. } => break,
            _ => {}
        }
    }
    let [first, second] = causes.as_slice() else { panic!("{causes:?}") };
    assert!(first.contains("0644") && second.contains("0604"), "{causes:?}");
    drop(pool.get().await.expect("a connection"));
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test]
async fn a_password_beside_a_provider_is_an_error() {
    let provider = |_: CredentialsRequest| async { Ok::<_, io::Error>("pw") };
    for (text, parameter) in [("password=x", "password"), ("password_file=/x", "password_file")] {
        let config: Config = format!("host=db user=app {text}").parse().expect("keywords and values");
        let error = Pool::builder(config).credentials(provider).build().expect_err("two passwords");
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains(&format!("parameter `{parameter}`: expected to be left out")), "{error}");
    }
}
