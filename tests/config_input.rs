//! What cannot be used is refused with its name, and no secret comes out anywhere.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use podpool::{Config, Kind, Pool, testkit::Cluster};

fn refused(url: &str) -> podpool::ConfigError {
    url.parse::<Config>().expect_err(url)
}

#[test]
fn bad_input_is_an_error_that_names_the_parameter_and_what_was_expected() {
    let long = format!("postgres://u@{}/d", ["a".repeat(60).as_str(); 5].join("."));
    for (url, parameter, expected) in [
        ("postgres://u@svc/d?pool_sise=3", "pool_sise", "pool_size"),
        ("postgres://u@/d", "host", "headless Service"),
        ("postgres://u@svc:0/d", "port", "1 to 65535"),
        ("postgres://u@a,b/d", "host", "one host"),
        ("postgres://u@svc/d?acquire_timeout=fast", "acquire_timeout", "duration"),
        ("postgres://u@a..b/d", "host", "label"),
        (&long, "host", "253"),
    ] {
        let error = refused(url);
        println!("{error}");
        assert_eq!(error.parameter(), parameter, "{url}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// Everything that is logged.
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
async fn a_password_is_in_no_error_log_line_or_debug() {
    // Before there is a log: the servers are told the password in a statement, which the driver logs.
    let cluster = Cluster::start(1).await.expect("a cluster");
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .try_init()
        .expect("the only subscriber");
    let right = Pool::connect(&cluster.url()).await.expect("the password with its special characters works");
    drop(right.get().await.expect("a connection"));

    let secret = "Tr0ub4dor&3:/@?#%";
    let config: Config = cluster.url().parse().expect("a URL");
    let wrong = Pool::builder(config.with_password(secret)).build().expect("a pool");
    let error = wrong.get().await.expect_err("the wrong password");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth);
    assert_eq!(error.attempts().len(), 1);
    assert!(error.elapsed().expect("measured").as_millis() < 1000, "it fails at once, not at the deadline: {error}");

    // The same from a file and from a provider, each asked again after the refusal.
    let config = || -> Config {
        let (user, port, dns) = (cluster.user(), cluster.port(), cluster.dns().address());
        let text = format!("host={} port={port} user={user} nameservers={dns}", cluster.service());
        text.parse().expect("keywords and values")
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "f1le-Tr0ub4dor\n").expect("a password");
    let from_file = Pool::builder(config().with_password_file(file.path())).build().expect("a pool");
    let provided = |_| async { Ok::<_, io::Error>("pr0vided-Tr0ub4dor") };
    let from_provider = Pool::builder(config()).credentials(provided).build().expect("a pool");
    let mut said = format!("{error} {error:?} {wrong:?} {right:?} {:?} {:?}", wrong.status(), right.config());
    for pool in [from_file, from_provider] {
        let error = pool.get().await.expect_err("the wrong password");
        println!("{error}");
        assert_eq!(error.kind(), Kind::Auth);
        said.push_str(&format!("{error} {error:?} {pool:?} {:?} {:?}", pool.status(), pool.config()));
    }

    said.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(said.contains("state_changed"), "the log was heard");
    for secret in [secret, "f1le-Tr0ub4dor", "pr0vided-Tr0ub4dor", &cluster.password()] {
        let leaks: Vec<_> =
            said.lines().filter(|line| line.contains(secret)).map(|line| line.replace(secret, "…")).collect();
        assert!(leaks.is_empty(), "a password came out: {leaks:?}");
    }
    cluster.shutdown().await.expect("an orderly end");
}
