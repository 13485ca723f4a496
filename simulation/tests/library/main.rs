//! The library in simulated time: a pool that finds its Pods in DNS, connects, and runs statements.

mod speed;

use std::time::Duration;

use podpool::{Kind, State, Target};
use podpool_simulation::{minimal::Scenario, network::Link, world::World};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_pool_finds_its_pods_in_dns_and_runs_statements_on_all_of_them() {
    World::run(1, async |world| {
        let scenario = Scenario::start(&world, 3);
        let pool = scenario.pool("");
        sleep(2 * SECOND).await;
        let status = pool.status();
        assert_eq!(status.endpoints.len(), 3);
        assert!(status.endpoints.iter().all(|pod| pod.state == State::Healthy), "{status:?}");
        let served = scenario.workload(&pool, Target::Any, 20, 3 * SECOND).await;
        assert_eq!(served.iter().sum::<usize>(), 60);
        assert!(served.iter().all(|statements| *statements > 5), "{served:?}");
    });
}

#[test]
fn a_pool_survives_the_crash_of_a_pod_and_uses_it_again_after_its_return() {
    World::run(2, async |world| {
        let scenario = Scenario::start(&world, 3);
        let pool = scenario.pool("");
        sleep(2 * SECOND).await;
        scenario.pods[1].crash();
        sleep(12 * SECOND).await;
        let served = scenario.workload(&pool, Target::Any, 20, 3 * SECOND).await;
        assert_eq!((served.iter().sum::<usize>(), served[1]), (60, 0));
        scenario.boot(1);
        sleep(30 * SECOND).await;
        let served = scenario.workload(&pool, Target::Any, 20, 3 * SECOND).await;
        assert!(served[1] > 5, "{served:?}");
    });
}

#[test]
fn a_checkout_fails_at_its_deadline_while_every_packet_is_lost() {
    World::run(3, async |world| {
        let scenario = Scenario::start(&world, 1);
        let pool = scenario.pool("acquire_timeout=5s");
        world.network().set_default_link(Link { blocked: true, ..Link::default() });
        let start = Instant::now();
        let error = scenario.client.run(async move { pool.get().await.map(drop) }).await.unwrap().unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (Kind::Dns, 5 * SECOND), "{error}");
    });
}

#[test]
fn a_client_that_was_stopped_blames_no_pod() {
    World::run(4, async |world| {
        let scenario = Scenario::start(&world, 3);
        let pool = scenario.pool("");
        sleep(10 * SECOND).await;
        scenario.client.set_paused(true);
        sleep(20 * SECOND).await;
        scenario.client.set_paused(false);
        for _ in 0..50 {
            let status = pool.status();
            assert!(status.endpoints.iter().all(|pod| pod.state == State::Healthy), "{status:?}");
            sleep(SECOND / 10).await;
        }
    });
}

#[test]
fn a_killed_client_leaves_no_connection_and_no_task() {
    World::run(5, async |world| {
        let scenario = Scenario::start(&world, 3);
        let pool = scenario.pool("");
        scenario.workload(&pool, Target::Any, 20, 3 * SECOND).await;
        assert!(world.network().endpoints(scenario.pods[0].node()) > 0);
        drop(pool);
        scenario.client.kill();
        sleep(2 * SECOND).await;
        assert_eq!(scenario.client.tasks(), 0);
        for host in scenario.pods.iter().chain([&scenario.client]) {
            assert_eq!(world.network().endpoints(host.node()), 0, "{host:?}");
        }
    });
}

#[test]
fn the_same_seed_produces_the_same_trace() {
    let trace = |seed| {
        World::run(seed, async |world| {
            world.network().set_default_link(Link { loss: 0.02, jitter: Duration::from_millis(5), ..Link::default() });
            let scenario = Scenario::start(&world, 3);
            let pool = scenario.pool("");
            for round in 0..4 {
                scenario.workload(&pool, Target::Any, 50, 2 * SECOND).await;
                scenario.pods[round % 3].crash();
                sleep(8 * SECOND).await;
                scenario.boot(round % 3);
            }
            drop(pool);
            sleep(SECOND).await;
            world.trace().to_string()
        })
    };
    let traces: Vec<_> = (0..10).map(trace).collect();
    assert!(traces.iter().all(|text| text.lines().count() > 400), "{}", traces[0]);
    for (seed, first) in traces.iter().enumerate() {
        let second = trace(seed as u64);
        let difference = first.lines().zip(second.lines()).find(|(first, second)| first != second);
        assert!(*first == second, "seed {seed}: {difference:?}");
        assert!(seed == 0 || traces[0] != *first, "the seeds 0 and {seed} produce the same trace");
    }
}
