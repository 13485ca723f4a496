//! The invariants that the simulated pool must uphold.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::time::{Duration, Instant};

use super::{
    INTERVAL, PROBE, PROBED_WITHIN, STEP,
    action::Behavior,
    simulation::Simulation,
    world::{Lookup, Report, SYSTEM, Server, number},
};
use crate::{
    config::Target,
    endpoint::Role,
    event::Event,
    health::{State, fencing::Fence},
    pool::pod::{Pod, view::PodHealth},
    sync::lock,
    wire::server_facts::ServerFacts,
};

/// Returns the time within which the pool must stop using a Pod that behaves in this way, or `None` if the Pod may stay
/// in use.
pub(super) fn bound(behavior: Behavior) -> Option<Duration> {
    match behavior {
        Behavior::Passes | Behavior::Full => None,
        Behavior::Refuses => Some(INTERVAL),
        Behavior::Hangs => Some(INTERVAL + PROBE),
        // Two probes must fail before a stalling Pod is ejected, and the second probe begins one second after the
        // first.
        Behavior::Stalls => Some(INTERVAL + PROBE * 3),
    }
}

/// Returns true for a standby on the timeline of one of `others`, a primary on a timeline that is not the newest.
fn follows_former(
    standby: &ServerFacts,
    mut others: impl Iterator<Item = ServerFacts>,
    newest: &BTreeMap<u64, u32>,
) -> bool {
    let (Some(system), Some(timeline)) = (standby.system, standby.timeline) else { return false };
    standby.role == Role::Standby
        && Some(timeline) < newest.get(&system).copied()
        && others.any(|other| other.role == Role::Primary && other.timeline == Some(timeline))
}

impl Simulation {
    /// Checks the invariants that hold at all times.
    pub(super) fn check(&mut self) -> Result<(), TestCaseError> {
        let now = Instant::now();
        self.check_forgotten()?;
        let view = self.inner.published.load();
        let state: Vec<_> = view.pods().map(|(pod, health)| (&pod.endpoint, health)).collect();
        let mut world = lock(&self.world.0);
        // A fenced or detached Pod does not serve callers. A refused probe may therefore eject it, even if the server
        // is only full.
        for (pod, _) in view.pods().filter(|(_, health)| health.fence.is_some() || health.is_detached()) {
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
        let is_detached =
            |pod: &Pod| view.pods().any(|(other, health)| other.serial == pod.serial && health.is_detached());

        // A Pod is trusted unless a report about any Pod contradicts it. If the Pods belong to two clusters, none is
        // trusted, because the test does not determine which cluster the pool should use.
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
        let follows_former = |pod: &Pod| {
            let rivals = pods().filter_map(|other| facts(other));
            facts(pod).is_some_and(|standby| follows_former(&standby, rivals, &world.newest))
        };
        let trusted = |pod: &Pod| {
            let primary = facts(pod).is_some_and(|facts| facts.role == Role::Primary);
            let is_stale = is_outdated(pod) || follows_former(pod) || (primary && has_rival(pod));
            systems.len() == 1 && !is_stale
        };
        let passes = |pod: &Pod| report(pod).is_some_and(|report| report.passed);

        // Returns true for a Pod that is fenced as a member of another cluster. The fence ends when the Pod passes
        // another probe.
        let is_foreign = |pod: &Pod, health: &PodHealth| {
            let fenced = matches!(health.fence, Some(Fence::OtherSystem { .. }));
            fenced && report(pod).is_some_and(|report| report.at <= server(pod).accused)
        };

        // While a trusted Pod passes its probes, there must be a candidate.
        // While a late standby is healthy, ejected Pods are not used.
        let any_late = view.pods().any(|(_, health)| health.late);
        let is_usable = |health: &PodHealth| health.state == State::Healthy || !any_late;
        let can_serve = |pod: &Pod, health: &PodHealth| {
            passes(pod) && trusted(pod) && !is_foreign(pod, health) && is_usable(health)
        };
        if let Some((pod, _)) = view.pods().find(|(pod, health)| can_serve(pod, health)) {
            prop_assert!(
                candidates(Target::Any).next().is_some(),
                "no candidate although {} passes: {state:?}",
                pod.endpoint
            );
        }
        // A Pod that is absent from DNS and not needed must not be a candidate.
        for pod in pods().filter(|pod| is_detached(pod)) {
            prop_assert!(!is_candidate(pod), "detached candidate {}: {state:?}", pod.endpoint);
        }
        // A failing Pod must not be a candidate after its time limit (`bound`), if another Pod has been passing for
        // long enough.
        let is_sound = |pod: &Pod| {
            let server = server(pod);
            let has_passed = report(pod).is_some_and(|report| report.facts.is_some());
            let since = server.since.max(server.accused);
            server.behavior == Behavior::Passes
                && has_passed
                && now > since + PROBED_WITHIN
                && passes(pod)
                && trusted(pod)
        };
        for pod in pods() {
            let Server { behavior, since, served_when_full, accused, .. } = *server(pod);
            if bound(behavior).is_some_and(|bound| now > since + bound + STEP)
                && pods().any(|other| other.serial != pod.serial && is_sound(other))
            {
                let lasts = now - since;
                prop_assert!(!is_candidate(pod), "candidate {} {behavior:?} for {lasts:?}: {state:?}", pod.endpoint);
            }
            // A full Pod must stay a candidate, unless it is new and has not passed a probe yet. After the end of a
            // session, other Pods are preferred until the Pod has responded to a probe.
            let may_be_suspect = now <= accused + PROBED_WITHIN;
            let served = served_when_full && facts(pod).is_some() && !may_be_suspect;
            if behavior == Behavior::Full && served && trusted(pod) && !is_detached(pod) {
                prop_assert!(
                    candidates(Target::Any).any(|c| c.serial == pod.serial),
                    "full Pod {} was removed: {state:?}",
                    pod.endpoint
                );
            }
        }
        // No candidate may be on a stale timeline or have a role that its target excludes.
        let mut clusters = BTreeSet::new();
        for target in Target::ARRAY {
            for pod in candidates(target) {
                prop_assert!(facts(pod).is_some(), "candidate {} has never passed a probe", pod.endpoint);
                prop_assert!(!is_outdated(pod), "candidate {} is below {:?}: {state:?}", pod.endpoint, world.newest);
                clusters.extend(facts(pod).and_then(|facts| facts.system));
                let role = report(pod).and_then(|report| report.reported_role.or(Some(report.facts?.role)));
                match target {
                    Target::Primary | Target::ReadWrite => prop_assert_eq!(role, Some(Role::Primary)),
                    Target::Standby => prop_assert_eq!(role, Some(Role::Standby)),
                    _ => {}
                }
            }
        }
        prop_assert!(clusters.len() <= 1, "candidates of two clusters: {state:?}");
        prop_assert!(candidates(Target::Primary).count() <= 1, "two primaries: {state:?}");
        // Failed and empty lookups must not remove a Pod that passes its probes, unless it was already absent.
        let here: BTreeSet<u64> = pods().map(|pod| pod.serial).collect();
        let named = view.pods().filter(|(_, health)| health.absent.is_none()).map(|(pod, _)| pod.serial).collect();
        let (before, lookup) = std::mem::replace(&mut self.last, (named, world.lookup));
        if matches!(world.lookup, Lookup::Fails | Lookup::NoPods | Lookup::Pods(0)) && lookup == world.lookup {
            for serial in before.difference(&here) {
                let report = world.reports[serial];
                let recently = |server: &Server| now < server.accused + PROBED_WITHIN;
                let accused = world.servers.iter().any(recently);
                prop_assert!(
                    !report.passed || accused,
                    "removed Pod {serial} passed a probe {:?} ago",
                    now - report.at
                );
            }
        }
        Ok(())
    }

    /// Checks that the pool has forgotten a timeline only if none of its Pods has reported it last, and that the Pods
    /// include a primary.
    fn check_forgotten(&mut self) -> Result<(), TestCaseError> {
        while let Some(Some(Ok(event))) = self.events.next().now_or_never() {
            let Event::FencingHistoryForgotten { timeline: Some(forgotten), cause } = event else { continue };
            if !cause.contains("write-ahead log") {
                continue; // the system identifier was forgotten
            }
            let view = self.inner.published.load();
            let world = &mut *lock(&self.world.0);
            let reports: Vec<_> = view.pods().filter_map(|(pod, _)| world.reports.get(&pod.serial)).collect();
            let newest = |until: Instant| {
                let facts = reports.iter().filter(|report| report.at <= until).filter_map(|report| report.facts);
                let left = facts.filter(|facts| facts.system == Some(SYSTEM)).filter_map(|facts| facts.timeline);
                left.max().unwrap_or(0)
            };
            // A report since the last check may have arrived after the pool forgot the timeline.
            let earlier = newest(self.checked_at);
            prop_assert!(earlier < forgotten, "timeline {forgotten} was forgotten, but Pods report {earlier}");
            let is_primary = |report: &&Report| report.facts.is_some_and(|facts| facts.role == Role::Primary);
            let had_primary = world.primary_until >= self.checked_at;
            prop_assert!(had_primary || reports.iter().any(is_primary), "no primary: {reports:?}");
            let newest = newest(Instant::now());
            world.newest.insert(SYSTEM, newest);
        }
        self.checked_at = Instant::now();
        Ok(())
    }

    /// Checks that every standby that passes its probes serves callers. Called after a long time without actions.
    pub(super) fn check_quiet(&self) -> Result<(), TestCaseError> {
        let view = self.inner.published.load();
        let world = lock(&self.world.0);
        let systems: BTreeSet<_> =
            view.pods().filter_map(|(pod, _)| world.reports.get(&pod.serial)?.facts?.system).collect();
        for (pod, health) in view.pods() {
            let server = &world.servers[number(pod)];
            let standby = server.facts.role == Role::Standby;
            let rivals = view.pods().filter_map(|(pod, _)| world.reports.get(&pod.serial)?.facts);
            let follows_former = follows_former(&server.facts, rivals, &world.newest);
            if server.behavior == Behavior::Passes
                && standby
                && !follows_former
                && !health.is_detached()
                && systems.len() == 1
            {
                prop_assert_eq!(health.state, State::Healthy, "{} passes", &pod.endpoint);
                let standbys = view.snapshot.candidates(Target::Standby.index());
                let serves = standbys.iter().any(|c| view.snapshot.pod(*c).serial == pod.serial);
                prop_assert!(serves, "{} does not serve: {health:?}", pod.endpoint);
            }
        }
        Ok(())
    }
}
