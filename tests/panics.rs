//! Tests that panics in code supplied by the application never stop the pool. Each piece of code panics at its first
//! call, and later at every second call. The pool recovers each time, and events and metrics report the panics.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use podpool::{
    Config, Event, Observer, Pool, State, Target,
    balance::{Candidates, Policy, Rng},
    config::Secret,
    discovery::{Fixed, Resolution, Resolve, ResolveError},
    testkit::Cluster,
    tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

mod common;
use common::{in_state, until};

const SOON: Duration = Duration::from_secs(20);

/// A counter of calls that panics at the first call and, once `every_second` is set, at every second call.
#[derive(Debug, Default)]
struct Fuse {
    calls: AtomicU32,
    every_second: AtomicBool,
    panics: AtomicU32,
}

impl Fuse {
    fn burn(&self) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if call == 0 || self.every_second.load(Ordering::SeqCst) && call.is_multiple_of(2) {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("the application's code panicked");
        }
    }

    fn panics(&self) -> u32 {
        self.panics.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Resolver(Arc<Fuse>, Fixed);

impl Resolve for Resolver {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        self.0.burn();
        self.1.resolve()
    }

    fn source(&self) -> String {
        "a resolver that panics".to_owned()
    }
}

#[derive(Debug)]
struct FirstCandidate(Arc<Fuse>);

impl Policy for FirstCandidate {
    fn pick(&self, candidates: &Candidates<'_>, _: &mut Rng) -> Option<usize> {
        self.0.burn();
        (!candidates.is_empty()).then_some(0)
    }
}

struct Watcher(Arc<Fuse>, Arc<Mutex<BTreeSet<String>>>);

impl Observer for Watcher {
    fn event(&mut self, event: &Event) {
        if let Event::Panicked { source, .. } = event {
            self.1.lock().expect("the lock is not poisoned").insert((*source).to_owned());
        }
        self.0.burn();
    }
}

/// A TLS connector whose handshakes always fail, and that panics whenever its [`Fuse`] panics.
#[derive(Clone)]
struct Tls(Arc<Fuse>);

/// The stream type of [`Tls`], which never creates one.
#[derive(Debug)]
enum Never {}

impl tokio::io::AsyncRead for Never {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match *self {}
    }
}

impl tokio::io::AsyncWrite for Never {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        match *self {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        match *self {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        match *self {}
    }
}

impl TlsStream for Never {
    fn channel_binding(&self) -> ChannelBinding {
        match *self {}
    }
}

impl MakeTlsConnect<TcpStream> for Tls {
    type Stream = Never;
    type TlsConnect = Self;
    type Error = std::io::Error;

    fn make_tls_connect(&mut self, _: &str) -> Result<Self, std::io::Error> {
        self.0.burn();
        Ok(self.clone())
    }
}

impl TlsConnect<TcpStream> for Tls {
    type Stream = Never;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Never, std::io::Error>>;

    fn connect(self, _: TcpStream) -> Self::Future {
        std::future::ready(Err(std::io::Error::other("no certificate")))
    }
}

/// A metrics recorder that panics, and collects the sources of the panics that the pool reports in its metrics.
#[derive(Clone)]
struct PanickingRecorder(Arc<Fuse>, Arc<Mutex<BTreeSet<String>>>);

struct Sum;

impl CounterFn for Sum {
    fn increment(&self, _: u64) {}

    fn absolute(&self, _: u64) {}
}

impl Recorder for PanickingRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() == "podpool_panics_total" {
            let source = key.labels().find(|label| label.key() == "source").expect("a label").value().to_owned();
            self.1.lock().expect("the lock is not poisoned").insert(source);
        }
        Counter::from_arc(Arc::new(Sum))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        // The pool registers this gauge once per export of its metrics, near the end of the export.
        if key.name() == "podpool_resolve_age_seconds" {
            self.0.burn();
        }
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The sources of panics in hooks.
const HOOKS: [&str; 3] = ["after_connect", "before_checkout", "after_checkin"];

/// Checks that the pool serves queries on the primary and on a standby.
async fn assert_serves_both_roles(pool: &Pool) {
    for target in [Target::Primary, Target::Standby] {
        let work = |client: podpool::Client| async move { client.simple_query("SELECT 1").await.map(drop) };
        pool.retry(target, work).await.unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_survives_panics_in_application_code() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let [resolver, policy, observer, provider, recorder, connected, checked_out, checked_in] =
        std::array::from_fn(|_| Arc::new(Fuse::default()));
    let (observed, recorded) = (Arc::default(), Arc::default());
    metrics::set_global_recorder(PanickingRecorder(recorder.clone(), Arc::clone(&recorded)))
        .expect("the only recorder");
    let endpoints = cluster.pods().iter().map(|pod| podpool::Endpoint::new(pod.address())).collect::<Vec<_>>();
    // The password is removed from the URL, so that the pool calls the credentials provider.
    let url = cluster.url();
    let (_, rest) = url.split_once('@').expect("the URL has a password");
    let url = format!("postgres://{}@{rest}", cluster.user());
    let config: Config = format!("{url}&refresh_min=1s&refresh_max=1s").parse().expect("the URL parses");
    let password = cluster.password();
    let credentials = {
        let provider = provider.clone();
        move |_| {
            let (provider, password) = (provider.clone(), password.clone());
            async move {
                provider.burn();
                Ok::<_, std::io::Error>(Secret::from(password))
            }
        }
    };
    let pool = Pool::builder(config)
        .resolver(Resolver(resolver.clone(), Fixed::new(endpoints)))
        .policy(FirstCandidate(policy.clone()))
        .observer(Watcher(observer.clone(), Arc::clone(&observed)))
        .credentials(credentials)
        .after_connect({
            let hook = connected.clone();
            move |_| {
                hook.burn();
                Box::pin(async { Ok(()) })
            }
        })
        .before_checkout({
            let hook = checked_out.clone();
            move |_| {
                hook.burn();
                Box::pin(async { Ok(()) })
            }
        })
        .after_checkin({
            let hook = checked_in.clone();
            move |_| {
                hook.burn();
                Box::pin(async { Ok(()) })
            }
        })
        .build()
        .expect("the pool is created");
    let fuses = [&resolver, &policy, &observer, &provider, &recorder, &connected, &checked_out, &checked_in];
    pool.wait_ready(Target::Any, SOON).await.expect("a Pod becomes ready");
    until(SOON, "every extension has panicked once", || fuses.iter().all(|fuse| fuse.panics() >= 1)).await;
    until(SOON, "both Pods are healthy", || in_state(&pool, State::Healthy) == 2).await;
    assert_serves_both_roles(&pool).await;
    fuses.iter().for_each(|fuse| fuse.every_second.store(true, Ordering::SeqCst));
    // Each round causes new connections, lookups, metric exports and events. It thus calls every extension, and every
    // second call panics.
    for round in 0..3 {
        cluster.kill(1).await.expect("the Pod is killed");
        until(SOON, "the Pod is ejected", || in_state(&pool, State::Healthy) == 1).await;
        cluster.start_pod(1).await.expect("the Pod starts");
        until(SOON, "the Pod is healthy again", || in_state(&pool, State::Healthy) == 2).await;
        assert_serves_both_roles(&pool).await;
        println!("round {round}: panics {:?}", fuses.map(|fuse| fuse.panics()));
    }
    let before = fuses.map(|fuse| fuse.panics());
    // If the observer or the metrics recorder panics, the event or metric of that call is lost. Only every second call
    // panics, so the others arrive.
    let all = |names: &Mutex<BTreeSet<String>>, expected: &[&str]| {
        let names = names.lock().expect("the lock is not poisoned");
        expected.iter().all(|name| names.contains(*name))
    };
    until(SOON, "metrics report panics of every extension", || {
        all(&recorded, &["resolver", "policy", "observer", "credentials_provider", "metrics_recorder"])
            && all(&recorded, &HOOKS)
    })
    .await;
    until(SOON, "the observer receives the panics of all other extensions", || {
        all(&observed, &["resolver", "policy", "credentials_provider", "metrics_recorder"]) && all(&observed, &HOOKS)
    })
    .await;
    assert!(before.iter().all(|panics| *panics >= 2), "{before:?}");
    assert!(pool.status().resolve.age.is_some_and(|age| age < Duration::from_secs(10)), "{:?}", pool.status());
    pool.close().await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Starts a server that accepts the request for TLS and then waits for the handshake.
async fn tls_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the listener binds");
    let address = listener.local_addr().expect("the socket has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 8];
                stream.read_exact(&mut request).await?;
                stream.write_all(b"S").await?;
                stream.read_u8().await
            });
        }
    });
    address
}

/// A panicking TLS connector makes the dial fail. With `sslmode=require`, the pool does not fall back to plain text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_tls_connector_fails_the_dial() {
    let server = tls_server().await;
    let fuse = Arc::new(Fuse::default());
    fuse.every_second.store(true, Ordering::SeqCst);
    let config: Config =
        format!("postgres://user@{server}/db?sslmode=require&acquire_timeout=1s").parse().expect("a URL");
    let pool = Pool::builder(config).tls_connector(Tls(fuse.clone())).build().expect("the pool is created");
    let mut events = pool.events();
    let error = pool.get().await.expect_err("the connector never succeeds");
    println!("{error}");
    until(SOON, "the pool dials again after a panic", || fuse.panics() >= 2).await;
    let panicked = async {
        loop {
            if let Some(Ok(Event::Panicked { source: "tls_connector", .. })) = events.next().await {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, panicked).await.expect("an event reports the panic");
    pool.close().await;
}
