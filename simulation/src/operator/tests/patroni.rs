use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::world::{self, SECOND, World, WorldPods};
use crate::{
    operator::{
        Role, Store as _,
        patroni::{Agent, Settings, pause, switch_over},
    },
    postgres::Shutdown,
};

const MINUTE: Duration = Duration::from_secs(60);

/// A group with a leader. The client inserts ids all the time.
async fn group(settings: Settings) -> Arc<World> {
    let world = World::new(3, move |world, server| {
        let pods = Arc::new(WorldPods(Arc::downgrade(world)));
        Box::pin(Agent::new(server.clone(), world.names(), world.store.clone(), pods, settings).run())
    });
    let world = world.await;
    // The primary's agent acquires the lease before the agents of the standbys run.
    for name in world.names() {
        world.manage(&name);
        sleep(SECOND).await;
    }
    assert_eq!(world.store.peek().content.leader.unwrap().holder, "pg-0");
    tokio::spawn(world.clone().insert_forever());
    sleep(MINUTE).await;
    world
}

fn synchronous() -> Settings {
    Settings { synchronous: true, ..Settings::default() }
}

#[tokio::test(start_paused = true)]
async fn a_failed_leader_is_replaced_and_rewound() {
    let world = group(Settings::default()).await;
    let began = Instant::now();
    let outage = world.restart_host("pg-0", 2 * MINUTE);
    let failover = async {
        while world.primaries().is_empty() || world.primaries() == ["pg-0"] {
            sleep(SECOND / 10).await;
        }
        began.elapsed()
    };
    let ((), failover) = tokio::join!(outage, failover);
    assert!((20..32).contains(&failover.as_secs()), "the lease expires first: {failover:?}");
    let primary = world.healthy(MINUTE).await;
    assert_ne!(primary, "pg-0");
    let reports = world.reports.lock().unwrap().clone();
    assert_eq!(reports["pg-0"], (true, Role::Standby));
    assert_eq!(reports[&primary], (true, Role::Primary));
}

#[tokio::test(start_paused = true)]
async fn a_switchover_loses_no_write() {
    for settings in [Settings::default(), synchronous()] {
        let world = group(settings).await;
        let candidate = match settings.synchronous {
            false => "pg-2".to_owned(),
            true => world.store.peek().content.synchronous.standbys[0].clone(),
        };
        switch_over(&*world.store, "admin", Some(&candidate)).await.unwrap();
        sleep(10 * SECOND).await;
        assert_eq!(world.healthy(MINUTE).await, candidate);
        assert_eq!(world.lost(&candidate), [0; 0]);
        assert_eq!(world.store.peek().content.switchover, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_switchover_to_an_unknown_member_is_rejected() {
    let world = group(Settings::default()).await;
    switch_over(&*world.store, "admin", Some("pg-9")).await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(world.healthy(SECOND).await, "pg-0");
    assert_eq!(world.store.peek().content.switchover, None);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_its_lease_is_demoted_before_it_expires() {
    let world = group(Settings::default()).await;
    world.store.set_outage(true);
    let expires = world.store.peek().content.leader.unwrap().expires;
    while world.primaries() == ["pg-0"] {
        sleep(SECOND / 10).await;
    }
    assert!(Instant::now() < expires);
    sleep(MINUTE).await;
    assert_eq!(world.primaries(), [""; 0]);
    world.store.set_outage(false);
    world.healthy(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn pause_mode_changes_no_leader() {
    let world = group(Settings::default()).await;
    pause(&*world.store, "admin", true).await.unwrap();
    sleep(10 * SECOND).await;
    world.network.isolate("store", true);
    sleep(2 * MINUTE).await;
    assert_eq!(world.primaries(), ["pg-0"]);
    world.network.isolate("store", false);
    sleep(MINUTE).await;
    assert_eq!(world.store.read("admin").await.unwrap().content.leader.unwrap().holder, "pg-0");
    world.servers[0].stop(Shutdown::Fast);
    world.servers[0].stopped().await;
    pause(&*world.store, "admin", false).await.unwrap();
    world.healthy(2 * MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn commits_wait_for_the_synchronous_standby_in_strict_mode() {
    let world = group(Settings { strict: true, ..synchronous() }).await;
    for standby in ["pg-1", "pg-2"] {
        world.network.partition("pg-0", standby, true);
    }
    sleep(3 * MINUTE).await;
    let before = world.acknowledged.lock().unwrap().len();
    sleep(MINUTE).await;
    assert_eq!(world.acknowledged.lock().unwrap().len(), before);
    for standby in ["pg-1", "pg-2"] {
        world.network.partition("pg-0", standby, false);
    }
    sleep(MINUTE).await;
    let primary = world.healthy(MINUTE).await;
    assert!(world.acknowledged.lock().unwrap().len() > before);
    assert_eq!(world.lost(&primary), [0; 0]);
}

/// Runs a group with random faults for each of 100 seeds. Returns the numbers of acknowledged ids that were lost.
fn random_histories(settings: Settings) -> Vec<usize> {
    world::random_histories(async |seed| group(settings).await.random_history(seed, 2 * MINUTE).await)
}

#[test]
fn no_acknowledged_write_is_lost_with_a_synchronous_standby() {
    for strict in [false, true] {
        assert_eq!(random_histories(Settings { strict, ..synchronous() }), [0; 100]);
    }
}

#[test]
fn an_acknowledged_write_may_be_lost_without_a_synchronous_standby() {
    let lost = random_histories(Settings::default());
    assert!(lost.iter().any(|lost| *lost > 0), "{lost:?}");
}

#[test]
fn the_same_seed_has_the_same_trace() {
    let trace = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = group(synchronous()).await;
            world.random_history(seed, 2 * MINUTE).await;
            let acknowledged = world.acknowledged.lock().unwrap().len();
            (world.trace.lock().unwrap().clone(), acknowledged)
        })
    };
    for seed in 0..20 {
        let (first, second) = (trace(seed), trace(seed));
        assert!(first.0.len() > 20);
        assert_eq!(first, second, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_terminated_leader_releases_its_lease() {
    let world = group(Settings::default()).await;
    let began = Instant::now();
    world.end_manager("pg-0");
    let pods = Arc::new(WorldPods(Arc::downgrade(&world)));
    let server = world.servers[0].clone();
    Agent::new(server, world.names(), world.store.clone(), pods, Settings::default()).terminate().await;
    while world.primaries().is_empty() {
        sleep(SECOND / 10).await;
    }
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    world.manage("pg-0");
    let primary = world.healthy(MINUTE).await;
    assert_eq!(world.lost(&primary), [0; 0]);
}
