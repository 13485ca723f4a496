//! Faults in the application's own code: hooks, deadlines and panics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use podpool::{
    Pool, Target,
    balance::{Candidates, Policy, Rng},
    testkit::Cluster,
};
use tokio::time::timeout;

use super::sessions;
use crate::{
    raw::Raw,
    scene::{Scene, config},
};

async fn cluster() -> Cluster {
    Cluster::start(3).await.expect("the cluster starts")
}

/// A session ends after the hook `after_connect` began to fail, and cannot be replaced.
pub(crate) async fn setup_fails(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let fails = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&fails);
    let builder = Pool::builder(config(&cluster.srv_url())).after_connect(move |_| {
        // SeqCst: a flag of a test, whose order with other accesses does not matter.
        let fails = flag.load(Ordering::SeqCst);
        Box::pin(async move { if fails { Err("no setup".into()) } else { Ok(()) } })
    });
    let pool = scene.idle(&cluster, builder).await;
    scene.load(&pool, Target::Any);
    scene.before(&pool).await;
    fails.store(true, Ordering::SeqCst);
    sessions::end(&cluster, 2, "application_name <> 'other'").await;
    scene.finish().await
}

pub(crate) async fn cold_start_setup_fails(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let builder = Pool::builder(config(&cluster.srv_url()));
    let builder = builder.after_connect(|_| Box::pin(async { Err("no setup".into()) }));
    let _pool = scene.cold(&cluster, builder);
    scene.finish().await
}

/// The hook `before_checkout` rejects every fifth connection.
pub(crate) async fn checkout_rejected(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let (rejects, calls) = (Arc::new(AtomicBool::new(false)), AtomicU32::new(0));
    let flag = Arc::clone(&rejects);
    let builder = Pool::builder(config(&cluster.srv_url())).before_checkout(move |_| {
        // Relaxed: the counter orders no other memory access.
        let is_fifth = calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(5);
        let rejects = flag.load(Ordering::SeqCst) && is_fifth;
        Box::pin(async move { if rejects { Err("rejected".into()) } else { Ok(()) } })
    });
    let pool = scene.idle(&cluster, builder).await;
    scene.load(&pool, Target::Any);
    scene.before(&pool).await;
    rejects.store(true, Ordering::SeqCst);
    scene.finish().await
}

/// A caller drops one future while its statement runs.
pub(crate) async fn future_dropped(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let pool = scene.healthy(&cluster, "").await;
    let client = pool.get().await.expect("checkout succeeds");
    timeout(Duration::from_millis(50), client.simple_query("SELECT pg_sleep(1)")).await.expect_err("it takes longer");
    drop(client);
    scene.finish().await
}

/// The application drops each call after 0.1 s, and its statements begin to take 0.5 s.
pub(crate) async fn statements_abandoned(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let pool = scene.healthy(&cluster, "").await;
    scene.impatient(&pool, "SELECT pg_sleep(0.5)", Duration::from_millis(100));
    scene.finish().await
}

/// A policy that panics once its flag is set.
#[derive(Debug)]
struct Panicking(Arc<AtomicBool>);

impl Policy for Panicking {
    fn pick(&self, candidates: &Candidates<'_>, _: &mut Rng) -> Option<usize> {
        assert!(!self.0.load(Ordering::SeqCst), "the policy panicked");
        (!candidates.is_empty()).then_some(0)
    }
}

pub(crate) async fn policy_panics(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let panics = Arc::new(AtomicBool::new(false));
    let builder = Pool::builder(config(&cluster.srv_url())).policy(Panicking(Arc::clone(&panics)));
    let pool = scene.idle(&cluster, builder).await;
    scene.load(&pool, Target::Any);
    scene.before(&pool).await;
    panics.store(true, Ordering::SeqCst);
    scene.finish().await
}
