//! Events, log lines and metrics of a group, and the settings that its pools must have in common.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use podpool::{
    Event, Kind, Observer, Pool, State, Target,
    discovery::{Resolution, Resolve, ResolveError},
    metrics::POOL_LABELS,
    trace,
};
use tracing::{Metadata, Subscriber, field::Visit, span};

use crate::{
    LIMIT,
    common::{in_state, until},
    ready, received, start, tenant, tenant_with,
};

/// Exports the metrics of a pool. Returns each series, by name and label values, with its value.
fn exported(pool: &Pool) -> Vec<(String, Vec<String>, f64)> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || pool.export_metrics());
    let value = |value: DebugValue| match value {
        DebugValue::Counter(count) => count as f64,
        DebugValue::Gauge(value) => value.into_inner(),
        DebugValue::Histogram(values) => values.len() as f64,
    };
    let series = snapshotter.snapshot().into_vec().into_iter();
    let series = series.map(|(key, _, _, it)| {
        let labels = key.key().labels().map(|label| label.value().to_owned()).collect();
        (key.key().name().to_owned(), labels, value(it))
    });
    series.collect()
}

fn names(series: &[(String, Vec<String>, f64)]) -> BTreeSet<&str> {
    series.iter().map(|(name, ..)| &**name).collect()
}

/// The metrics that only the first pool of a group exports.
const OF_GROUP: [&str; 12] = [
    "podpool_ejections_total",
    "podpool_endpoint_fenced",
    "podpool_endpoint_lag_bytes",
    "podpool_endpoint_late",
    "podpool_endpoint_role",
    "podpool_endpoint_state",
    "podpool_endpoint_timeline",
    "podpool_endpoint_up",
    "podpool_pods",
    "podpool_resolve_age_seconds",
    "podpool_resolve_answers_total",
    "podpool_resolve_failures_total",
];

/// Metrics that each pool exports.
const OF_POOL: [&str; 6] = [
    "db_client_connection_count",
    "db_client_connection_max",
    "podpool_checkouts_total",
    "podpool_connections_opened_total",
    "podpool_endpoint_checkouts_total",
    "podpool_pod_info",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_of_a_group_is_exported_and_logged_once() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).expect("no subscriber is installed yet");
    let cluster = start(["a".into(), "b".into(), "c".into()]).await;
    let a = tenant(&cluster, "a").build().expect("a pool");
    let [b, c] = ["b", "c"].map(|user| tenant(&cluster, user).share_with(&a).build().expect("a pool"));
    ready(&[&a, &b, &c], Target::Any).await;
    until(LIMIT, "all Pods are healthy", || in_state(&a, State::Healthy) == 3).await;
    let lag_known = || a.status().endpoints.iter().any(|pod| pod.lag_bytes.is_some());
    until(LIMIT, "the lag is known", lag_known).await;
    let mut streams = [&a, &b, &c].map(Pool::events);
    cluster.kill(2).await.expect("a standby is killed");
    until(LIMIT, "the Pod is ejected", || in_state(&c, State::Ejected) == 1).await;
    for stream in &mut streams {
        let events = received(stream).await;
        let ejections = events.iter().filter(|event| matches!(event, Event::StateChanged { to: "ejected", .. }));
        assert_eq!(ejections.count(), 1, "{events:?}");
    }
    let mut logged = log.of("state_changed", "healthy -> ejected");
    // The subscriber also gets the lines of other tests, whose servers have another port.
    let port = format!(":{}/", cluster.port());
    logged.retain(|pool| pool.contains(&port));
    assert_eq!(logged, [a.name()], "the log lines of the ejection");

    let ejected = |series: &[(String, Vec<String>, f64)]| -> f64 {
        series.iter().filter(|(name, ..)| name == "podpool_ejections_total").map(|(.., count)| count).sum()
    };
    let first = exported(&a);
    assert!(OF_GROUP.iter().chain(&OF_POOL).all(|name| names(&first).contains(name)), "{:?}", names(&first));
    for pool in [&b, &c] {
        let series = exported(pool);
        assert!(OF_POOL.iter().all(|name| names(&series).contains(name)), "{:?}", names(&series));
        let shared: Vec<_> = OF_GROUP.iter().filter(|name| names(&series).contains(*name)).collect();
        assert!(shared.is_empty(), "{} exports {shared:?}", pool.name());
        let own = series.iter().all(|(_, labels, _)| labels.iter().any(|label| label == pool.name()));
        assert!(own, "{POOL_LABELS:?} of {series:?}");
        let events = series.iter().filter(|(name, ..)| name == "podpool_events_total");
        assert!(events.clone().all(|(_, labels, count)| *count == 0.0 || !labels.contains(&"state_changed".into())));
    }
    // The next pool continues the counters where the first one has left them.
    drop(a);
    until(LIMIT, "the next pool exports the metrics", || names(&exported(&b)).contains("podpool_endpoint_up")).await;
    let next = exported(&b);
    assert!(OF_GROUP.iter().all(|name| names(&next).contains(name)), "{:?}", names(&next));
    assert_eq!(ejected(&next), 0.0, "the ejection is counted once");
    assert!(!names(&exported(&c)).contains("podpool_endpoint_up"));
    let up: Vec<_> = next.iter().filter(|(name, ..)| name == "podpool_endpoint_up").map(|(.., up)| *up).collect();
    assert_eq!((up.len(), up.iter().sum::<f64>()), (3, 2.0));
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_joins_later_is_informed_of_the_present_state() {
    let cluster = start(["a".into(), "b".into()]).await;
    let a = tenant(&cluster, "a").build().expect("a pool");
    ready(&[&a], Target::ReadWrite).await;
    until(LIMIT, "all Pods are healthy", || in_state(&a, State::Healthy) == 3).await;
    let (queries, names) = (cluster.dns().queries(), Names::default());
    let b = tenant(&cluster, "b").share_with(&a).observer(names.clone()).build().expect("a pool");
    b.get_for(Target::ReadWrite).await.expect("the pool serves without a lookup");
    assert!((cluster.dns().queries() - queries).total() <= 4, "the pool has no resolver of its own");
    let expected = ["endpoint_added", "primary_found", "role_changed", "state_changed"];
    let has_all = || expected.iter().all(|name| names.0.lock().unwrap().contains(name));
    until(LIMIT, "the observer is informed", has_all).await;
    assert_eq!(in_state(&b, State::Healthy), 3);
    // Each pool has its own limits: the third connection of `b` would exceed `pool_size`.
    let small = tenant_with(&cluster, "b", cluster.database(), "&pool_size=1&acquire_timeout=3s");
    let small = small.share_with(&a).build().expect("a pool");
    ready(&[&small], Target::Any).await;
    let mut clients = Vec::new();
    while let Ok(client) = small.get().await {
        clients.push(client);
    }
    assert_eq!(clients.len(), 3);
    drop(a.get().await.expect("the other pool is not exhausted"));
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test]
async fn settings_that_the_pools_share_must_agree() {
    #[derive(Debug)]
    struct Silent;
    impl Resolve for Silent {
        fn resolve(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
            Box::pin(std::future::pending())
        }
        fn source(&self) -> String {
            "nothing".into()
        }
    }
    let builder = |parameters: &str| {
        Pool::builder(format!("postgres://a:b@127.0.0.1:1/c{parameters}").parse().expect("the URL parses"))
    };
    let first = builder("").name("first").build().expect("a pool");
    let error = builder("?probe_interval=3s").share_with(&first).build().expect_err("the intervals differ");
    assert_eq!(error.kind(), Kind::Config);
    let text = error.to_string();
    println!("{text}");
    let start = "parameter `probe_interval`: expected `5s`, the value of the pool `first`";
    assert!(text.starts_with(start) && text.ends_with(", got `3s`"), "{text}");
    let runtime = tokio::runtime::Handle::current();
    for (builder, parameter) in [(builder("").resolver(Silent), "resolver"), (builder("").runtime(runtime), "runtime")]
    {
        let text = builder.share_with(&first).build().expect_err("a group has one").to_string();
        assert!(text.starts_with(&format!("conflicting parameter `{parameter}`")), "{text}");
    }
    let second = builder("?pool_size=1").name("first").share_with(&first).build().expect("a pool");
    assert_eq!((first.name(), second.name()), ("first", "first#2"));
}

/// The names of the events that an observer has received.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeSet<&'static str>>>);

impl Observer for Names {
    fn event(&mut self, event: &Event) {
        self.0.lock().unwrap().insert(event.name());
    }
}

/// A subscriber that records the log lines of events: the event, the name of the pool, and the text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

#[derive(Clone, Default)]
struct Line {
    event: String,
    pool: String,
    text: String,
}

impl Log {
    /// Returns the pools with log lines of this event that contain this text.
    fn of(&self, event: &str, text: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap().clone().into_iter();
        lines.filter(|line| line.event == event && line.text.contains(text)).map(|line| line.pool).collect()
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        match field.name() {
            "event" => self.event = value.to_owned(),
            "db.client.connection.pool.name" => self.pool = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.text = format!("{value:?}");
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == trace::TARGET && metadata.is_event()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
