//! Resolvers that combine several sources.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    discovery::{Authority, Fallback, Resolution, Resolve, ResolveError, Union},
    endpoint::Endpoint,
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// The behavior of a lookup.
#[derive(Clone, Debug)]
enum Lookup {
    Finds(Vec<Endpoint>),
    FindsExactly(Vec<Endpoint>),
    FindsNone,
    Fails,
    Hangs,
    Panics,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    behavior: Mutex<(Lookup, bool)>,
    changed: Notify,
}

/// A source whose behavior the test sets.
#[derive(Clone, Debug)]
struct Source(Arc<State>);

impl Source {
    fn new(name: &'static str, lookup: Lookup) -> Self {
        Self(Arc::new(State { name, behavior: Mutex::new((lookup, true)), changed: Notify::new() }))
    }

    /// Changes the behavior and announces the change.
    fn set(&self, lookup: Lookup, in_sync: bool) {
        *lock(&self.0.behavior) = (lookup, in_sync);
        self.0.changed.notify_one();
    }
}

impl Resolve for Source {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        let lookup = lock(&self.0.behavior).0.clone();
        Box::pin(async {
            let valid_until = Instant::now() + Duration::from_secs(30);
            match lookup {
                Lookup::Finds(pods) => Ok(Resolution::new(pods, valid_until)),
                Lookup::FindsExactly(pods) => {
                    let mut resolution = Resolution::new(pods, valid_until);
                    resolution.authority = Authority::Exact;
                    Ok(resolution)
                }
                Lookup::FindsNone => Err(ResolveError::no_pods(Some(Duration::from_secs(7)))),
                Lookup::Fails => Err(ResolveError::other("a cause")),
                Lookup::Hangs => std::future::pending().await,
                Lookup::Panics => panic!("the application's code panicked"),
            }
        })
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.changed.notified())
    }

    fn is_in_sync(&self) -> bool {
        lock(&self.0.behavior).1
    }

    fn source(&self) -> String {
        self.0.name.into()
    }
}

fn pod(last: u8) -> Endpoint {
    Endpoint::new(([10, 0, 0, last], 5432).into())
}

fn named(last: u8) -> Endpoint {
    Endpoint::named(format!("pg-{last}"), ([10, 0, 0, last], 5432).into())
}

fn sources(first: Lookup, second: Lookup) -> (Source, Source, Fallback) {
    let (first, second) = (Source::new("first", first), Source::new("second", second));
    let fallback = Fallback::new(first.clone(), second.clone());
    (first, second, fallback)
}

async fn resolve(resolver: &impl Resolve) -> (Vec<Endpoint>, Authority) {
    let resolution = resolver.resolve().await.expect("the lookup succeeds");
    (resolution.endpoints, resolution.authority)
}

#[tokio::test(start_paused = true)]
async fn the_second_source_counts_only_while_the_first_is_out_of_sync() {
    let (first, _, fallback) = sources(Lookup::FindsExactly(vec![named(1)]), Lookup::Finds(vec![pod(1), pod(2)]));
    assert_eq!(resolve(&fallback).await, (vec![named(1)], Authority::Exact));
    for lookup in [Lookup::FindsExactly(vec![named(1)]), Lookup::Fails, Lookup::Panics, Lookup::Hangs] {
        first.set(lookup, false);
        // Pod 1 keeps the name that the first source has given to it.
        assert_eq!(resolve(&fallback).await, (vec![pod(2), named(1)], Authority::Additive));
    }
    first.set(Lookup::FindsNone, true);
    assert!(fallback.resolve().await.expect_err("the first source decides").is_negative());
    first.set(Lookup::FindsExactly(vec![named(3)]), true);
    assert_eq!(resolve(&fallback).await, (vec![named(3)], Authority::Exact));
}

#[tokio::test(start_paused = true)]
async fn the_second_source_decides_until_the_first_has_been_in_sync() {
    let (first, second, fallback) = sources(Lookup::Fails, Lookup::Finds(vec![pod(1)]));
    first.set(Lookup::Fails, false);
    assert_eq!(resolve(&fallback).await, (vec![pod(1)], Authority::Tentative));
    second.set(Lookup::FindsNone, true);
    let error = fallback.resolve().await.expect_err("neither source finds a Pod");
    assert_eq!(error.to_string(), "first: the lookup failed: a cause; second: there are no Pods");
    assert!(error.is_negative());
    assert_eq!(error.negative_ttl(), Some(Duration::from_secs(7)));
    first.set(Lookup::FindsExactly(vec![pod(2)]), true);
    resolve(&fallback).await;
    first.set(Lookup::Fails, false);
    let error = fallback.resolve().await.expect_err("neither source finds a Pod");
    assert!(!error.is_negative(), "the second source only adds Pods: {error}");
}

#[tokio::test(start_paused = true)]
async fn a_stale_result_is_used_if_the_second_source_fails() {
    let (first, _, fallback) = sources(Lookup::FindsExactly(vec![named(1)]), Lookup::Hangs);
    first.set(Lookup::FindsExactly(vec![named(1)]), false);
    let resolution = fallback.resolve().await.expect("the stale result");
    assert_eq!((resolution.endpoints, resolution.authority), (vec![named(1)], Authority::Additive));
    assert!(resolution.partial);
}

#[tokio::test(start_paused = true)]
async fn the_first_source_ends_the_wait_for_the_second_when_it_is_in_sync_again() {
    let (first, _, fallback) = sources(Lookup::Fails, Lookup::Hangs);
    first.set(Lookup::Fails, false);
    let returns = async {
        sleep(Duration::from_secs(1)).await;
        first.set(Lookup::FindsExactly(vec![pod(1)]), true);
    };
    let started = Instant::now();
    let (result, ()) = tokio::join!(fallback.resolve(), returns);
    assert_eq!(result.expect("the first source is in sync").endpoints, [pod(1)]);
    assert_eq!(started.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_either_source_is_announced_once() {
    let (first, second, fallback) = sources(Lookup::Fails, Lookup::Fails);
    let sources: [Arc<dyn Resolve>; 2] = [Arc::new(first.clone()), Arc::new(second.clone())];
    let union = Union::new(sources);
    for resolver in [&fallback as &dyn Resolve, &union] {
        for source in [&first, &second] {
            let announced = async || timeout(Duration::from_secs(1), resolver.changed()).await.is_ok();
            assert!(!announced().await);
            source.0.changed.notify_one();
            assert!(announced().await);
            assert!(!announced().await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_source_of_a_union_adds_pods() {
    let sources = [
        Source::new("first", Lookup::FindsExactly(vec![named(2), named(1)])),
        Source::new("second", Lookup::Finds(vec![pod(1), pod(3)])),
        Source::new("third", Lookup::Finds(vec![])),
    ];
    let union = Union::new(sources.clone().map(|source| Arc::new(source) as Arc<dyn Resolve>));
    let all = vec![pod(3), named(1), named(2)];
    assert_eq!(resolve(&union).await, (all.clone(), Authority::Additive));
    for lookup in [Lookup::Fails, Lookup::FindsNone, Lookup::Hangs, Lookup::Panics] {
        sources[2].set(lookup, true);
        let resolution = union.resolve().await.expect("two sources find Pods");
        assert_eq!(resolution.endpoints, all);
        assert!(resolution.partial);
        assert!(resolution.valid_until <= Instant::now() + Duration::from_secs(5), "is looked up again soon");
    }
    for source in &sources {
        source.set(Lookup::FindsNone, true);
    }
    let error = union.resolve().await.expect_err("no source finds a Pod");
    assert_eq!(error.to_string(), "first: there are no Pods; second: there are no Pods; third: there are no Pods");
    assert!(!error.is_negative(), "no source can remove a Pod");
}

#[tokio::test]
async fn a_union_without_sources_fails() {
    assert!(!Union::new([]).resolve().await.expect_err("there is no source").is_negative());
}
