//! Every Pod is in use after the world is whole again, and serves a fair share.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use super::{
    bounds,
    calls::Call,
    history::{CallId, Event, History, Instance, PodSample, Standing},
    roles::Roles,
    violation::{Violation, Violations},
};
use crate::adversary::{Policy, Target};

/// Number of checkouts for each Pod below which the shares of a target are not compared.
const ENOUGH: u32 = 40;

/// Checks that each Pod that DNS names is healthy and usable in the last sample of each client, apart from Pods that
/// have been added so recently that they may not have been probed: a client with a subset tries one Pod after another.
pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let Some(healed) = history.healed.filter(|_| bounds::has_slots(&history.plan)) else { return violations.found() };
    let fenced = history.fenced_for_good();
    for (client, (at, pods)) in last_samples(history) {
        let named = last_answer(history, client);
        let is_out = |pod: &&PodSample| !(pod.usable || pod.healthy && fenced.contains(&(client, pod.on)));
        let is_known =
            |pod: &&PodSample| added(history, client, pod.address) + bounds::probed(&history.plan.settings) < at;
        for pod in
            pods.iter().filter(is_out).filter(is_known).filter(|pod| named.is_some_and(|named| named.contains(&pod.on)))
        {
            let limit = bounds::returned(&history.plan.settings, ejections(history, client, pod.on));
            let since = at.saturating_sub(healed);
            if since > limit {
                let (on, since, limit) = (pod.on, since.as_millis(), limit.as_millis());
                let state = if pod.healthy { "healthy, but not usable," } else { "not healthy" };
                let text = format!("{on} is {state} for client {client} {since} ms after the world is whole");
                violations.add(at, format!("{text}, expected at most {limit} ms"));
            }
        }
    }
    violations.found()
}

/// Checks that the standbys have similar shares of the checkouts for a target. Servers and links are equal after the
/// faults, so a policy gives them equal shares, apart from chance.
///
/// Not judged with `peak-ewma`, with which "a Pod that was slow regains its share only slowly" (`docs/tuning.md`), and
/// with a subset, because a client may use different Pods for different targets. The primary is not compared, because
/// writes are part of its load.
pub(super) fn fair(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let settings = &history.plan.settings;
    let uses_all = settings.uses_every_pod() && bounds::has_slots(&history.plan);
    let is_judged = uses_all && settings.policy != Policy::PeakEwma;
    let Some(healed) = history.healed.filter(|_| is_judged) else { return violations.found() };
    let (roles, calls) = (Roles::of(history), history.calls());
    // While the primary is fenced, the lag of the standbys is measured with the timeline that the pool believes in.
    let fenced = history.fenced_for_good();
    let samples = last_samples(history).into_iter();
    for (client, (_, pods)) in samples.filter(|(client, _)| !fenced.iter().any(|(of, _)| of == client)) {
        let ejections = pods.iter().map(|pod| ejections(history, client, pod.on)).max().unwrap_or_default();
        let from = healed + bounds::shared(settings, ejections);
        for target in [Target::Any, Target::Standby] {
            let standbys = pods.iter().map(|pod| pod.on);
            let standbys = standbys.filter(|on| roles.at(*on, history.end).is_some_and(|role| role.standby));
            let shares = shares(&calls, client, target, from, standbys);
            for (on, share, mean) in unfair(&shares) {
                let target = target.as_str();
                let text = format!("{on} served {share} calls with target {target} of client {client}");
                violations.add(history.end, format!("{text}, expected about {mean:.0}"));
            }
        }
    }
    violations.found()
}

/// Returns the last sample of each client with its time.
fn last_samples(history: &History) -> BTreeMap<u32, (Duration, &[PodSample])> {
    let mut last = BTreeMap::new();
    for record in &history.records {
        if let Event::Sampled { client, pods } = &record.event {
            last.insert(*client, (record.at, pods.as_slice()));
        }
    }
    last
}

/// Returns the Pods in the last answer that a client received.
fn last_answer(history: &History, client: u32) -> Option<&BTreeSet<Instance>> {
    history.records.iter().rev().find_map(|record| match &record.event {
        Event::Resolved { client: other, pods, .. } if *other == client => Some(pods),
        _ => None,
    })
}

/// Returns the time at which a client has last added an address.
fn added(history: &History, client: u32, address: SocketAddr) -> Duration {
    let is_addition = |event: &Event| {
        let expected = (client, address, Standing::Member);
        matches!(event, Event::Standing { client, address, standing } if (*client, *address, *standing) == expected)
    };
    let last = history.records.iter().rev().find(|record| is_addition(&record.event));
    last.map_or(Duration::ZERO, |record| record.at)
}

/// Returns how many times a client has ejected a Pod.
fn ejections(history: &History, client: u32, pod: Instance) -> u32 {
    let is_ejection = |event: &Event| matches!(event, Event::Ejected { client: c, on } if (*c, *on) == (client, pod));
    history.records.iter().filter(|record| is_ejection(&record.event)).count() as u32
}

/// Returns the number of checkouts of each Pod by the calls of a client with a target since a time.
fn shares(
    calls: &BTreeMap<CallId, Call>,
    client: u32,
    target: Target,
    from: Duration,
    pods: impl Iterator<Item = Instance>,
) -> BTreeMap<Instance, u32> {
    let mut shares: BTreeMap<Instance, u32> = pods.map(|on| (on, 0)).collect();
    let chosen = calls.values().filter(|call| call.client == client && call.target == target);
    for checkout in chosen.flat_map(|call| &call.checkouts).filter(|checkout| checkout.at >= from) {
        if let Some(share) = shares.get_mut(&checkout.on) {
            *share += 1;
        }
    }
    shares
}

/// Returns the shares that are below half or above twice the mean by more than chance (three standard deviations of a
/// random choice), each with the mean.
fn unfair(shares: &BTreeMap<Instance, u32>) -> Vec<(Instance, u32, f64)> {
    let (total, number) = (shares.values().sum::<u32>(), shares.len() as u32);
    if number < 2 || total < ENOUGH * number {
        return Vec::new();
    }
    let mean = f64::from(total) / f64::from(number);
    let chance = 3.0 * mean.sqrt();
    let is_fair = |share: u32| (mean / 2.0 - chance..=mean * 2.0 + chance).contains(&f64::from(share));
    shares.iter().filter(|(_, share)| !is_fair(**share)).map(|(on, share)| (*on, *share, mean)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::{
        history::Role,
        testing::{OTHER, POD, began, done, fenced, healthy, history, ms, out, resolved, role, sampled, texts},
    };

    fn ejected_until_the_end(at: u64, ejections: usize) -> Vec<String> {
        let out = PodSample { healthy: false, usable: false, ..healthy(POD, true) };
        let ejections = vec![(500, Event::Ejected { client: 0, on: POD }); ejections];
        let last = [(900, resolved(&[POD])), (at, sampled(&[out, healthy(OTHER, false)]))];
        let history = history(ejections.into_iter().chain(last));
        texts(check("restored", &History { healed: Some(ms(1_000)), ..history }))
    }

    #[test]
    fn no_pod_is_out_after_the_limit() {
        let limit = bounds::returned(&Default::default(), 1).as_millis() as u64;
        assert_eq!(ejected_until_the_end(1_000 + limit, 1), [""; 0]);
        let expected = format!(
            "pod-0 is not healthy for client 0 {} ms after the world is whole, expected at most {limit} ms",
            limit + 1
        );
        assert_eq!(ejected_until_the_end(1_001 + limit, 1), [expected]);
    }

    #[test]
    fn a_fence_that_cannot_be_disproved_may_remain() {
        let fenced = |read_all_stats| {
            let out = PodSample { usable: false, ..healthy(POD, false) };
            let events = [(500, fenced(POD, true)), (900, resolved(&[POD])), (90_000, sampled(&[out]))];
            let mut history = History { healed: Some(ms(1_000)), ..history(events) };
            history.plan.topology.read_all_stats = read_all_stats;
            texts(check("restored", &history)).len()
        };
        assert_eq!((fenced(true), fenced(false)), (1, 0));
    }

    #[test]
    fn relapses_extend_the_limit() {
        let limit = |ejections| bounds::returned(&Default::default(), ejections);
        assert_eq!(limit(5) - limit(4), ms(4_800));
        assert_eq!(limit(50) - limit(5), ms(36_000 - 9_600));
        assert_eq!(ejected_until_the_end(1_001 + limit(1).as_millis() as u64, 5), [""; 0]);
    }

    #[test]
    fn only_pods_in_dns_are_required() {
        let out = PodSample { healthy: false, usable: false, ..healthy(POD, true) };
        let last = [(900, resolved(&[OTHER])), (90_000, sampled(&[out, healthy(OTHER, false)]))];
        assert_eq!(texts(check("restored", &History { healed: Some(ms(1_000)), ..history(last) })), [""; 0]);
    }

    /// The violations after so many calls on each of two standbys.
    fn with_shares(one: u64, other: u64, policy: Policy) -> Vec<String> {
        let start = 1_000 + bounds::shared(&Default::default(), 0).as_millis() as u64;
        let mut events = vec![(0, role(POD, Role::STANDBY)), (0, role(OTHER, Role::STANDBY))];
        for call in 0..one + other {
            let (at, on) = (start + call, if call < one { POD } else { OTHER });
            events.extend([(at, began(call, Target::Any)), (at, out(call, on)), (at, done(call))]);
        }
        events.push((start + one + other, sampled(&[healthy(POD, true), healthy(OTHER, true)])));
        let mut history = History { healed: Some(ms(1_000)), ..history(events) };
        history.plan.settings.policy = policy;
        texts(fair("fair", &history))
    }

    #[test]
    fn shares_are_similar() {
        assert_eq!(with_shares(100, 100, Policy::LeastCost), [""; 0]);
        assert_eq!(with_shares(60, 140, Policy::Random), [""; 0]);
        let expected = "pod-0 served 5 calls with target any of client 0, expected about 100";
        assert_eq!(with_shares(5, 195, Policy::RoundRobin), [expected]);
        assert_eq!(with_shares(5, 195, Policy::PeakEwma), [""; 0]);
        assert_eq!(with_shares(0, 79, Policy::LeastCost), [""; 0]);
    }
}
