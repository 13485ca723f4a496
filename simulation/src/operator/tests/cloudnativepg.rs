use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::world::{self, SECOND, World, WorldPods};
use crate::operator::{
    Role, Store as _,
    cloudnativepg::{Controller, Instance, Rollout, Settings, roll_out},
};

const MINUTE: Duration = Duration::from_secs(60);

fn synchronous() -> Settings {
    Settings { synchronous: 1, ..Settings::default() }
}

fn controller(world: &Arc<World>, settings: Settings) -> Controller {
    Controller::new("controller", world.cluster.clone(), world.names(), world.store.clone(), settings)
}

/// A group with a primary. The client inserts ids all the time.
async fn group(settings: Settings) -> Arc<World> {
    let world = World::new(3, move |world, server| {
        let pods = Arc::new(WorldPods(Arc::downgrade(world)));
        Box::pin(Instance::new(server.clone(), world.names(), world.store.clone(), pods, settings).run())
    });
    let world = world.await;
    let document = world.store.read("admin").await.unwrap();
    let mut content = document.content;
    content.target_primary = Some("pg-0".into());
    content.current_primary = Some("pg-0".into());
    assert!(world.store.write("admin", document.version, content).await.unwrap());
    world.names().iter().for_each(|name| world.manage(name));
    tokio::spawn(controller(&world, settings).run());
    tokio::spawn(world.clone().insert_forever());
    sleep(MINUTE).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_failed_primary_is_replaced_within_seconds() {
    let world = group(Settings::default()).await;
    let began = Instant::now();
    let outage = world.restart_host("pg-0", MINUTE);
    let failover = async {
        while world.primaries().is_empty() || world.primaries() == ["pg-0"] {
            sleep(SECOND / 10).await;
        }
        began.elapsed()
    };
    let ((), failover) = tokio::join!(outage, failover);
    assert!(failover < 15 * SECOND, "{failover:?}");
    assert_ne!(world.healthy(MINUTE).await, "pg-0");
    assert_eq!(world.reports.lock().unwrap()["pg-0"].1, Role::Standby);
}

#[tokio::test(start_paused = true)]
async fn a_switchover_loses_no_write() {
    for settings in [Settings::default(), synchronous()] {
        let world = group(settings).await;
        assert!(controller(&world, settings).switch_over("pg-0", MINUTE).await);
        let primary = world.healthy(MINUTE).await;
        assert_ne!(primary, "pg-0");
        assert_eq!(world.lost(&primary), [0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_begins_with_the_standbys_and_loses_no_write() {
    let world = group(synchronous()).await;
    let pods = WorldPods(Arc::downgrade(&world));
    let outcome = roll_out(&controller(&world, synchronous()), &pods, 2 * MINUTE).await;
    assert_eq!(outcome, Rollout::Complete);
    assert_eq!(*world.recreated.lock().unwrap(), ["pg-2", "pg-1", "pg-0"]);
    let primary = world.healthy(MINUTE).await;
    assert_ne!(primary, "pg-0");
    assert_eq!(world.lost(&primary), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_isolated_primary_stops() {
    let world = group(Settings::default()).await;
    world.network.isolate("pg-0", true);
    sleep(2 * MINUTE).await;
    assert!(!world.servers[0].status().is_primary());
    assert_eq!(world.primaries().len(), 1);
    world.network.isolate("pg-0", false);
    world.healthy(2 * MINUTE).await;
}

/// Runs a group with random faults for each of 100 seeds. Returns the numbers of acknowledged ids that were lost.
fn random_histories(settings: Settings) -> Vec<usize> {
    world::random_histories(async |seed| group(settings).await.random_history(seed, 3 * MINUTE).await)
}

#[test]
fn no_acknowledged_write_is_lost_with_synchronous_standbys() {
    assert_eq!(random_histories(synchronous()), [0; 100]);
}

#[test]
fn an_acknowledged_write_may_be_lost_without_synchronous_standbys() {
    let lost = random_histories(Settings::default());
    assert!(lost.iter().any(|lost| *lost > 0), "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_stops_smartly_at_first() {
    let world = group(Settings::default()).await;
    let settings = Settings { smart_shutdown: 20 * SECOND, ..Settings::default() };
    world.end_manager("pg-0");
    let began = Instant::now();
    let acknowledged = || world.acknowledged.lock().unwrap().len();
    let before = acknowledged();
    let terminate = Instance::terminate(&world.servers[0], &settings);
    let served = async {
        sleep(19 * SECOND).await;
        acknowledged()
    };
    let ((), served) = tokio::join!(terminate, served);
    assert!(served > before, "the session of the client continues");
    assert_eq!(began.elapsed().as_secs(), 20);
}
