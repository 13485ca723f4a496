//! Tests the spans that reach OpenTelemetry through the bridge `tracing-opentelemetry`. The only test of its binary,
//! because `tracing` caches for each place in the code whether any thread has a subscriber.

use opentelemetry::trace::{SpanId, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use podpool::{Client, Config, Pool, Target, testkit::Cluster, trace};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

/// Returns the only span with this name that has the parent, or one of them.
fn span(spans: &[SpanData], name: &str, parent: SpanId) -> SpanData {
    let found = spans.iter().find(|span| span.name == name && span.parent_span_id == parent);
    found.unwrap_or_else(|| panic!("no span {name} with the parent {parent} in {spans:#?}")).clone()
}

// The subscriber is thread-local, so the test uses the single-threaded runtime.
#[tokio::test]
async fn spans_are_children_of_the_callers_span_and_background_work_is_linked_to_it() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let filter = tracing_subscriber::filter::LevelFilter::DEBUG;
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(filter).with(layer));

    let cluster = Cluster::start(1).await.expect("the cluster starts");
    // Connections are opened only for callers that wait.
    let url = format!("{}&pool_size=1&min_idle=0&acquire_timeout=30s", cluster.url());
    let pool = Pool::builder(url.parse::<Config>().expect("the URL parses")).build().expect("the pool is built");
    let request = tracing::info_span!("request");
    let work = |client: Client| {
        async move {
            let sql = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()";
            let rows = client.query_typed(sql, &[]).await?;
            assert_eq!(rows[0].get::<_, String>(0), sql, "something was added to the text");
            Ok::<_, podpool::tokio_postgres::Error>(())
        }
        .instrument(tracing::info_span!("work"))
    };
    pool.retry(Target::Any, work).instrument(request.clone()).await.expect("the work succeeds");
    drop(request);
    pool.close().await;
    drop(pool);
    let spans = exporter.get_finished_spans().expect("the spans are exported");

    let request = span(&spans, "request", SpanId::INVALID);
    let retry = span(&spans, trace::RETRY, request.span_context.span_id());
    span(&spans, "work", retry.span_context.span_id());
    let wait = span(&spans, trace::WAIT, retry.span_context.span_id());
    // The task that opens the connection belongs to no caller.
    let connect = span(&spans, trace::CONNECT, SpanId::INVALID);
    assert_ne!(connect.span_context.trace_id(), request.span_context.trace_id());
    let links: Vec<_> = connect.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [wait.span_context.span_id()]);
    let attribute = |span: &SpanData, name: &str| {
        span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| pair.value.to_string())
    };
    for span in [&retry, &wait, &connect] {
        assert_eq!(attribute(span, "db.system.name").as_deref(), Some("postgresql"), "{span:?}");
        assert!(attribute(span, "db.client.connection.pool.name").is_some(), "{span:?}");
    }
    assert_eq!(attribute(&retry, "operation").as_deref(), Some("retry"));
    for span in &spans {
        let queries = span.attributes.iter().filter(|pair| pair.key.as_str().starts_with("db.query"));
        assert_eq!(queries.count(), 0, "{span:?}");
    }
    cluster.shutdown().await.expect("the cluster stops");
}
