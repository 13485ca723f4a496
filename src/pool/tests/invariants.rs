//! The invariants of the simulated pool.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tokio::time::{Duration, Instant};

use super::{
    INTERVAL, KNOWN, PROBE, STEP,
    action::Behavior,
    simulation::Simulation,
    world::{Lookup, Server, number},
};
use crate::{
    config::Target,
    endpoint::Role,
    health::{State, fencing::Fence},
    pool::pod::{Pod, view::PodHealth},
    sync::lock,
    wire::server_facts::ServerFacts,
};

/// Returns the maximum time for which a Pod of this behavior can stay a candidate.
pub(super) fn bound(behavior: Behavior) -> Option<Duration> {
    match behavior {
        Behavior::Passes | Behavior::Full => None,
        Behavior::Refuses => Some(INTERVAL),
        Behavior::Hangs => Some(INTERVAL + PROBE),
        // The second of the two failed probes begins one second after the first.
        Behavior::Stalls => Some(INTERVAL + PROBE * 3),
    }
}

impl Simulation {
    /// Checks the invariants that hold at all times.
    pub(super) fn check(&mut self) -> Result<(), TestCaseError> {
        let now = Instant::now();
        let view = self.inner.published.load();
        let mut world = lock(&self.world.0);
        // A fenced Pod does not serve, so a refused probe ejects it.
        for (pod, _) in view.pods().filter(|(_, health)| health.fence.is_some()) {
            world.servers[number(pod)].served_when_full = false;
        }
        let report = |pod: &Pod| world.reports.get(&pod.serial);
        let facts = |pod: &Pod| report(pod).and_then(|report| report.facts);
        let server = |pod: &Pod| &world.servers[number(pod)];
        let candidates = |target: Target| {
            view.snapshot.candidates(target.index()).iter().map(|candidate| view.snapshot.pod(*candidate))
        };
        let is_candidate =
            |pod: &Pod| Target::ARRAY.into_iter().any(|target| candidates(target).any(|c| c.serial == pod.serial));
        let pods = || view.pods().map(|(pod, _)| pod);

        // The Pods that can be trusted according to all reports. With Pods of two clusters, this test cannot decide
        // which cluster the pool should use.
        let systems: BTreeSet<_> = pods().filter_map(|pod| facts(pod)?.system).collect();
        let is_outdated = |pod: &Pod| {
            let Some(ServerFacts { role: Role::Primary, system: Some(system), timeline, .. }) = facts(pod) else {
                return false;
            };
            timeline < world.newest.get(&system).copied()
        };
        let has_rival = |pod: &Pod| {
            let same = |other: &ServerFacts| {
                other.role == Role::Primary && Some(other.timeline) == facts(pod).map(|f| f.timeline)
            };
            pods().filter(|other| other.serial != pod.serial).filter_map(|other| facts(other)).any(|other| same(&other))
        };
        let trusted = |pod: &Pod| {
            let primary = facts(pod).is_some_and(|facts| facts.role == Role::Primary);
            systems.len() == 1 && !is_outdated(pod) && !(primary && has_rival(pod))
        };
        let passes = |pod: &Pod| report(pod).is_some_and(|report| report.passed);

        // Pods of another cluster that are fenced until they pass a probe.
        let is_foreign = |pod: &Pod, health: &PodHealth| {
            let fenced = matches!(health.fence, Some(Fence::OtherSystem { .. }));
            fenced && report(pod).is_some_and(|report| report.at <= server(pod).accused)
        };

        // A candidate exists while a trusted Pod passes.
        let can_serve = |pod: &Pod, health: &PodHealth| passes(pod) && trusted(pod) && !is_foreign(pod, health);
        if let Some((pod, _)) = view.pods().find(|(pod, health)| can_serve(pod, health)) {
            prop_assert!(candidates(Target::Any).next().is_some(), "{} passes: {view:?}", pod.endpoint);
        }
        // A failing Pod is no candidate after its bound, while another Pod has passed for long enough.
        let is_sound = |pod: &Pod| {
            let server = server(pod);
            let has_passed = report(pod).is_some_and(|report| report.facts.is_some());
            let since = server.since.max(server.accused);
            server.behavior == Behavior::Passes && has_passed && now > since + KNOWN && passes(pod) && trusted(pod)
        };
        for pod in pods() {
            let Server { behavior, since, served_when_full, .. } = *server(pod);
            if bound(behavior).is_some_and(|bound| now > since + bound + STEP)
                && pods().any(|other| other.serial != pod.serial && is_sound(other))
            {
                prop_assert!(!is_candidate(pod), "{} {behavior:?} since {:?}: {view:?}", pod.endpoint, now - since);
            }
            // A full Pod stays a candidate. A new Pod has to pass a probe first.
            let well = served_when_full && facts(pod).is_some();
            if behavior == Behavior::Full && well && trusted(pod) {
                prop_assert!(candidates(Target::Any).any(|c| c.serial == pod.serial), "{} is only full", pod.endpoint);
            }
        }
        // No candidate has a role or a timeline that contradicts its target.
        let mut clusters = BTreeSet::new();
        for target in Target::ARRAY {
            for pod in candidates(target) {
                prop_assert!(facts(pod).is_some(), "{} has never passed a probe", pod.endpoint);
                prop_assert!(!is_outdated(pod), "{} is below {:?}: {view:?}", pod.endpoint, world.newest);
                clusters.extend(facts(pod).and_then(|facts| facts.system));
                let role = report(pod).and_then(|report| report.reported_role.or(Some(report.facts?.role)));
                match target {
                    Target::Primary | Target::ReadWrite => prop_assert_eq!(role, Some(Role::Primary)),
                    Target::Standby => prop_assert_eq!(role, Some(Role::Standby)),
                    _ => {}
                }
            }
        }
        prop_assert!(clusters.len() <= 1, "candidates of two clusters: {view:?}");
        prop_assert!(candidates(Target::Primary).count() <= 1, "two primaries: {view:?}");
        // Failed and empty lookups remove no Pod that passes.
        let here: BTreeSet<u64> = pods().map(|pod| pod.serial).collect();
        let (before, lookup) = std::mem::replace(&mut self.last, (here, world.lookup));
        if !matches!(world.lookup, Lookup::Pods(1..)) && lookup == world.lookup {
            for serial in before.difference(&self.last.0) {
                let report = world.reports[serial];
                let recently = |server: &Server| now < server.accused + KNOWN;
                let accused = world.servers.iter().any(recently);
                prop_assert!(!report.passed || accused, "Pod {serial} passed {:?} ago", now - report.at);
            }
        }
        Ok(())
    }

    /// Checks that every passing standby serves, after a long time without actions.
    pub(super) fn check_quiet(&self) -> Result<(), TestCaseError> {
        let view = self.inner.published.load();
        let world = lock(&self.world.0);
        let systems: BTreeSet<_> =
            view.pods().filter_map(|(pod, _)| world.reports.get(&pod.serial)?.facts?.system).collect();
        for (pod, health) in view.pods() {
            let server = &world.servers[number(pod)];
            let standby = server.facts.role == Role::Standby;
            if server.behavior == Behavior::Passes && standby && systems.len() == 1 {
                prop_assert_eq!(health.state, State::Healthy, "{} passes", &pod.endpoint);
                let standbys = view.snapshot.candidates(Target::Standby.index());
                prop_assert!(standbys.iter().any(|c| view.snapshot.pod(*c).serial == pod.serial), "{view:?}");
            }
        }
        Ok(())
    }
}
