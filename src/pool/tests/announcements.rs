//! Tests lookups that a resolver announces, in simulated time.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::Notify,
    time::{Duration, Instant, sleep},
};

use crate::{
    config::Config,
    discovery::{Resolution, Resolve, ResolveError},
    event::Event,
    pool::Pool,
    sync::lock,
};

/// Time that each lookup takes.
const TOOK: Duration = Duration::from_millis(10);

/// The behavior of [`Resolve::changed`].
#[derive(Debug)]
enum Announces {
    WhenNotified(Notify),
    Always,
    Panics,
}

/// A resolver that finds no Pods and records the start of each lookup.
#[derive(Debug)]
struct Recorder(Arc<Record>);

#[derive(Debug)]
struct Record {
    announces: Announces,
    lookups: Mutex<Vec<Instant>>,
}

impl Resolve for Recorder {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async {
            lock(&self.0.lookups).push(Instant::now());
            sleep(TOOK).await;
            Ok(Resolution::new(Vec::new(), Instant::now() + Duration::from_secs(30)))
        })
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        match &self.0.announces {
            Announces::WhenNotified(changed) => Box::pin(changed.notified()),
            Announces::Always => Box::pin(std::future::ready(())),
            Announces::Panics => panic!("the application's code panicked"),
        }
    }

    fn source(&self) -> String {
        "a simulation".into()
    }
}

/// Runs a test with a pool whose resolver announces changes in this way.
fn run(announces: Announces, test: impl AsyncFnOnce(&Record, &Pool)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let record = Arc::new(Record { announces, lookups: Mutex::default() });
        let config = Config::new("simulated.svc.cluster.local").expect("a name");
        let pool = Pool::builder(config).resolver(Recorder(record.clone())).build().expect("a pool");
        test(&record, &pool).await;
    });
}

fn notify(record: &Record) -> Instant {
    let Announces::WhenNotified(changed) = &record.announces else { unreachable!("the test can notify") };
    changed.notify_one();
    Instant::now()
}

#[test]
fn an_announced_change_is_looked_up_immediately() {
    run(Announces::WhenNotified(Notify::new()), async |record, _| {
        sleep(Duration::from_millis(500)).await;
        let at = notify(record);
        sleep(TOOK / 2).await;
        assert_eq!(lock(&record.lookups).last(), Some(&at));
        // The next change happens during the lookup.
        notify(record);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(lock(&record.lookups).last(), Some(&(at + Duration::from_millis(50))));
    });
}

#[test]
fn constant_announcements_cause_at_most_20_lookups_per_second() {
    run(Announces::Always, async |record, _| {
        sleep(Duration::from_secs(10)).await;
        let lookups = lock(&record.lookups).len();
        // Without an announcement, a missing Pod is looked up about once per second.
        assert!((190..=220).contains(&lookups), "{lookups} lookups");
    });
}

#[test]
fn a_panic_while_waiting_for_a_change_does_not_stop_the_lookups() {
    run(Announces::Panics, async |record, pool| {
        let mut events = pool.events();
        sleep(Duration::from_secs(10)).await;
        let lookups = lock(&record.lookups).len();
        assert!((5..=15).contains(&lookups), "{lookups} lookups");
        let mut panicked = false;
        while let Some(Some(Ok(event))) = events.next().now_or_never() {
            panicked |= matches!(event, Event::Panicked { source: "resolver", .. });
        }
        assert!(panicked);
    });
}
