use proptest::prelude::*;

use super::*;

/// A claim of a Pod that passes its probes and that DNS names. A standby reports the timeline that it receives.
fn claim(pod: u64, role: Role, system: u64, timeline: u32) -> Claim {
    Claim {
        pod,
        role,
        system: Some(system),
        timeline: Some(timeline),
        extent: Extent::Complete,
        position: Some(1000),
        queried: None,
        passing: true,
        started: None,
        named: true,
    }
}

/// A pool's timelines, with a clock that advances by one second per round of claims. Each round, all Pods are queried.
struct Rounds {
    timelines: Timelines,
    now: Instant,
    forgotten: Option<Forgotten>,
}

impl Rounds {
    fn new() -> Self {
        Self { timelines: Timelines::default(), now: Instant::now(), forgotten: None }
    }

    fn verdicts(&mut self, claims: &[Claim]) -> Vec<Verdict> {
        self.now += Duration::from_secs(1);
        let queried = Some(self.now);
        let claims: Vec<_> =
            claims.iter().map(|claim| Claim { queried: claim.queried.or(queried), ..*claim }).collect();
        let named = claims.iter().filter(|claim| claim.named).count();
        let (verdicts, forgotten) = self.timelines.judge(&claims, named, self.now);
        self.forgotten = forgotten;
        verdicts
    }

    fn judge(&mut self, claims: &[Claim]) -> Vec<Option<Fence>> {
        self.verdicts(claims).into_iter().map(|verdict| verdict.fence).collect()
    }
}

const PRIMARY: Role = Role::Primary;
const STANDBY: Role = Role::Standby;
const FENCED: Option<Fence> = Some(Fence::OldTimeline { newest: 2, got: 1 });

/// A pool that has seen a promotion: Pod 0 is the former primary, Pod 1 the new one, and Pod 2 a standby of Pod 1.
fn promoted() -> (Rounds, [Claim; 3]) {
    let mut rounds = Rounds::new();
    let claims = [claim(0, PRIMARY, 7, 1), claim(1, PRIMARY, 7, 2), claim(2, STANDBY, 7, 2)];
    assert_eq!(rounds.judge(&claims), [FENCED, None, None]);
    (rounds, claims)
}

#[test]
fn fences_a_former_primary_until_it_becomes_a_standby() {
    let (mut rounds, [old, new, standby]) = promoted();
    assert_eq!(rounds.judge(&[old]), [FENCED]);
    assert_eq!(rounds.judge(&[claim(0, STANDBY, 7, 2), new, standby]), [None; 3]);
}

#[test]
fn a_timeline_that_only_a_standby_reports_fences_the_former_primary() {
    let mut rounds = Rounds::new();
    assert_eq!(rounds.judge(&[claim(0, PRIMARY, 7, 1), claim(1, STANDBY, 7, 2)]), [FENCED, None]);
}

#[test]
fn keeps_the_primary_in_use_if_two_primaries_share_a_timeline() {
    let mut rounds = Rounds::new();
    let (a, b) = (claim(0, PRIMARY, 7, 1), claim(1, PRIMARY, 7, 1));
    assert_eq!(rounds.judge(&[b]), [None]);
    let second = Some(Fence::SecondPrimary);
    assert_eq!(
        rounds.verdicts(&[a, b]),
        [Verdict { fence: second, confirmed: true, follows_former: false }, Verdict::default()]
    );
    let gone = Claim { passing: false, ..b };
    assert_eq!(
        rounds.verdicts(&[a, gone]),
        [Verdict::default(), Verdict { fence: second, confirmed: false, follows_former: false }]
    );
}

#[test]
fn two_addresses_of_one_primary_are_not_rivals() {
    let mut rounds = Rounds::new();
    let (ipv4, ipv6) = (Claim { started: Some(5), ..claim(0, PRIMARY, 7, 1) }, claim(1, PRIMARY, 7, 1));
    assert_eq!(rounds.judge(&[ipv4, Claim { started: Some(5), ..ipv6 }]), [None, None]);
    assert_eq!(rounds.judge(&[ipv4, Claim { started: Some(6), ..ipv6 }]), [None, Some(Fence::SecondPrimary)]);
}

#[test]
fn a_fence_is_confirmed_by_a_query_after_the_promotion_became_known() {
    let (old, new) = (claim(0, PRIMARY, 7, 1), claim(1, PRIMARY, 7, 2));
    let unconfirmed = Verdict { fence: FENCED, confirmed: false, follows_former: false };
    let mut rounds = Rounds::new();
    rounds.judge(&[old]);
    let before = Claim { queried: Some(rounds.now), ..old };
    assert_eq!(rounds.verdicts(&[before, new])[0], unconfirmed, "the claim may be outdated");
    assert_eq!(rounds.verdicts(&[Claim { passing: false, ..before }, new])[0], unconfirmed, "the Pod is dead");
    assert_eq!(rounds.verdicts(&[old, new])[0], Verdict { fence: FENCED, confirmed: true, follows_former: false });
    assert_eq!(rounds.verdicts(&[claim(0, STANDBY, 7, 2), new])[0], Verdict::default());
}

#[test]
fn a_standby_is_late_while_it_follows_a_former_primary_that_runs() {
    let (mut rounds, [old, new, _]) = promoted();
    let standby = claim(2, STANDBY, 7, 1);
    let mut late = |claims: [Claim; 3]| rounds.verdicts(&claims)[2].follows_former;
    assert!(late([old, new, standby]));
    assert!(!late([old, new, claim(2, STANDBY, 7, 2)]), "the standby follows the new primary");
    assert!(!late([Claim { passing: false, ..old }, new, standby]), "the former primary has failed");
    assert!(!late([claim(0, STANDBY, 7, 2), new, standby]), "the former primary has become a standby");
    let unreported = Claim { extent: Extent::UpTo(1000), ..standby };
    assert!(!late([old, new, unreported]), "the standby may receive the newer timeline");
}

#[test]
fn a_restored_timeline_is_accepted_when_no_pod_has_the_newer_one() {
    let (mut rounds, [old, ..]) = promoted();
    let restored = [claim(3, PRIMARY, 7, 1), claim(4, STANDBY, 7, 1), claim(5, STANDBY, 7, 1)];
    assert_eq!(rounds.judge(&restored[..1]), [FENCED], "DNS names fewer Pods than before");
    assert_eq!(rounds.forgotten, None);
    assert_eq!(rounds.judge(&restored), [None; 3]);
    assert_eq!(rounds.forgotten, Some(Forgotten::Timeline(2)));
    // The restored cluster can be promoted again, and then fences its former primary again.
    assert_eq!(rounds.judge(&[old, claim(4, PRIMARY, 7, 2)]), [FENCED, None]);
}

/// Replaces one claim of a restored cluster, and verifies that the primary then stays fenced.
fn stays_fenced(reason: &str, replace: impl Fn(&mut Vec<Claim>)) {
    let (mut rounds, _) = promoted();
    let mut claims = vec![claim(3, PRIMARY, 7, 1), claim(4, STANDBY, 7, 1), claim(5, STANDBY, 7, 1)];
    replace(&mut claims);
    assert_eq!(rounds.judge(&claims)[0], FENCED, "{reason}");
    assert_eq!(rounds.forgotten, None, "{reason}");
}

#[test]
fn the_fence_stays_while_the_newer_timeline_may_exist() {
    stays_fenced("a named Pod is missing", |claims| claims.truncate(2));
    stays_fenced("a Pod is absent from DNS", |claims| claims[2].named = false);
    stays_fenced("a Pod fails its probes", |claims| claims[2].passing = false);
    stays_fenced("a standby has the newer timeline", |claims| claims[2].timeline = Some(2));
    stays_fenced("a standby reports no timeline", |claims| claims[2].timeline = None);
    stays_fenced("a standby may receive the newer timeline", |claims| claims[2].extent = Extent::UpTo(1000));
    stays_fenced("a Pod belongs to another cluster", |claims| claims[2].system = Some(8));
    stays_fenced("an absent Pod has the newer timeline", |claims| {
        claims.push(Claim { named: false, ..claim(1, PRIMARY, 7, 2) });
    });
    stays_fenced("an absent Pod that fails had the newer timeline", |claims| {
        claims.push(Claim { named: false, passing: false, ..claim(1, PRIMARY, 7, 2) });
    });
    stays_fenced("a Pod was last queried before the newer timeline was reported", |claims| {
        claims[2].queried = Some(Instant::now());
    });
}

#[test]
fn a_standby_that_has_passed_the_beginning_of_the_newer_timeline_without_it_does_not_have_it() {
    let (mut rounds, _) = promoted();
    let standby = Claim { extent: Extent::UpTo(1001), ..claim(4, STANDBY, 7, 1) };
    assert_eq!(rounds.judge(&[claim(3, PRIMARY, 7, 1), standby, standby]), [None; 3]);
}

#[test]
fn the_fence_stays_while_the_new_primary_is_missing_from_dns() {
    let mut rounds = Rounds::new();
    let (old, new) = (claim(0, PRIMARY, 7, 1), claim(1, PRIMARY, 7, 2));
    // The former primary is missing from DNS when the promotion becomes known, and is named again later.
    assert_eq!(rounds.judge(&[new]), [None]);
    assert_eq!(rounds.judge(&[old, new]), [FENCED, None]);
    assert_eq!(rounds.judge(&[old, Claim { named: false, ..new }])[0], FENCED);
    for _ in 0..60 {
        assert_eq!(rounds.judge(&[old]), [FENCED]);
    }
}

#[test]
fn unprobed_pods_keep_the_fence() {
    let (mut rounds, _) = promoted();
    let restored = [claim(3, PRIMARY, 7, 1), claim(4, STANDBY, 7, 1), claim(5, STANDBY, 7, 1)];
    let restored = restored.map(|claim| Claim { queried: Some(rounds.now + Duration::from_secs(1)), ..claim });
    let (verdicts, forgotten) = rounds.timelines.judge(&restored, 4, rounds.now);
    assert_eq!((verdicts[0].fence, forgotten), (FENCED, None), "DNS names a Pod that is not probed");
    let (verdicts, forgotten) = rounds.timelines.judge(&restored, 3, rounds.now);
    assert_eq!((verdicts[0].fence, forgotten), (None, Some(Forgotten::Timeline(2))));
}

#[test]
fn forgetting_the_history_lifts_the_fence_unless_a_passing_pod_has_the_newer_timeline() {
    let (mut rounds, [old, new, _]) = promoted();
    let dead = Claim { passing: false, ..new };
    assert_eq!(rounds.judge(&[old, dead])[0], FENCED);
    assert_eq!(rounds.timelines.forget(&[old, dead]), Forgotten::Requested { timeline: Some(2) });
    assert_eq!(rounds.judge(&[old, dead])[0], None);
    assert_eq!(rounds.judge(&[old, new]), [FENCED, None], "the new primary has returned");
    rounds.timelines.forget(&[old, new]);
    assert_eq!(rounds.judge(&[old, new]), [FENCED, None]);
}

#[test]
fn remembers_the_timeline_of_a_failing_pod_when_a_higher_one_is_forgotten() {
    let mut rounds = Rounds::new();
    let middle = Claim { named: false, ..claim(0, PRIMARY, 7, 2) };
    assert_eq!(rounds.judge(&[middle, claim(1, PRIMARY, 7, 3)])[1], None);
    let (middle, restored) = (Claim { passing: false, ..middle }, claim(1, PRIMARY, 7, 1));
    assert_eq!(rounds.judge(&[middle, restored]), [None, FENCED]);
    assert_eq!(rounds.forgotten, Some(Forgotten::Timeline(3)));
}

#[test]
fn adopts_another_cluster_when_no_named_pod_reports_the_old_one() {
    let mut rounds = Rounds::new();
    let (ours, other) = (claim(0, PRIMARY, 7, 9), claim(1, STANDBY, 8, 1));
    let fenced = Some(Fence::OtherSystem { expected: 7, got: 8 });
    assert_eq!(rounds.judge(&[ours, other]), [None, fenced]);
    assert_eq!(rounds.judge(&[Claim { passing: false, ..ours }, other]), [None, fenced]);
    // All named Pods now belong to the other cluster, whose timeline is lower than the old cluster's.
    let recreated = claim(2, PRIMARY, 8, 1);
    assert_eq!(rounds.judge(&[Claim { named: false, ..ours }, recreated, other])[1..], [None, None]);
    assert_eq!(rounds.forgotten, Some(Forgotten::System { system: 7, timeline: Some(9) }));
}

#[test]
fn adopts_the_identifier_of_absent_pods_when_no_named_pod_passes_its_probes() {
    let mut rounds = Rounds::new();
    let fenced = Some(Fence::OtherSystem { expected: 8, got: 7 });
    let other = claim(0, PRIMARY, 8, 9);
    let absent = Claim { named: false, ..claim(1, STANDBY, 7, 1) };
    assert_eq!(rounds.judge(&[other, absent]), [None, fenced], "DNS names a Pod of the adopted cluster");
    let gone = Claim { named: false, passing: false, ..other };
    for _ in 0..60 {
        assert_eq!(rounds.judge(&[gone, absent]), [None, fenced], "an absent Pod still reports the adopted identifier");
    }
    let dead = Claim { passing: false, ..claim(2, STANDBY, 7, 1) };
    assert_eq!(rounds.judge(&[absent, dead]), [None, None]);
    assert_eq!(rounds.forgotten, Some(Forgotten::System { system: 8, timeline: Some(9) }));
}

#[test]
fn a_dead_pod_keeps_the_system_identifier_only_against_a_minority() {
    let mut rounds = Rounds::new();
    let fenced = Some(Fence::OtherSystem { expected: 7, got: 8 });
    let dead = Claim { passing: false, ..claim(0, PRIMARY, 7, 9) };
    let others = [claim(1, PRIMARY, 8, 1), claim(2, STANDBY, 8, 1)];
    rounds.judge(&[claim(0, PRIMARY, 7, 9)]);
    for _ in 0..60 {
        assert_eq!(rounds.judge(&[dead, others[0]]), [None, fenced], "half of the Pods");
    }
    let mut rounds = Rounds::new();
    rounds.judge(&[claim(0, PRIMARY, 7, 9)]);
    for _ in 0..LOST_AFTER.as_secs() {
        assert_eq!(rounds.judge(&[dead, others[0], others[1]]), [None, fenced, fenced], "the Pod may return");
    }
    assert_eq!(rounds.judge(&[dead, others[0], others[1]])[1..], [None, None]);
    assert_eq!(rounds.forgotten, Some(Forgotten::System { system: 7, timeline: Some(9) }));
}

#[test]
fn remembers_timelines_of_clusters_that_were_not_adopted() {
    let mut rounds = Rounds::new();
    let (other, new, old) = (claim(0, PRIMARY, 8, 1), claim(1, PRIMARY, 7, 3), claim(2, PRIMARY, 7, 2));
    assert_eq!(rounds.judge(&[other]), [None]);
    assert_eq!(rounds.judge(&[other, new]), [None, Some(Fence::OtherSystem { expected: 8, got: 7 })]);
    assert_eq!(rounds.judge(&[old]), [Some(Fence::OldTimeline { newest: 3, got: 2 })]);
}

#[test]
fn limits_the_number_of_remembered_clusters() {
    let mut rounds = Rounds::new();
    let ours = claim(0, PRIMARY, 7, 1);
    for system in 100..1000 {
        rounds.judge(&[ours, claim(1, PRIMARY, system, 1)]);
    }
    assert_eq!(rounds.timelines.histories.len(), CLUSTERS);
    for system in 100..1000 {
        assert_eq!(rounds.judge(&[claim(1, PRIMARY, system, 1)]), [None], "the only Pod is adopted");
    }
    assert_eq!(rounds.timelines.histories.len(), CLUSTERS);
    assert_eq!(rounds.judge(&[claim(0, PRIMARY, 7, 2), ours])[1], FENCED);
}

#[test]
fn does_not_fence_a_pod_that_reports_no_system_identifier() {
    let mut rounds = Rounds::new();
    let unidentified = Claim { system: None, timeline: None, ..claim(0, PRIMARY, 7, 1) };
    assert_eq!(rounds.judge(&[unidentified]), [None]);
    assert_eq!(rounds.judge(&[unidentified, claim(1, STANDBY, 7, 1)]), [None, None]);
}

/// The claims of one round: for each Pod, whether it is a primary, its system identifier, its timeline, whether it
/// passes, and whether DNS names it.
fn any_round() -> impl Strategy<Value = Vec<Claim>> {
    let pod = (any::<bool>(), 1..3u64, 1..6u32, prop::bool::weighted(0.8), prop::bool::weighted(0.8));
    prop::collection::vec(pod, 1..6).prop_map(|pods| {
        let claims = pods.into_iter().enumerate().map(|(pod, (primary, system, timeline, passing, named))| {
            let role = if primary { PRIMARY } else { STANDBY };
            Claim { passing, named, ..claim(pod as u64, role, system, timeline) }
        });
        claims.collect()
    })
}

proptest! {
    #[test]
    fn leaves_at_most_one_primary_unfenced_on_the_newest_timeline(rounds in prop::collection::vec(any_round(), 1..12)) {
        let mut pool = Rounds::new();
        for claims in rounds {
            let before = pool.timelines.clone();
            let fences = pool.judge(&claims);
            let Some(system) = pool.timelines.system else { continue };
            let left = claims.iter().zip(&fences).filter(|(claim, fence)| claim.role == PRIMARY && fence.is_none());
            let left: Vec<_> = left.map(|(claim, _)| claim).collect();
            prop_assert!(left.len() <= 1, "{left:?}");
            for primary in left {
                prop_assert_eq!(primary.system, Some(system));
                prop_assert_eq!(primary.timeline, pool.timelines.newest());
                let ours = claims.iter().filter(|claim| claim.system == Some(system));
                let reported = ours.filter(|claim| claim.passing).filter_map(|claim| claim.timeline).max();
                prop_assert!(primary.timeline >= reported, "{primary:?}, but timeline {reported:?} is reported");
            }
            // The newest timeline decreases only under the documented conditions.
            let newest = |timelines: &Timelines| timelines.histories.get(&system).map(|history| history.newest);
            if newest(&before) > newest(&pool.timelines) {
                let history = before.histories[&system];
                let named: Vec<_> = claims.iter().filter(|claim| claim.named).collect();
                prop_assert_eq!(pool.forgotten, newest(&before).map(Forgotten::Timeline));
                prop_assert!(named.len() >= history.named_first.max(history.named_last));
                prop_assert!(named.iter().all(|claim| claim.passing));
                let has_newest = |claim: &Claim| claim.system == Some(system) && claim.timeline >= newest(&before);
                prop_assert!(!claims.iter().any(has_newest));
            }
        }
    }
}
