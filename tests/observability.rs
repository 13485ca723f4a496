//! Every name that is documented is seen: spans, log lines, events, metrics. One life of a pool with everything in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use podpool::{Client, Config, Event, Observer, Pool, State, Target, testkit::Cluster, trace};
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

#[allow(dead_code, reason = "the tests of TLS use the rest")]
#[path = "tls/authority.rs"]
mod authority;
mod common;
use authority::Authority;
use common::{in_state, until};

const SOON: Duration = Duration::from_secs(30);
const PAGE: &str = include_str!("../docs/observability.md");
const FAULTS: &str = include_str!("../docs/failure-modes.md");

/// Names of spans, and the log lines' values of `event`, each with the names of the fields that came with it.
type Seen = BTreeMap<String, BTreeSet<String>>;

/// A subscriber that remembers.
#[derive(Clone, Default)]
struct Memory {
    spans: Arc<Mutex<Seen>>,
    lines: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Fields {
    names: BTreeSet<String>,
    event: Option<String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.event = Some(value.to_owned());
        }
        self.names.insert(field.name().to_owned());
    }

    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.names.insert(field.name().to_owned());
    }
}

impl Subscriber for Memory {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == trace::TARGET
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let name = attributes.metadata().name().to_owned();
        self.spans.lock().unwrap().entry(name).or_default().extend(fields.names);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(name) = fields.event {
            self.lines.lock().unwrap().entry(name).or_default().extend(fields.names);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An observer that remembers.
struct Names(Arc<Mutex<BTreeSet<&'static str>>>);

impl Observer for Names {
    fn event(&mut self, event: &Event) {
        self.0.lock().unwrap().insert(event.name());
    }
}

/// The names in the first column of the page's table under this heading.
fn documented(heading: &str) -> BTreeSet<&'static str> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).expect("a heading");
    let section = section.split("\n## ").next().expect("a section");
    let names = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name));
    names.collect()
}

fn own(names: impl IntoIterator<Item = &'static str>) -> BTreeSet<&'static str> {
    names.into_iter().collect()
}

#[test]
fn the_page_documents_every_name_and_no_other() {
    assert_eq!(documented("Log lines and spans"), own(trace::ALL.iter().copied()));
    assert_eq!(documented("Events"), own(Event::NAMES.iter().copied()));
    assert_eq!(documented("Metrics"), own(podpool::metrics::ALL.iter().map(|metric| metric.name)));
    for metric in podpool::metrics::ALL {
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{}` ", metric.name))).expect("a row");
        let kind = format!("{:?}", metric.kind).to_lowercase();
        assert_eq!(row.split(" | ").nth(1), Some(&*kind), "{}", metric.name);
        let labels = metric.labels.iter().filter(|label| !["pod", "address"].contains(label));
        assert!(labels.into_iter().all(|label| row.contains(&format!("`{label}`"))), "{}", metric.name);
    }
}

/// The metrics that the page on failure modes speaks of: name, and label with its value where one is said.
fn of_faults() -> BTreeSet<(String, Option<(String, String)>)> {
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let metric = |rest: &str| {
        let name = word(rest);
        let label = rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split_once("=\""));
        (format!("podpool_{name}"), label.map(|(label, value)| (label.to_owned(), word(value))))
    };
    FAULTS.split("`podpool_").skip(1).map(metric).collect()
}

/// Events that other tests see, as they need certificates and passwords of their own: the test, and what it waits for.
const ELSEWHERE: [(&str, &str, &str); 5] = [
    ("certificates_refused", include_str!("tls/rotation.rs"), "wait_for(&mut events, \"certificates_refused\")"),
    ("certificates_reloaded", include_str!("tls/rotation.rs"), "wait_for(&mut events, \"certificates_reloaded\")"),
    ("login_failed", include_str!("credentials.rs"), "Event::LoginFailed { endpoint, cause } => break"),
    ("passfile_ignored", include_str!("credentials.rs"), "Event::PassfileIgnored"),
    ("tls_failed", include_str!("tls/refusals.rs"), "if let Event::TlsFailed { endpoint, cause }"),
];

#[test]
fn the_page_on_failure_modes_names_events_and_metrics_that_there_are() {
    let known = own(podpool::metrics::ALL.iter().map(|metric| metric.name));
    let metrics = of_faults();
    assert!(metrics.len() > 15, "{metrics:?}");
    for (name, label) in metrics {
        let metric = podpool::metrics::ALL.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is none of {known:?}"));
        assert!(label.as_ref().is_none_or(|(label, _)| metric.labels.contains(&&**label)), "{name}: {label:?}");
    }
    let table = FAULTS.lines().filter(|line| line.starts_with("| ") && line.split(" | ").count() == 4).skip(1);
    let mut events = BTreeSet::new();
    for row in table {
        let column = row.split(" | ").nth(2).expect("a column");
        events.extend(column.split('`').skip(1).step_by(2).filter(|word| word.contains('_')));
    }
    let known = own(Event::NAMES.iter().copied());
    assert!(events.is_subset(&known), "{events:?}");
    assert_eq!(known.difference(&events).count(), 0, "of every event it is said when it comes: {events:?}");
}

/// A pool that serves, until this is done: what is open goes on to serve, and nothing more can be opened.
async fn refused_in(phase: podpool::Phase, url: &str, change: impl AsyncFnOnce()) {
    let config = format!("{url}&pool_size=2&acquire_timeout=1s").parse::<Config>().expect("a URL");
    let pool = Pool::builder(config).build().expect("a pool");
    pool.wait_ready(Target::Any, SOON).await.expect("a Pod serves");
    change().await;
    let mut held = vec![pool.get().await.expect("it is open")];
    let error = loop {
        match pool.get().await {
            Ok(client) => held.push(client),
            Err(error) => break error,
        }
    };
    println!("{error}");
    assert!(error.attempts().iter().any(|attempt| attempt.phase() == phase), "{error}");
    assert!(pool.status().counters.open_failed > 0);
    held[0].simple_query("SELECT 1").await.expect("what is open goes on");
    drop(held);
    pool.close().await;
}

/// One statement, which waits where it has to.
async fn read(pool: &Pool) {
    let work = |client: Client| async move { client.simple_query("SELECT 1").await };
    pool.retry(Target::Any, work).await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_name_is_seen_in_the_life_of_a_pool() {
    let memory = Memory::default();
    tracing::subscriber::set_global_default(memory.clone()).expect("the first subscriber");
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().expect("the first recorder");
    let observed = Arc::new(Mutex::new(BTreeSet::new()));

    // Nine clients a Pod: three places are kept for superusers.
    let cluster = Cluster::builder().setting("max_connections", "12").start().await.expect("a cluster");
    // Nine clients like this one, with a probe each, are too many for that.
    let url = format!("{}&pool_size=1&clients=9&acquire_timeout=500ms&drain_timeout=2s", cluster.url());
    let config: Config = url.parse().expect("a URL");
    let pool = Pool::builder(config).observer(Names(observed.clone())).build().expect("a pool");
    until(SOON, "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    until(SOON, "roles are known", || pool.status().endpoints.iter().any(|pod| pod.lag_bytes.is_some())).await;

    // Everything is lent out, so the next one waits in vain; then what is in use ends, and is done again.
    let mut all = Vec::new();
    while all.len() < 3 {
        all.push(pool.get().await.expect("a connection"));
    }
    pool.get().await.expect_err("everything is lent out");
    drop(all);
    let (first, mut tries) = (tokio::sync::Barrier::new(1), 0);
    let work = |client: Client| {
        tries += 1;
        let (kill, first) = (tries == 1, &first);
        async move {
            first.wait().await;
            let statement = if kill { "SELECT pg_terminate_backend(pg_backend_pid())" } else { "SELECT 1" };
            client.simple_query(statement).await
        }
    };
    pool.retry(Target::Any, work).await.expect("done again");
    // A statement that nobody waits for any more.
    let client = pool.get().await.expect("a connection");
    let _ = tokio::time::timeout(Duration::from_millis(50), client.simple_query("SELECT pg_sleep(1)")).await;
    drop(client);

    // A Pod that hangs, and comes back. The session that was killed has put its Pod out for a moment.
    until(SOON, "three Pods serve again", || in_state(&pool, State::Healthy) == 3).await;
    cluster.pause(2).await.expect("stopped");
    until(SOON, "it is out", || in_state(&pool, State::Healthy) == 2).await;
    cluster.resume(2).await.expect("resumed");
    until(SOON, "it is back", || in_state(&pool, State::Healthy) == 3).await;

    // Another pool, which has the wrong password.
    let stranger = cluster.url().replacen(":p", ":x", 1).parse::<Config>().expect("a URL");
    let stranger = Pool::builder(stranger).build().expect("a pool");
    let error = stranger.get().await.expect_err("refused");
    assert_eq!(error.kind(), podpool::Kind::Auth, "{error}");
    stranger.close().await;

    // One whose password is taken away.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), cluster.password()).expect("a password");
    let url = cluster.url();
    let (_, place) = url.split_once('@').expect("a URL");
    let url = format!("postgres://{}@{place}&password_file={}", cluster.user(), file.path().display());
    refused_in(podpool::Phase::Credentials, &url, async || drop(file)).await;

    // One that insists on TLS, which these servers do not have.
    let insisting = format!("{}&sslmode=require", cluster.url()).parse::<Config>().expect("a URL");
    let insisting = Pool::builder(insisting).build().expect("a pool");
    let error = insisting.get().await.expect_err("refused");
    assert_eq!(error.kind(), podpool::Kind::Tls, "{error}");
    insisting.close().await;

    // One whose Pod has another certificate all at once.
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (good, bad) = (ours.issue(&[cluster.service()]), other.issue(&[cluster.service()]));
    cluster.set_certificate(0, good.certificate, good.key).await.expect("a certificate");
    let root = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(root.path(), ours.certificate()).expect("a certificate");
    let url = format!("{}?sslmode=verify-ca&sslrootcert={}", cluster.pod_url(0), root.path().display());
    let change = async || cluster.set_certificate(0, bad.certificate, bad.key).await.expect("a certificate");
    refused_in(podpool::Phase::Tls, &url, change).await;

    // And one that wants more connections than the servers have.
    let crowd = format!("{}&pool_size=12&acquire_timeout=1s", cluster.url()).parse::<Config>().expect("a URL");
    let crowd = Pool::builder(crowd).build().expect("a pool");
    let mut all = Vec::new();
    let error = loop {
        match crowd.get().await {
            Ok(client) => all.push(client),
            Err(error) => break error,
        }
    };
    assert!(all.len() < 27, "{}", all.len());
    assert!(error.attempts().iter().any(|attempt| attempt.phase() == podpool::Phase::Startup), "{error:?}");
    drop(all);
    crowd.close().await;

    // A second primary, and its return to the ranks.
    cluster.promote(1).await.expect("a promotion");
    let fenced = || pool.status().endpoints.iter().filter(|pod| pod.fenced.is_some()).count();
    until(SOON, "the former primary is fenced", || fenced() == 1).await;
    cluster.reattach(0).await.expect("a standby again");
    until(SOON, "it is not any more", || fenced() == 0 && in_state(&pool, State::Healthy) == 3).await;

    // A Pod leaves the name and then ends, as in Kubernetes; and no name server for a while.
    let seen = |name: &'static str| observed.lock().unwrap().contains(name);
    cluster.unpublish(2).expect("out of DNS");
    until(SOON, "a Pod is removed", || seen("endpoint_removed")).await;
    cluster.scale(2).await.expect("two Pods");
    cluster.dns().stop().await;
    until(SOON, "the name does not resolve", || seen("resolve_failed")).await;
    cluster.dns().restart().await.expect("the name server");
    until(SOON, "it does again", || seen("resolve_recovered")).await;

    // Nobody is left, and everybody comes back.
    cluster.kill(0).await.expect("killed");
    cluster.kill(1).await.expect("killed");
    until(SOON, "nobody is healthy", || seen("panic_began")).await;
    // A dial fails meanwhile.
    pool.get().await.expect_err("nobody is there");
    cluster.start_pod(1).await.expect("started");
    cluster.start_pod(0).await.expect("started");
    until(SOON, "somebody is", || seen("panic_ended") && in_state(&pool, State::Healthy) == 2).await;
    read(&pool).await;
    pool.close().await;
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");

    let mut expected: BTreeSet<_> = documented("Events").into_iter().map(str::to_owned).collect();
    for (name, test, said) in ELSEWHERE {
        assert!(test.contains(said), "the test in which {name} is seen has gone");
        assert!(expected.remove(name), "{name} is not documented");
    }
    let observed: BTreeSet<_> = observed.lock().unwrap().iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(observed, expected, "what the observer heard");
    let mut lines = memory.lines.lock().unwrap().clone();
    // Those of the pools above that are refused.
    lines.retain(|name, _| ELSEWHERE.iter().all(|(elsewhere, ..)| name != elsewhere));
    assert_eq!(lines.keys().cloned().collect::<BTreeSet<_>>(), expected, "what was logged");
    for (name, fields) in &lines {
        let about_a_pod = !name.starts_with("resolve") && !name.starts_with("panic");
        assert_eq!(fields.contains("server.address") && fields.contains("server.port"), about_a_pod, "{name}");
        assert!(fields.contains("db.system.name"), "{name}");
    }
    let spans = memory.spans.lock().unwrap().clone();
    assert_eq!(own(documented("Log lines and spans")), spans.keys().map(|name| &**name).collect(), "spans");
    for (name, fields) in &spans {
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{name}` "))).expect("a row");
        assert!(fields.contains("db.system.name"), "{name}");
        assert!(fields.iter().filter(|field| *field != "db.system.name").all(|field| row.contains(&**field)), "{row}");
    }

    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut faults = of_faults();
    for (key, _, _, _) in snapshotter.snapshot().into_vec() {
        let name = key.key().name().to_owned();
        faults.remove(&(name.clone(), None));
        for label in key.key().labels() {
            faults.remove(&(name.clone(), Some((label.key().to_owned(), label.value().to_owned()))));
            metrics.entry(name.clone()).or_default().insert(label.key().to_owned());
        }
    }
    assert!(faults.is_empty(), "the page on failure modes speaks of these: {faults:?}");
    for metric in podpool::metrics::ALL {
        let labels = metrics.remove(metric.name).unwrap_or_else(|| panic!("{} was never seen", metric.name));
        let expected: BTreeSet<_> = metric.labels.iter().chain(&["service"]).map(|label| (*label).to_owned()).collect();
        assert_eq!(labels, expected, "{}", metric.name);
    }
    assert!(metrics.is_empty(), "not documented: {metrics:?}");
}

/// What a recorder was given in all: the sum of each counter and the last value of each gauge, over all labels.
struct Given(Snapshotter, BTreeMap<String, f64>);

impl Given {
    fn of(&mut self, name: &str) -> f64 {
        // A snapshot sets the counters to nothing.
        let mut gauges = BTreeMap::new();
        for (key, _, _, value) in self.0.snapshot().into_vec() {
            let name = key.key().name().to_owned();
            match value {
                DebugValue::Counter(more) => *self.1.entry(name).or_default() += more as f64,
                DebugValue::Gauge(now) => *gauges.entry(name).or_default() += now.into_inner(),
                DebugValue::Histogram(_) => {}
            }
        }
        self.1.extend(gauges);
        self.1.get(name).copied().unwrap_or_else(|| panic!("{name} was given to nobody"))
    }
}

// On one thread, which has a recorder of its own.
#[tokio::test]
async fn a_pool_that_closes_gives_the_recorder_what_it_has_counted_to_the_last() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let config = format!("{}&pool_size=2&close_timeout=500ms", cluster.url()).parse::<Config>().expect("a URL");
    // What is borrowed comes back while the pool closes, or never, and is cut.
    for comes_back in [true, false] {
        let recorder = DebuggingRecorder::new();
        let mut given = Given(recorder.snapshotter(), BTreeMap::new());
        let _recorder = metrics::set_default_local_recorder(&recorder);
        let pool = Pool::builder(config.clone()).build().expect("a pool");
        pool.wait_ready(Target::Any, SOON).await.expect("a Pod serves");
        let client = pool.get().await.expect("a connection");
        for _ in 0..100 {
            drop(pool.get().await.expect("a connection"));
        }
        // All of that within the second between two exports, or nearly.
        let closing = tokio::spawn({
            let pool = pool.clone();
            async move { pool.close().await }
        });
        until(SOON, "the pool closes", || pool.status().endpoints.is_empty()).await;
        assert_eq!(given.of("podpool_endpoint_up"), 0.0, "from the beginning of the end");
        let client = Some(client).filter(|_| !comes_back);
        let cut = closing.await.expect("closed");
        assert_eq!(cut, usize::from(!comes_back));
        // The first one is `wait_ready`'s.
        assert_eq!(given.of("podpool_checkouts_total"), 102.0);
        assert_eq!(given.of("podpool_endpoint_picks_total"), 102.0);
        let (opened, closed) =
            (given.of("podpool_connections_opened_total"), given.of("podpool_connections_closed_total"));
        println!("{opened} connections opened, {closed} closed, {cut} cut");
        assert!(opened >= 1.0);
        assert_eq!(opened - closed, cut as f64, "all but what its borrower still has in his hands");
        let removed = given.of("podpool_events_total");
        drop((client, pool));
        let mut all = || given.of("podpool_connections_closed_total");
        until(SOON, "the last connection is counted too", || all() == opened).await;
        assert_eq!(given.of("podpool_events_total"), removed, "nothing has happened since");
    }
    cluster.shutdown().await.expect("an orderly end");
}
