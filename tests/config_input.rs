//! Tests that configuration errors name the invalid parameter, and that passwords never appear in logs, errors or
//! `Debug` output.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use podpool::{Config, Kind, Pool, testkit::Cluster};

fn rejected(url: &str) -> podpool::ConfigError {
    url.parse::<Config>().expect_err(url)
}

#[test]
fn config_errors_name_the_parameter_and_the_expected_value() {
    let long = format!("postgres://u@{}/d", ["a".repeat(60).as_str(); 5].join("."));
    for (url, parameter, expected) in [
        ("postgres://u@svc/d?pool_sise=3", "pool_sise", "pool_size"),
        ("postgres://u@/d", "host", "headless Service"),
        ("postgres://u@svc:0/d", "port", "1 to 65535"),
        ("postgres://u@a,/d", "host", "empty entry"),
        ("postgres://u@a:1,b:2/d?load_balance_hosts=disable", "load_balance_hosts", "balances between all servers"),
        ("postgres://u@svc/d?acquire_timeout=fast", "acquire_timeout", "duration"),
        ("postgres://u@a..b/d", "host", "label"),
        (&long, "host", "253"),
    ] {
        let error = rejected(url);
        println!("{error}");
        assert_eq!(error.parameter(), parameter, "{url}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// A writer that keeps the log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_never_appear_in_logs_errors_or_debug_output() {
    // Starts the cluster before the log is installed, because the testkit sets the password with a statement that the
    // driver logs.
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .try_init()
        .expect("no other subscriber is installed");
    let right = Pool::connect(&cluster.url()).await.expect("a password with special characters is accepted");
    drop(right.get().await.expect("checkout succeeds"));

    let secret = "Tr0ub4dor&3:/@?#%";
    let config: Config = cluster.url().parse().expect("the URL parses");
    let wrong = Pool::builder(config.with_password(secret)).build().expect("the pool is created");
    let error = wrong.get().await.expect_err("the server rejects the password");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth);
    assert_eq!(error.attempts().len(), 1);
    assert!(
        error.elapsed().expect("a failed checkout has a duration").as_millis() < 1000,
        "expected an immediate failure, not one at the deadline: {error}"
    );

    // Logs in with wrong passwords from a file and from a credentials provider. The pool re-reads both after a rejected
    // login.
    let config = || -> Config {
        let (user, port, dns) = (cluster.user(), cluster.port(), cluster.dns().address());
        let text = format!("host={} port={port} user={user} nameservers={dns}", cluster.service());
        text.parse().expect("the configuration parses")
    };
    let file = tempfile::NamedTempFile::new().expect("the file is created");
    std::fs::write(file.path(), "f1le-Tr0ub4dor\n").expect("the file is written");
    let from_file = Pool::builder(config().with_password_file(file.path())).build().expect("the pool is created");
    let provided = |_| async { Ok::<_, io::Error>("pr0vided-Tr0ub4dor") };
    let from_provider = Pool::builder(config()).credentials(provided).build().expect("the pool is created");
    let mut output = format!("{error} {error:?} {wrong:?} {right:?} {:?} {:?}", wrong.status(), right.config());
    for pool in [from_file, from_provider] {
        let error = pool.get().await.expect_err("the server rejects the password");
        println!("{error}");
        assert_eq!(error.kind(), Kind::Auth);
        output.push_str(&format!("{error} {error:?} {pool:?} {:?} {:?}", pool.status(), pool.config()));
    }

    output.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(output.contains("state_changed"), "the log is empty");
    for secret in [secret, "f1le-Tr0ub4dor", "pr0vided-Tr0ub4dor", &cluster.password()] {
        let leaks: Vec<_> =
            output.lines().filter(|line| line.contains(secret)).map(|line| line.replace(secret, "…")).collect();
        assert!(leaks.is_empty(), "the output contains a password: {leaks:?}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
