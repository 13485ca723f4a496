//! Tests that a pool that is exposed to every kind of fault produces every documented event, log line, span and metric.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use podpool::{
    Client, Config, Event, Kind, Phase, Pool, State, Target,
    balance::{Candidates, Policy, Rng},
    metrics::{self, MetricKind, POOL_LABELS},
    testkit::Cluster,
};

use crate::{
    LIMIT,
    authority::Authority,
    common::{in_state, until},
    documentation::{OTHER_TESTS, documented, metrics_of_failure_modes, row},
    recording::{EventNames, Recording},
};

/// The field of log lines and spans with the name of the pool.
const POOL_NAME: &str = "db.client.connection.pool.name";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produces_every_documented_event_span_and_metric() {
    let recording = Recording::default();
    tracing::subscriber::set_global_default(recording.clone()).expect("no subscriber is installed yet");
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().expect("no recorder is installed yet");
    let events = EventNames::default();

    // Clients can use nine connections to each Pod: PostgreSQL reserves three for superusers.
    let cluster = Cluster::builder().setting("max_connections", "12").start().await.expect("the cluster starts");
    // The URL announces nine clients. With a connection and a probe connection each, they would exceed the limit of
    // nine connections, which causes the event `server_oversubscribed`.
    let url =
        format!("{}&pool_size=1&clients=9&acquire_timeout=500ms&drain_timeout=2s&detach_linger=1s", cluster.url());
    let pool = Pool::builder(config(&url)).observer(events.clone()).build().expect("the pool is built");
    until(LIMIT, "three Pods are healthy", || in_state(&pool, State::Healthy) == 3).await;
    until(LIMIT, "a lag is known", || pool.status().endpoints.iter().any(|pod| pod.lag_bytes.is_some())).await;

    exhaust(&pool).await;
    retry_and_cancel(&pool).await;
    pause_a_pod(&cluster, &pool).await;
    fail_other_pools(&cluster).await;
    fail_over(&cluster, &pool).await;
    hide_the_primary(&cluster, &pool, &events).await;
    remove_a_pod(&cluster, &events).await;
    kill_every_pod(&cluster, &pool, &events).await;
    pool.close().await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster stops");

    check_events(&events, &recording);
    check_spans(&recording);
    check_metrics(&snapshotter);
}

fn config(url: &str) -> Config {
    url.parse().expect("the URL parses")
}

/// Checks out every connection, so that the next checkout times out.
async fn exhaust(pool: &Pool) {
    let mut all = Vec::new();
    while all.len() < 3 {
        all.push(pool.get().await.expect("a connection is available"));
    }
    pool.get().await.expect_err("every connection is in use");
}

/// Makes the pool retry work after a lost connection, and cancel a statement.
async fn retry_and_cancel(pool: &Pool) {
    let mut attempts = 0;
    let work = |client: Client| {
        attempts += 1;
        let is_first = attempts == 1;
        async move {
            let statement = if is_first { "SELECT pg_terminate_backend(pg_backend_pid())" } else { "SELECT 1" };
            client.simple_query(statement).await
        }
    };
    pool.retry(Target::Any, work).await.expect("the second attempt succeeds");
    // The statement still runs when the connection is returned.
    let client = pool.get().await.expect("a connection is available");
    let _ = tokio::time::timeout(Duration::from_millis(50), client.simple_query("SELECT pg_sleep(1)")).await;
}

/// Pauses a Pod until it is ejected, then resumes it.
async fn pause_a_pod(cluster: &Cluster, pool: &Pool) {
    // Terminating a session for the retry may have caused a short ejection of its Pod.
    until(LIMIT, "three Pods are healthy again", || in_state(pool, State::Healthy) == 3).await;
    cluster.pause(2).await.expect("the Pod is paused");
    until(LIMIT, "the paused Pod is ejected", || in_state(pool, State::Healthy) == 2).await;
    cluster.resume(2).await.expect("the Pod resumes");
    until(LIMIT, "the Pod is healthy again", || in_state(pool, State::Healthy) == 3).await;
}

/// Makes other pools fail in each phase of opening a connection.
async fn fail_other_pools(cluster: &Cluster) {
    // The password is wrong.
    let pool = Pool::builder(config(&cluster.url().replacen(":p", ":x", 1))).build().expect("the pool is built");
    let error = pool.get().await.expect_err("the server rejects the password");
    assert_eq!(error.kind(), Kind::Auth, "{error}");
    pool.close().await;

    // The password file is deleted after the first connection has been opened.
    let file = tempfile::NamedTempFile::new().expect("the file is created");
    std::fs::write(file.path(), cluster.password()).expect("the password is written");
    let url = cluster.url();
    let (_, host) = url.split_once('@').expect("the URL has a user");
    let url = format!("postgres://{}@{host}&password_file={}", cluster.user(), file.path().display());
    fails_to_open_in(Phase::Credentials, &url, async || drop(file)).await;

    // The client requires TLS, but the servers do not support it.
    let url = format!("{}&sslmode=require", cluster.url());
    let pool = Pool::builder(config(&url)).build().expect("the pool is built");
    let error = pool.get().await.expect_err("the servers do not support TLS");
    assert_eq!(error.kind(), Kind::Tls, "{error}");
    pool.close().await;

    // The server's certificate is replaced with a certificate from an untrusted authority.
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let (good, bad) = (trusted.issue(&[cluster.service()]), other.issue(&[cluster.service()]));
    cluster.set_certificate(0, good.certificate, good.key).await.expect("the certificate is replaced");
    let root = tempfile::NamedTempFile::new().expect("the file is created");
    std::fs::write(root.path(), trusted.certificate()).expect("the certificate is written");
    let url = format!("{}?sslmode=verify-ca&sslrootcert={}", cluster.pod_url(0), root.path().display());
    let change =
        async || cluster.set_certificate(0, bad.certificate, bad.key).await.expect("the certificate is replaced");
    fails_to_open_in(Phase::Tls, &url, change).await;

    // The pool tries to open more connections than the servers accept.
    let url = format!("{}&pool_size=12&acquire_timeout=1s", cluster.url());
    let pool = Pool::builder(config(&url)).build().expect("the pool is built");
    let (clients, error) = check_out_all(&pool).await;
    assert!(clients.len() < 27, "{}", clients.len());
    assert!(error.attempts().iter().any(|attempt| attempt.phase() == Phase::Startup), "{error:?}");
    drop(clients);
    pool.close().await;

    // The application's hooks reject every connection.
    let url = format!("{}&acquire_timeout=1s", cluster.url());
    let pool = Pool::builder(config(&url)).after_connect(|_| Box::pin(async { Err("no setup".into()) }));
    let pool = pool.build().expect("the pool is built");
    pool.get().await.expect_err("no connection can be set up");
    pool.close().await;
    let pool = Pool::builder(config(&url)).before_checkout(|_| Box::pin(async { Err("rejected".into()) }));
    let pool = pool.build().expect("the pool is built");
    pool.get().await.expect_err("every connection is rejected");
    pool.close().await;

    // The application's policy panics at each call.
    let pool = Pool::builder(config(&cluster.url())).policy(PanickingPolicy).build().expect("the pool is built");
    pool.wait_ready(Target::Any, LIMIT).await.expect("a Pod becomes ready");
    drop(pool.get().await.expect("checkout succeeds"));
    pool.close().await;
}

#[derive(Debug)]
struct PanickingPolicy;

impl Policy for PanickingPolicy {
    fn pick(&self, _: &Candidates<'_>, _: &mut Rng) -> Option<usize> {
        panic!("the policy panicked")
    }
}

/// Opens a connection and calls `change`. Verifies that opening another connection then fails in `phase`, and that the
/// first connection still works.
async fn fails_to_open_in(phase: Phase, url: &str, change: impl AsyncFnOnce()) {
    // The pool opens a second connection while the first is in use, because `min_idle` is 1.
    let config = config(&format!("{url}&pool_size=4&acquire_timeout=1s"));
    let pool = Pool::builder(config).build().expect("the pool is built");
    pool.wait_ready(Target::Any, LIMIT).await.expect("a Pod becomes ready");
    change().await;
    let (clients, error) = check_out_all(&pool).await;
    println!("{error}");
    assert!(error.attempts().iter().any(|attempt| attempt.phase() == phase), "{error}");
    assert!(pool.status().counters.open_failed > 0);
    let open = clients.first().expect("the open connection is checked out");
    open.simple_query("SELECT 1").await.expect("the open connection still works");
    drop(clients);
    pool.close().await;
}

/// Checks out connections until a checkout fails.
async fn check_out_all(pool: &Pool) -> (Vec<Client>, podpool::Error) {
    let mut clients = Vec::new();
    loop {
        match pool.get().await {
            Ok(client) => clients.push(client),
            Err(error) => return (clients, error),
        }
    }
}

/// Promotes a standby while the primary runs, then makes the former primary a standby.
async fn fail_over(cluster: &Cluster, pool: &Pool) {
    let mut events = pool.events();
    cluster.promote(1).await.expect("the standby is promoted");
    let fenced = || pool.status().endpoints.iter().filter(|pod| pod.fenced.is_some()).count();
    until(LIMIT, "the former primary is fenced", || fenced() == 1).await;
    // The fence is reported only after the former primary has passed a probe that was sent after the promotion.
    let reported = async { while !matches!(events.next().await, Some(Ok(Event::EndpointFenced { .. }))) {} };
    tokio::time::timeout(LIMIT, reported).await.expect("the fence is reported");
    cluster.reattach(0).await.expect("the former primary becomes a standby");
    let healthy = || fenced() == 0 && in_state(pool, State::Healthy) == 3;
    until(LIMIT, "the new standby is healthy and not fenced", healthy).await;
}

/// Removes the primary from DNS while it is the only Pod that accepts writes, and adds it again.
async fn hide_the_primary(cluster: &Cluster, pool: &Pool, events: &EventNames) {
    drop(pool.get_for(Target::ReadWrite).await.expect("the primary serves"));
    cluster.unpublish(1).expect("the primary is removed from DNS");
    until(LIMIT, "the primary is retained", || events.contains("endpoint_retained")).await;
    drop(pool.get_for(Target::ReadWrite).await.expect("the retained primary serves"));
    cluster.publish(1).expect("the primary is added to DNS");
    until(LIMIT, "the primary returns", || events.contains("endpoint_returned")).await;
}

/// Removes a Pod from DNS before it is stopped, as Kubernetes does, then stops the name server for a while.
async fn remove_a_pod(cluster: &Cluster, events: &EventNames) {
    cluster.unpublish(2).expect("the Pod is removed from DNS");
    until(LIMIT, "the Pod is removed", || events.contains("endpoint_removed")).await;
    cluster.scale(2).await.expect("the cluster scales to two Pods");
    cluster.dns().stop().await;
    until(LIMIT, "the name does not resolve", || events.contains("resolve_failed")).await;
    cluster.dns().restart().await.expect("the name server restarts");
    until(LIMIT, "the name resolves again", || events.contains("resolve_recovered")).await;
}

/// Kills all Pods, then restarts them.
async fn kill_every_pod(cluster: &Cluster, pool: &Pool, events: &EventNames) {
    cluster.kill(0).await.expect("the Pod is killed");
    cluster.kill(1).await.expect("the Pod is killed");
    until(LIMIT, "no Pod is healthy", || events.contains("no_healthy_pods")).await;
    pool.get().await.expect_err("no Pod accepts connections");
    cluster.start_pod(1).await.expect("the Pod starts");
    cluster.start_pod(0).await.expect("the Pod starts");
    let recovered = || events.contains("healthy_pods_again") && in_state(pool, State::Healthy) == 2;
    until(LIMIT, "both Pods are healthy again", recovered).await;
    let work = |client: Client| async move { client.simple_query("SELECT 1").await };
    pool.retry(Target::Any, work).await.expect("the query succeeds");
}

/// Compares the events and their log lines with the documentation.
fn check_events(events: &EventNames, recording: &Recording) {
    let mut expected = documented("Events");
    for (name, test, line) in OTHER_TESTS {
        assert!(test.contains(line), "the test of {name} no longer contains {line:?}");
        assert!(expected.remove(name), "{name} is not documented");
    }
    assert_eq!(events.all(), expected, "events that the observer received");
    let mut lines = recording.log_events();
    // The pools of `fail_other_pools` log some of these events too.
    lines.retain(|name, _| OTHER_TESTS.iter().all(|(other, ..)| name != other));
    assert_eq!(lines.keys().map(|name| &**name).collect::<BTreeSet<_>>(), expected, "events in the log");
    for (name, fields) in &lines {
        let has_pod = !name.starts_with("resolve") && !name.contains("healthy_pods");
        assert_eq!(fields.contains("server.address") && fields.contains("server.port"), has_pod, "{name}");
        assert!(fields.contains("db.system.name") && fields.contains(POOL_NAME), "{name}");
    }
}

/// Compares the spans and their fields with the documentation.
fn check_spans(recording: &Recording) {
    let spans = recording.spans();
    assert_eq!(spans.keys().map(|name| &**name).collect::<BTreeSet<_>>(), documented("Log lines and spans"));
    for (name, fields) in &spans {
        let row = row(name);
        assert!(fields.contains("db.system.name") && fields.contains(POOL_NAME), "{name}");
        let mut others = fields.iter().filter(|field| !["db.system.name", POOL_NAME].contains(&&***field));
        assert!(others.all(|field| row.contains(&**field)), "{row}");
    }
}

/// Verifies that every metric was exported with the documented labels, that every histogram has values, and that the
/// metrics of docs/failure-modes.md have the label values that the page states.
fn check_metrics(snapshotter: &Snapshotter) {
    let mut labels_by_name: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut histogram_values: BTreeMap<String, usize> = BTreeMap::new();
    let mut missing = metrics_of_failure_modes();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let name = key.key().name().to_owned();
        missing.remove(&(name.clone(), None));
        for label in key.key().labels() {
            missing.remove(&(name.clone(), Some((label.key().to_owned(), label.value().to_owned()))));
        }
        let labels: BTreeSet<_> = key.key().labels().map(|label| label.key().to_owned()).collect();
        if let DebugValue::Histogram(values) = value {
            *histogram_values.entry(name.clone()).or_default() += values.len();
        }
        let first = labels_by_name.entry(name.clone()).or_insert_with(|| labels.clone());
        assert_eq!(*first, labels, "two series of {name} have different labels");
    }
    // Each event has a label value of its own, and other tests wait for these events.
    missing.retain(|(name, label)| {
        let is_other = |event: &str| OTHER_TESTS.iter().any(|(other, ..)| *other == event);
        name != "podpool_events_total" || !label.as_ref().is_some_and(|(_, event)| is_other(event))
    });
    assert!(missing.is_empty(), "docs/failure-modes.md refers to metrics that were not exported: {missing:?}");
    for metric in metrics::ALL {
        let name = metric.name;
        let labels = labels_by_name.remove(name).unwrap_or_else(|| panic!("{name} was never exported"));
        let expected: BTreeSet<_> = metric.labels.iter().chain(POOL_LABELS).map(|label| (*label).to_owned()).collect();
        assert_eq!(labels, expected, "{name}");
        if metric.kind == MetricKind::Histogram {
            assert!(histogram_values.get(name).is_some_and(|values| *values > 0), "{name} has no values");
        }
    }
    assert!(labels_by_name.is_empty(), "exported but not documented: {labels_by_name:?}");
}
