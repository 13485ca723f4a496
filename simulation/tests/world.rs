//! The world: hosts, clocks, random numbers and determinism.

#![allow(clippy::disallowed_methods, reason = "the tests check the clocks of the standard library")]

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use podpool_simulation::world::World;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn address(last: u8) -> [IpAddr; 1] {
    [[10, 0, 0, last].into()]
}

#[test]
fn a_paused_host_does_not_run_and_continues_where_it_stopped() {
    World::run(1, async |world| {
        let host = world.host("host", &address(1));
        let ticks = Arc::new(AtomicUsize::new(0));
        let counted = ticks.clone();
        host.run(async move {
            loop {
                sleep(SECOND).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        sleep(SECOND * 55 / 10).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 5);
        host.set_paused(true);
        sleep(60 * SECOND).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 5);
        host.set_paused(false);
        sleep(SECOND / 2).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 6);
    });
}

#[test]
fn a_killed_host_drops_its_tasks() {
    struct Count(Arc<AtomicUsize>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    World::run(2, async |world| {
        let host = world.host("host", &address(1));
        let dropped = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let guard = Count(dropped.clone());
            host.run(async move {
                std::future::pending::<()>().await;
                drop(guard);
            });
        }
        sleep(SECOND).await;
        assert_eq!((host.tasks(), dropped.load(Ordering::Relaxed)), (10, 0));
        host.kill();
        sleep(SECOND).await;
        assert_eq!((host.tasks(), dropped.load(Ordering::Relaxed)), (0, 10));
        assert_eq!(host.run(async { 7 }).await.unwrap(), 7);
    });
}

#[test]
fn clocks_follow_simulated_time_and_skew_applies_to_wall_clocks_only() {
    World::run(3, async |world| {
        let (exact, ahead) = (world.host("exact", &address(1)), world.host("ahead", &address(2)));
        ahead.set_skew(true, 90 * SECOND);
        let read = || async { (SystemTime::now().duration_since(UNIX_EPOCH).unwrap(), std::time::Instant::now()) };
        sleep(1000 * SECOND).await;
        let (wall, monotonic) = exact.run(read()).await.unwrap();
        let (skewed, same) = ahead.run(read()).await.unwrap();
        assert_eq!(wall, Duration::from_secs(1_767_225_600 + 1000));
        assert_eq!((skewed - wall, same), (90 * SECOND, monotonic));
        sleep(SECOND).await;
        assert_eq!(exact.run(read()).await.unwrap().1 - monotonic, SECOND);
        assert_eq!(Instant::now().into_std() - monotonic, SECOND);
    });
}

/// Returns numbers from every source of randomness and time.
fn numbers(seed: u64) -> String {
    World::run(seed, async |world| {
        let map: HashMap<u32, u32> = (0..100).map(|n| (n, n)).collect();
        let host = world.host("host", &address(1));
        let threads_rng = host.run(async { fastrand::u64(..) }).await.unwrap();
        let branch = |_| async {
            tokio::select! {
                () = std::future::ready(()) => 0,
                () = std::future::ready(()) => 1,
            }
        };
        let mut branches = Vec::new();
        for n in 0..64 {
            branches.push(branch(n).await);
        }
        format!(
            "{} {:?} {} {threads_rng} {branches:?} {:?}",
            RandomState::new().hash_one(7),
            map.keys().collect::<Vec<_>>(),
            world.rng("a name").u64(..),
            SystemTime::now(),
        )
    })
}

#[test]
fn every_source_of_randomness_follows_the_seed() {
    assert_eq!(numbers(1), numbers(1));
    assert_ne!(numbers(1), numbers(2));
}
