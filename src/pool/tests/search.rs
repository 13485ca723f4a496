//! The search for the primary by clients that use a subset of the Pods, in simulated time.
#![allow(clippy::print_stdout, reason = "prints the measured figures")]

use tokio::time::{Duration, Instant};

use super::{
    fleet::{Fleet, bound, number, run},
    world::{primary, standby},
};
use crate::{
    config::Limits,
    endpoint::Role,
    pool::pod::view::View,
    sync::lock,
    wire::server_facts::{ServerFacts, Upstream},
};

/// Promotes a Pod. The other Pods receive its log immediately.
fn promote(fleet: &Fleet, promoted: usize) {
    for (pod, server) in lock(&fleet.servers).iter_mut().enumerate() {
        let upstream = Upstream::parse(&format!("10.0.0.{} 5432", promoted + 1));
        server.facts = if pod == promoted { primary(2) } else { ServerFacts { upstream, ..standby() } };
    }
}

#[test]
fn clients_with_a_subset_search_the_primary_only_while_a_caller_waits() {
    run(Limits { subset_size: Some(3), ..Limits::default() }, async |mut fleet| {
        fleet.pass(Duration::from_secs(10)).await;
        assert_eq!(fleet.per_second(|server| &server.dials), 0, "dials while all clients can write");
        fleet.stop(0).await;
        fleet.pass(Duration::from_secs(3)).await;
        let promoted_at = Instant::now();
        promote(&fleet, 1);
        fleet.pass(Duration::from_secs(10)).await;
        let (p95, max) = fleet.resumed_after(promoted_at);
        let dials = fleet.per_second(|server| &server.dials);
        println!("subset of 3: at most {dials} dials/s per Pod; writes resume after {p95:?} (p95), {max:?} (max)");
        assert!(dials as f64 <= bound(&fleet, 200.0), "{dials} dials/s");
        assert!(p95 <= Duration::from_secs(5), "{p95:?}");
        assert!(fleet.pools.iter().all(|(_, inner)| {
            let view = inner.published.load();
            let roles = view.pods().filter(|(_, health)| health.role == Role::Primary).count();
            roles == 1 && view.health.len() <= 4
        }));
    });
}

/// A standby reports a new upstream server only in a full probe.
#[test]
fn standbys_are_queried_for_their_upstream_while_a_caller_waits() {
    run(Limits { subset_size: Some(3), ..Limits::default() }, async |mut fleet| {
        let standbys: Vec<Vec<usize>> = {
            let of = |view: &View| {
                view.pods().filter(|(_, health)| health.role == Role::Standby).map(|(pod, _)| number(pod)).collect()
            };
            fleet.pools.iter().map(|(_, inner)| of(&inner.published.load())).collect()
        };
        fleet.stop(0).await;
        // The first queries come when the caller begins to wait.
        fleet.pass(Duration::from_secs(1)).await;
        let began = Instant::now();
        fleet.pass(Duration::from_secs(10)).await;
        let servers = lock(&fleet.servers);
        let mut longest = Duration::ZERO;
        for (client, standbys) in standbys.iter().enumerate() {
            let probes = standbys.iter().flat_map(|pod| &servers[*pod].probes);
            let of_client = probes.filter(|(from, at)| *from == client && *at >= began).map(|(_, at)| *at);
            let mut times: Vec<_> = of_client.chain([began, Instant::now()]).collect();
            times.sort_unstable();
            longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(longest, Duration::max);
        }
        println!("while a caller waits, the longest time between two queries of a client's standbys is {longest:?}");
        // The interval with its jitter, and twice the longest interval between two checks of a Pod, because the queries
        // go to different standbys.
        assert!(longest < Duration::from_millis(1_200 + 2 * 1_302), "{longest:?}");
    });
}

/// The promoted Pod needs longer to accept a connection than a caller waits.
#[test]
fn callers_with_short_deadlines_do_not_restart_the_search() {
    run(Limits { subset_size: Some(3), ..Limits::default() }, async |mut fleet| {
        fleet.callers_leave_after = Some(Duration::from_millis(200));
        fleet.stop(0).await;
        fleet.pass(Duration::from_secs(2)).await;
        lock(&fleet.servers).iter_mut().for_each(|server| server.accepts_within = Duration::from_millis(300));
        let promoted_at = Instant::now();
        promote(&fleet, 1);
        fleet.pass(Duration::from_secs(20)).await;
        let (p95, max) = fleet.resumed_after(promoted_at);
        println!("callers wait 200 ms: writes resume after {p95:?} (p95), {max:?} (max)");
        assert!(p95 <= Duration::from_secs(8), "{p95:?}");
    });
}
