//! Tests how one client's choice follows changes to the set of Pods, and how many clients are distributed over the
//! Pods.
#![allow(clippy::print_stdout, reason = "prints the measured distribution")]

use std::collections::{BTreeSet, HashMap, HashSet};

use proptest::prelude::*;

use super::{super::Rng, *};
use crate::{
    config::{LagFallback, Target},
    health::{
        State,
        candidates::{Eligibility, candidates},
    },
};

fn pod(number: u32) -> Endpoint {
    Endpoint::new(([10, 0, (number >> 8) as u8, number as u8], 5432).into())
}

/// A simulated client. It uses the Pods that the functions under test choose.
struct Client {
    ranking: Ranking,
    size: usize,
    standing: HashMap<u32, Standing>,
}

impl Client {
    fn new(id: u64, size: usize) -> Self {
        Self { ranking: Ranking::new(&id), size, standing: HashMap::new() }
    }

    /// Chooses Pods once. Returns the chosen Pods in descending order of scores.
    fn choose(&mut self, pods: &[u32], failing: &HashSet<u32>) -> Vec<u32> {
        let mut ranked: Vec<u32> = pods.to_vec();
        ranked.sort_by_key(|&number| std::cmp::Reverse(self.ranking.score(&pod(number))));
        let standing = |number: &u32| match self.standing.get(number) {
            _ if failing.contains(number) => Standing::Failing,
            standing => standing.copied().unwrap_or(Standing::Unused),
        };
        let mut entries: Vec<_> = ranked.iter().map(|n| Ranked::new(standing(n), Role::Unknown, false)).collect();
        choose(&mut entries, self.size);
        let chosen: Vec<_> = ranked.into_iter().zip(entries).filter(|(_, entry)| entry.chosen).collect();
        self.standing = chosen
            .iter()
            .map(|&(number, entry)| (number, if entry.serves() { Standing::Serving } else { Standing::Starting }))
            .collect();
        chosen.into_iter().map(|(number, _)| number).collect()
    }

    /// Chooses Pods until the choice no longer changes. After each choice, one more of the chosen Pods that are not
    /// failing begins to serve. Returns the Pods in use at the end. Asserts that the number of serving Pods never
    /// decreases.
    fn settle(&mut self, pods: &[u32], failing: &HashSet<u32>) -> BTreeSet<u32> {
        let served = |client: &Self| client.standing.values().filter(|s| **s == Standing::Serving).count();
        self.standing.retain(|number, _| pods.contains(number) && !failing.contains(number));
        let mut least = served(self);
        for _ in 0..10 * pods.len() + 10 {
            let chosen = self.choose(pods, failing);
            assert!(chosen.len() <= self.size + 1, "at most one additional Pod during a replacement");
            assert!(served(self) >= least, "a serving Pod is dropped only when its replacement serves");
            least = served(self);
            let next = chosen.iter().find(|n| self.standing[n] == Standing::Starting && !failing.contains(n));
            match next {
                Some(number) => drop(self.standing.insert(*number, Standing::Serving)),
                None => return chosen.into_iter().collect(),
            }
        }
        panic!("the choice does not become stable");
    }
}

proptest! {
    #[test]
    fn changing_one_pod_changes_at_most_one_choice_of_a_client(
        id in any::<u64>(),
        size in 1..6usize,
        start in prop::collection::btree_set(0..30u32, 1..20),
        changes in prop::collection::vec((0..30u32, any::<bool>()), 1..40),
    ) {
        let mut client = Client::new(id, size);
        let mut pods: BTreeSet<u32> = start;
        let mut failing = HashSet::new();
        let mut used = client.settle(&pods.iter().copied().collect::<Vec<_>>(), &failing);
        for (number, exists) in changes {
            // One Pod is added or removed, fails or recovers.
            match exists {
                true => drop(if !pods.remove(&number) { pods.insert(number) } else { failing.remove(&number) }),
                false => drop(if !failing.remove(&number) { failing.insert(number) } else { true }),
            }
            if pods.is_empty() {
                pods.insert(number);
            }
            let all: Vec<u32> = pods.iter().copied().collect();
            let now = client.settle(&all, &failing);
            prop_assert!(now.difference(&used).count() <= 1, "{:?} -> {:?}", used, now);
            prop_assert!(used.difference(&now).count() <= 1, "{:?} -> {:?}", used, now);
            prop_assert_eq!(now.len(), size.min(all.len()));
            let usable = all.iter().filter(|n| !failing.contains(n)).count();
            prop_assert_eq!(now.iter().filter(|n| failing.contains(n)).count(), now.len().saturating_sub(usable));
            used = now;
        }
    }

    #[test]
    fn searches_a_missing_role_until_all_pods_have_been_tried(
        standings in prop::collection::vec((0..4usize, any::<bool>(), any::<bool>()), 0..20), size in 0..4usize
    ) {
        const STANDINGS: [Standing; 4] = [Standing::Unused, Standing::Starting, Standing::Serving, Standing::Failing];
        let mut entries: Vec<_> = standings
            .iter()
            .map(|&(standing, primary, tried)| {
                let role = if primary { Role::Primary } else { Role::Standby };
                Ranked::new(STANDINGS[standing], role, tried)
            })
            .collect();
        choose(&mut entries, size);
        let before: Vec<bool> = entries.iter().map(|entry| entry.chosen).collect();
        let mut paused = entries.clone();
        let coverage = cover_role(&mut entries, Role::Primary, Search::Continue);
        let searching = coverage != Coverage::Covered;
        let has = |entry: &Ranked| entry.serves() && entry.role == Role::Primary;
        prop_assert_eq!(searching, !entries.iter().any(has));
        prop_assert!(searching || entries.iter().any(|entry| entry.chosen && has(entry)));
        let more = entries.iter().zip(before).filter(|(entry, before)| entry.chosen && !before).count();
        let bound = if searching { ROLE_CANDIDATES } else { 1 };
        prop_assert!(more <= bound, "{}", more);
        // A paused search keeps the Pods that are being tried, and tries no others.
        let paused_coverage = cover_role(&mut paused, Role::Primary, Search::Wait);
        prop_assert_eq!(paused_coverage != Coverage::Covered, searching);
        for (paused, entry) in paused.iter().zip(&entries) {
            let expected = entry.chosen && (!entry.role_only || !searching || entry.standing != Standing::Unused);
            prop_assert_eq!(paused.chosen, expected);
        }
    }
}

#[test]
fn failing_pods_do_not_replace_each_other() {
    use Standing::{Failing, Serving, Starting, Unused};
    let chosen = |standings: &[(Standing, bool)], size| {
        let entry = |&(standing, in_use)| Ranked { in_use, ..Ranked::new(standing, Role::Unknown, false) };
        let mut entries: Vec<_> = standings.iter().map(entry).collect();
        choose(&mut entries, size);
        entries.iter().map(|entry| entry.chosen).collect::<Vec<_>>()
    };
    // The first Pod fails, and the second one is tried. From then on, both are in use while each of them is passed over
    // for a while and tried again.
    assert_eq!(chosen(&[(Failing, true), (Unused, false)], 1), [true, true]);
    for standings in [[Failing, Starting], [Starting, Failing], [Failing, Failing]] {
        assert_eq!(chosen(&standings.map(|standing| (standing, true)), 1), [true, true], "{standings:?}");
    }
    assert_eq!(chosen(&[(Failing, true), (Serving, true)], 1), [false, true]);
    // Further Pods are tried, and only one failing one is kept.
    assert_eq!(chosen(&[(Failing, true), (Failing, true), (Unused, false)], 1), [true, false, true]);
    assert_eq!(chosen(&[(Failing, false), (Failing, true), (Starting, true)], 1), [false, true, true]);
    assert_eq!(
        chosen(&[(Failing, true), (Failing, true), (Unused, false), (Unused, false)], 2),
        [true, false, true, true]
    );
}

#[test]
fn tries_the_hinted_pod_before_the_others() {
    let mut entries = vec![Ranked::new(Standing::Unused, Role::Unknown, false); 6];
    (entries[0].standing, entries[0].role) = (Standing::Serving, Role::Standby);
    entries[4].hinted = true;
    choose(&mut entries, 1);
    let without_search = cover_role(&mut entries.clone(), Role::Primary, Search::Off);
    assert_eq!(without_search, Coverage::Missing(0), "no Pod is tried while no caller waits");
    let chosen = |entries: &[Ranked]| -> Vec<usize> { (1..6).filter(|&i| entries[i].chosen).collect() };
    let mut hinted = entries.clone();
    assert_eq!(cover_role(&mut hinted, Role::Primary, Search::Continue), Coverage::Missing(1));
    assert_eq!(chosen(&hinted), [4]);
    entries[4].tried = true;
    assert_eq!(cover_role(&mut entries, Role::Primary, Search::Continue), Coverage::Missing(2));
    assert_eq!(chosen(&entries), [1, 2], "the hinted Pod was not the primary");
}

/// The connections that a client opens to each of its Pods: one for probes, then those of the pool.
struct Demand {
    /// Number of Pods that the client uses.
    size: usize,
    /// Number of pooled connections to the client's first Pod, to its second Pod, and so on.
    pooled: &'static [u32],
}

struct Outcome {
    /// Number of connections to the fullest Pod.
    fullest: u32,
    opened: u32,
    refused: u32,
}

/// Starts clients with random ids, one after the other. Each opens its connections to the Pods of its subset. A Pod
/// without a free slot refuses the connection (53300). The client then skips this Pod and closes its connections to it.
fn start_clients(clients: u64, pods: u32, slots: u32, demand: &Demand, seed: u64) -> Outcome {
    let mut rng = Rng::seeded(seed);
    let mut used = vec![0u32; pods as usize];
    let mut refused = 0;
    let all: Vec<u32> = (0..pods).collect();
    for _ in 0..clients {
        let mut client = Client::new((rng.unit() * u64::MAX as f64) as u64, demand.size);
        let mut full = HashSet::new();
        let mut has: HashMap<u32, u32> = HashMap::new();
        'choosing: loop {
            let chosen = client.choose(&all, &full);
            has.retain(|number, count| {
                let stays = chosen.contains(number);
                used[*number as usize] -= if stays { 0 } else { *count };
                stays
            });
            for (number, pooled) in chosen.iter().zip(demand.pooled) {
                let have = has.entry(*number).or_default();
                while *have < 1 + pooled {
                    if used[*number as usize] == slots {
                        refused += 1;
                        full.insert(*number);
                        continue 'choosing;
                    }
                    used[*number as usize] += 1;
                    *have += 1;
                }
                client.standing.insert(*number, Standing::Serving);
            }
            break;
        }
    }
    Outcome { fullest: used.iter().copied().max().unwrap_or(0), opened: used.iter().sum(), refused }
}

#[test]
fn five_hundred_clients_fit_on_twenty_pods_of_ninety_slots() {
    // 20 × 90 slots are 3.6 slots for each of 500 clients.
    for (name, demand, bound) in [
        ("1 Pod, its probe and 1 connection", Demand { size: 1, pooled: &[1] }, Some(0.01)),
        ("3 Pods, 1 connection to each", Demand { size: 3, pooled: &[0, 0, 0] }, Some(0.01)),
        // With fewer Pods per client, connections are spread less evenly over the Pods. Here the clients need five
        // sixths of all slots, and some Pods refuse a connection although other Pods have free slots.
        ("2 Pods, their probes and 1 connection", Demand { size: 2, pooled: &[1, 0] }, None),
    ] {
        let (mut worst, mut refused, mut fullest) = (0.0f64, 0, 0);
        const SEEDS: u64 = 24;
        for seed in 0..SEEDS {
            let outcome = start_clients(500, 20, 90, &demand, seed);
            let each: u32 = demand.pooled.iter().map(|pooled| 1 + pooled).sum();
            assert_eq!(outcome.opened, 500 * each, "every client has all of its connections");
            assert!(outcome.fullest <= 90);
            fullest = fullest.max(outcome.fullest);
            refused += outcome.refused;
            worst = worst.max(f64::from(outcome.refused) / 500.0);
        }
        let mean = f64::from(refused) / (500.0 * SEEDS as f64);
        println!(
            "500 clients × 20 Pods × 90 slots, {name}: fullest {fullest}, refused opens per client {mean:.4} \
             (worst of {SEEDS} seeds {worst:.4})"
        );
        assert!(bound.is_none_or(|bound| mean <= bound), "{mean}");
    }
}

#[test]
fn the_clients_of_a_removed_pod_are_spread_evenly() {
    let mut moved = [0u32; 20];
    for id in 0..4000u64 {
        let mut client = Client::new(id, 1);
        let all: Vec<u32> = (0..20).collect();
        let before = client.settle(&all, &HashSet::new());
        let after = client.settle(&all[1..], &HashSet::new());
        if before != after {
            assert_eq!(before.into_iter().next(), Some(0), "only clients of the removed Pod move");
            after.into_iter().for_each(|number| moved[number as usize] += 1);
        }
    }
    let gone: u32 = moved.iter().sum();
    println!("{gone} of 4000 clients used the removed Pod; clients that moved to each other Pod: {moved:?}");
    assert!((150..250).contains(&gone), "{gone}");
    assert!(moved[1..].iter().all(|&n| (1..=25).contains(&n)), "{moved:?}");
}

#[test]
fn a_named_pod_keeps_its_rank_when_its_address_changes() {
    let ranking = Ranking::new(&"web-7");
    let at = |last: u8| Endpoint::named("postgresql-sfs-3", ([10, 0, 0, last], 5432).into());
    assert_eq!(ranking.score(&at(1)), ranking.score(&at(2)));
    assert_ne!(ranking.score(&at(1)), Ranking::new(&"web-8").score(&at(1)));
}

#[test]
fn a_primary_outside_the_subset_takes_no_reads_of_other_targets() {
    const PODS: u32 = 20;
    const CLIENTS: u64 = 500;
    let mut reads = [0.0; PODS as usize];
    let mut used_by = 0;
    for id in 0..CLIENTS {
        let ranking = Ranking::new(&id);
        let mut ranked: Vec<u32> = (0..PODS).collect();
        ranked.sort_by_key(|&number| std::cmp::Reverse(ranking.score(&pod(number))));
        let role = |number: u32| if number == 0 { Role::Primary } else { Role::Standby };
        let mut entries: Vec<_> = ranked.iter().map(|&n| Ranked::new(Standing::Unused, role(n), false)).collect();
        choose(&mut entries, 3);
        // The chosen Pods serve, and one of the others was found to be the primary.
        for (entry, &number) in entries.iter_mut().zip(&ranked) {
            if entry.chosen || number == 0 {
                entry.standing = Standing::Serving;
            }
        }
        assert_eq!(cover_role(&mut entries, Role::Primary, Search::Off), Coverage::Covered, "the primary is found");
        let eligible: Vec<_> = entries
            .iter()
            .map(|entry| {
                let state = if entry.chosen { State::Healthy } else { State::Draining };
                Eligibility { role_only: entry.role_only, ..Eligibility::unrestricted(state, entry.role) }
            })
            .collect();
        let lists = candidates(&eligible, LagFallback::Fail);
        let serving = |target: Target| &lists.distinct[lists.of[target.index()]];
        assert_eq!(serving(Target::Primary).len(), 1, "every client can write");
        let any = serving(Target::Any);
        assert_eq!(any.len(), 3);
        any.iter().for_each(|&place| reads[ranked[place as usize] as usize] += 1.0 / 3.0);
        used_by += u32::from(entries.iter().zip(&ranked).any(|(entry, &number)| number == 0 && entry.chosen));
    }
    let fair = CLIENTS as f64 / f64::from(PODS);
    let share = reads[0] / fair;
    println!("used by {used_by} clients, the primary has {share:.2} of a fair share of the reads for the target `any`");
    assert_eq!(u64::from(used_by), CLIENTS);
    assert!(share <= 1.3, "{share:.2}");
}
