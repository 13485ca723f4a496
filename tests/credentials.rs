//! Tests password authentication on servers that require SCRAM: passwords from files, passfiles and credentials
//! providers, and password rotation.

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

/// Returns a configuration for the cluster, without a password.
fn config(cluster: &Cluster) -> Config {
    let (host, port) = (cluster.service(), cluster.port());
    let (user, dbname, dns) = (cluster.user(), cluster.database(), cluster.dns().address());
    format!("host={host} port={port} user={user} dbname={dbname} nameservers={dns}")
        .parse()
        .expect("the configuration parses")
}

/// Limits the connection lifetime to one second, so that the pool keeps opening new connections.
fn short_lived(config: Config) -> Config {
    let mut limits = Limits::default();
    limits.max_lifetime = Duration::from_secs(1);
    config.with_limits(limits)
}

/// A Secret volume as the kubelet mounts it. The file is a symbolic link to a path through `..data`, which is a
/// symbolic link to a directory. An update replaces `..data` atomically.
struct MountedSecret(tempfile::TempDir, AtomicUsize);

impl MountedSecret {
    fn new(password: &str) -> Self {
        let mounted = Self(tempfile::tempdir().expect("the directory is created"), AtomicUsize::new(0));
        mounted.write(password);
        symlink("..data/password", mounted.path()).expect("the link is created");
        mounted
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("password")
    }

    fn write(&self, password: &str) {
        let version = format!("..{}", self.1.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(self.0.path().join(&version)).expect("the directory is created");
        fs::write(self.0.path().join(&version).join("password"), format!("{password}\n")).expect("the file is written");
        symlink(&version, self.0.path().join("..next")).expect("the link is created");
        fs::rename(self.0.path().join("..next"), self.0.path().join("..data")).expect("the file is renamed");
    }
}

fn write_passfile(path: &Path, cluster: &Cluster, password: &str) {
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    let next = path.with_extension("next");
    let line =
        format!("# written by the test\n{}:{}:*:{}:{escaped}\n", cluster.service(), cluster.port(), cluster.user());
    fs::write(&next, line).expect("the file is written");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).expect("the permissions are set");
    fs::rename(&next, path).expect("the file is renamed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_rotation_under_load_causes_no_failed_requests() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let first = cluster.password();
    let mounted = MountedSecret::new(&first);
    let directory = tempfile::tempdir().expect("the directory is created");
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
    .map(|(name, builder)| (name, builder.build().expect("the pool is created")));
    let mut loads = Vec::new();
    for (_, pool) in &pools {
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("a Pod becomes healthy");
        loads.push(Load::start(pool, Target::Any, 2));
    }

    let passwords = ["se:cond\\ p@ss", "third", "fo'urth"];
    for (round, password) in passwords.iter().enumerate() {
        let change_sources = || {
            mounted.write(password);
            write_passfile(&passfile, &cluster, password);
            *vault.lock().unwrap() = (*password).to_owned();
        };
        // In even rounds, the password changes on the server first and then in the pools' password sources. In odd
        // rounds, the sources change first.
        if round % 2 == 1 {
            change_sources();
        }
        cluster.set_password(password).await.expect("the password is changed");
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
            "{name}: {} requests, {} failed; {} connections opened, {} failed to open",
            report.answers.len() + report.failures.len(),
            report.failures.len(),
            counters.opened,
            counters.open_failed
        );
        assert!(report.failures.is_empty(), "{name}: {:?}", report.failures);
        assert!(report.answers.len() > 500, "{name}: only {} responses", report.answers.len());
    }
    // The servers reject the first password.
    let old = Pool::builder(config(&cluster).with_password(first)).build().expect("the pool is created");
    assert_eq!(old.get().await.expect_err("the server rejects the old password").kind(), Kind::Auth);
    drop((pools, old));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_the_password_once_more_after_a_rejected_login() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let right = cluster.password();

    // If the provider returns a new password after a rejected login, the same connection attempt uses it immediately.
    let calls = Arc::new(Mutex::new(Vec::new()));
    let stale_at_first = {
        let (right, calls) = (right.clone(), calls.clone());
        move |request: CredentialsRequest| {
            calls.lock().unwrap().push(request.refused);
            let password = if request.refused { right.clone() } else { "stale".to_owned() };
            async move { Ok::<_, io::Error>(password) }
        }
    };
    let pool = Pool::builder(config(&cluster)).credentials(stale_at_first).build().expect("the pool is created");
    drop(pool.get().await.expect("checkout succeeds with the second password"));
    let status = pool.status();
    assert_eq!(status.counters.open_failed, 0, "{status:?}");
    // The pool may still be opening further connections, so the number of requests is odd at times.
    until(Duration::from_secs(10), "one repeated request for each rejection", || {
        let calls = calls.lock().unwrap();
        let repeated = calls.iter().filter(|refused| **refused).count();
        repeated > 0 && repeated * 2 == calls.len()
    })
    .await;
    drop(pool);

    // If the file still contains the rejected password, the checkout fails immediately, and the error names the source
    // and the reason.
    let file = tempfile::NamedTempFile::new().expect("the file is created");
    fs::write(file.path(), "wrong\n").expect("the file is written");
    let pool = Pool::builder(config(&cluster).with_password_file(file.path())).build().expect("the pool is created");
    let mut events = pool.events();
    let error = pool.get().await.expect_err("the server rejects the password");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth);
    assert!(
        error.elapsed().expect("a failed checkout has a duration") < Duration::from_secs(1),
        "expected a failure before the deadline: {error}"
    );
    let [attempt] = error.attempts() else { panic!("expected one attempt: {error}") };
    assert_eq!((attempt.phase(), attempt.address().tcp().unwrap()), (Phase::Startup, cluster.pod(0).address()));
    let path = file.path().display().to_string();
    for part in ["SQLSTATE 28P01", path.as_str(), "password authentication failed", "failed in startup"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let login_failed = loop {
        match events.next().await.expect("the pool is open").expect("no event is lost") {
            Event::LoginFailed { endpoint, cause } => break (endpoint, cause),
            _ => continue,
        }
    };
    assert_eq!(login_failed.0.address().tcp().unwrap(), cluster.pod(0).address());
    assert!(login_failed.1.contains("SQLSTATE 28P01"), "{}", login_failed.1);
    // The pool recovers without a restart once the file has the right password.
    fs::write(file.path(), &right).expect("the file is written");
    until(Duration::from_secs(10), "a healthy Pod", || in_state(&pool, State::Healthy) == 1).await;
    drop(pool.get().await.expect("checkout succeeds"));
    drop(pool);

    // If no password is configured, the checkout fails.
    let pool = Pool::builder(config(&cluster)).build().expect("the pool is created");
    let error = pool.get().await.expect_err("no password is available");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth);
    let cause = error.attempts()[0].cause().expect("the attempt has a cause");
    assert!(matches!(cause.downcast_ref(), Some(CredentialsError::Missing { .. })), "{error}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_a_provider_that_hangs_fails_or_panics() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let right = cluster.password();
    #[derive(Clone, Copy, PartialEq)]
    enum Behavior {
        Hangs,
        Fails,
        Panics,
        Works,
    }
    let behavior = Arc::new(Mutex::new(Behavior::Hangs));
    let provider = {
        let behavior = behavior.clone();
        move |_: CredentialsRequest| {
            let (behavior, right) = (*behavior.lock().unwrap(), right.clone());
            async move {
                match behavior {
                    Behavior::Hangs => std::future::pending().await,
                    Behavior::Fails => Err(io::Error::other("the vault is sealed")),
                    Behavior::Panics => panic!("injected by the test"),
                    Behavior::Works => Ok(Secret::from(right)),
                }
            }
        }
    };
    let mut limits = Limits::default();
    limits.connect_timeout = Duration::from_millis(200);
    limits.acquire_timeout = Duration::from_secs(1);
    let pool =
        Pool::builder(config(&cluster).with_limits(limits)).credentials(provider).build().expect("the pool is created");
    for (next, expected) in [
        (Behavior::Hangs, "no credentials within 200ms"),
        (Behavior::Fails, "the credentials provider failed: the vault is sealed"),
        (Behavior::Panics, "the credentials provider panicked"),
    ] {
        *behavior.lock().unwrap() = next;
        let shown = || {
            let failure = pool.status().endpoints.first().and_then(|pod| pod.last_failure.clone());
            failure.is_some_and(|failure| failure.contains(expected))
        };
        until(Duration::from_secs(10), expected, shown).await;
        let began = Instant::now();
        let error = pool.get().await.expect_err("no credentials are available");
        println!("after {:?}: {error}", began.elapsed());
        assert!(began.elapsed() < Duration::from_millis(1050), "{:?}", began.elapsed());
        assert_eq!(error.kind(), Kind::Auth);
        assert_eq!(error.attempts()[0].phase(), Phase::Credentials);
        assert!(error.to_string().contains(expected), "{error}");
    }
    *behavior.lock().unwrap() = Behavior::Works;
    until(Duration::from_secs(10), "a healthy Pod", || in_state(&pool, State::Healthy) == 1).await;
    drop(pool.get().await.expect("checkout succeeds"));

    // While connections are open, a failing provider neither fails requests nor ejects the Pod.
    *behavior.lock().unwrap() = Behavior::Fails;
    let load = Load::start(&pool, Target::Any, 4);
    let failed = || pool.status().counters.open_failed;
    let before = failed();
    until(Duration::from_secs(10), "failures to open connections", || failed() > before + 2).await;
    assert_eq!(in_state(&pool, State::Healthy), 1);
    let report = load.stop().await;
    println!("{} responses while the provider fails", report.answers.len());
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignores_and_reports_a_passfile_that_others_can_read() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let directory = tempfile::tempdir().expect("the directory is created");
    let passfile = directory.path().join("pgpass");
    write_passfile(&passfile, &cluster, &cluster.password());
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o644)).expect("the permissions are set");
    let pool = Pool::builder(config(&cluster).with_passfile(&passfile)).build().expect("the pool is created");
    let mut events = pool.events();
    let error = pool.get().await.expect_err("no password is available");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth);
    assert!(error.to_string().contains("was ignored: its mode is 0644, but must be 0600 or stricter"), "{error}");

    // The pool emits `PassfileIgnored` again only when the reason changes.
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o604)).expect("the permissions are set");
    let mut causes = Vec::new();
    loop {
        match events.next().await.expect("the pool is open").expect("no event is lost") {
            Event::PassfileIgnored { path, cause } => {
                assert_eq!(*path, *passfile);
                causes.push(cause);
                if causes.len() == 2 {
                    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).expect("the permissions are set");
                }
            }
            Event::StateChanged { to: "healthy", .. } => break,
            _ => {}
        }
    }
    let [first, second] = causes.as_slice() else { panic!("{causes:?}") };
    assert!(first.contains("0644") && second.contains("0604"), "{causes:?}");
    drop(pool.get().await.expect("checkout succeeds"));
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test]
async fn rejects_a_provider_combined_with_a_password() {
    let provider = |_: CredentialsRequest| async { Ok::<_, io::Error>("pw") };
    for (text, parameter) in [("password=x", "password"), ("password_file=/x", "password_file")] {
        let config: Config = format!("host=db user=app {text}").parse().expect("the configuration parses");
        let error = Pool::builder(config).credentials(provider).build().expect_err("there are two password sources");
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains(&format!("conflicting parameter `{parameter}`")), "{error}");
    }
}
