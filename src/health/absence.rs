//! Decides which Pods that are absent from DNS are still used.
//!
//! A confirmed absence from DNS has several common causes: the Pod is terminating but still serves, the Pod is not
//! ready for a moment, or the DNS answer is incomplete. An absent Pod that passes its probes is therefore not removed
//! immediately:
//!
//! - The Pod is [retained](Standing::Retained), that is, still used, while no other Pod serves a target that callers
//!   have requested since the pool was built.
//! - Otherwise, the Pod is [detached](Standing::Detached): it is never checked out, but its connections stay open for a
//!   limited time, so that a Pod that DNS names again needs no new handshakes. A Pod that no longer exists, according
//!   to a source that knows the exact set of Pods, is drained immediately instead.
//!
//! While no Pod serves, all absent Pods are retained, because any of them may return first.
//!
//! At most one absent primary is retained. An absent primary that is already retained stays the retained one while it
//! serves. Otherwise, it is the one that has passed a probe last.

use crate::{
    config::Target,
    endpoint::Role,
    time::{Duration, Instant},
};

/// The use of a Pod whose absence from DNS is confirmed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// The Pod is used like any other Pod, because no other Pod serves a requested target.
    Retained,
    /// The Pod is not used.
    Detached,
}

#[cfg(feature = "_metrics")]
impl Standing {
    /// Every standing.
    pub(crate) const ALL: &'static [Self] = &[Self::Retained, Self::Detached];

    /// Returns the name of the standing in lower case.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Retained => "retained",
            Self::Detached => "detached",
        }
    }
}

/// The properties of one Pod that determine whether absent Pods are retained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    /// True if the Pod is healthy, not fenced, and not too far behind its primary.
    pub(crate) serves: bool,
    /// The Pod's role; [`Role::Unknown`] while the role is not verified.
    pub(crate) role: Role,
    /// True if transactions are read-only by default (`default_transaction_read_only`).
    pub(crate) read_only: bool,
    /// The current standing of an absent Pod. `None` if DNS names the Pod, or if its absence is not confirmed.
    pub(crate) absent: Option<Standing>,
    /// Time of the last passed probe.
    pub(crate) answered: Option<Instant>,
}

impl Pod {
    /// Returns true if the Pod serves the target. If `preferred` is true, the Pod must also have the role that the
    /// target prefers.
    fn serves(&self, target: Target, preferred: bool) -> bool {
        self.serves && target.accepts(self.role, self.read_only) && (!preferred || target.prefers(self.role))
    }

    fn is_writable_primary(&self) -> bool {
        self.serves && Target::ReadWrite.accepts(self.role, self.read_only)
    }
}

/// Returns the standing of each absent Pod, in the order of `pods`, and `None` for each named Pod. `requested` is the
/// bit set of the targets that callers have requested.
pub(crate) fn standings(pods: &[Pod], requested: u32) -> Vec<Option<Standing>> {
    let rank = |pod: &Pod| (pod.absent == Some(Standing::Retained), pod.answered);
    let primaries = pods.iter().enumerate().filter(|(_, pod)| pod.absent.is_some() && pod.is_writable_primary());
    let primary = primaries.max_by_key(|(_, pod)| rank(pod)).map(|(index, _)| index);
    let unserved = unserved(pods, requested);
    let none_serves = !pods.iter().any(|pod| pod.serves);
    let is_retained = |index: usize, pod: &Pod| {
        if none_serves {
            return true;
        }
        let replaced = pod.is_writable_primary() && primary != Some(index);
        !replaced && unserved.iter().any(|(target, preferred)| pod.serves(*target, *preferred))
    };
    let standing = |(index, pod): (usize, &Pod)| {
        pod.absent?;
        Some(if is_retained(index, pod) { Standing::Retained } else { Standing::Detached })
    };
    pods.iter().enumerate().map(standing).collect()
}

/// Returns the requested targets that no named Pod serves. The `bool` is true if only Pods with the role that the
/// target prefers can replace a named Pod, because named Pods with other roles serve the target.
fn unserved(pods: &[Pod], requested: u32) -> Vec<(Target, bool)> {
    let named = |target, preferred| pods.iter().any(|pod| pod.absent.is_none() && pod.serves(target, preferred));
    let targets = Target::ARRAY.into_iter().filter(|target| target.bit() & requested != 0);
    let of = |target| match (named(target, true), named(target, false)) {
        (true, _) => None,
        (false, others) => {
            let preferred = others || pods.iter().any(|pod| pod.serves(target, true));
            Some((target, preferred))
        }
    };
    targets.filter_map(of).collect()
}

/// Returns the requested targets that no named Pod serves in the role that the target prefers, as a bit set.
pub(crate) fn missing(pods: &[Pod], requested: u32) -> u32 {
    unserved(pods, requested).into_iter().fold(0, |bits, (target, _)| bits | target.bit())
}

/// The absence of one Pod from DNS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absence {
    standing: Standing,
    /// Start of the current standing.
    since: Instant,
    /// Total time in earlier periods in which the Pod was detached.
    detached_before: Duration,
    /// True if the Pod no longer exists, so that it cannot be named again.
    gone: bool,
}

impl Absence {
    /// Creates the absence of a Pod that is confirmed now.
    pub(crate) fn new(standing: Standing, now: Instant) -> Self {
        Self { standing, since: now, detached_before: Duration::ZERO, gone: false }
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// Sets whether the Pod no longer exists.
    pub(crate) fn set_gone(&mut self, gone: bool) {
        self.gone = gone;
    }

    /// Changes the standing. Returns true if it was different.
    pub(crate) fn set(&mut self, standing: Standing, now: Instant) -> bool {
        if self.standing == standing {
            return false;
        }
        if self.standing == Standing::Detached {
            self.detached_before += now.saturating_duration_since(self.since);
        }
        (self.standing, self.since) = (standing, now);
        true
    }

    /// Returns the time at which a detached Pod must be drained. `linger` is the total time for which a Pod may be
    /// detached, unless it no longer exists. Returns `None` for a retained Pod.
    pub(crate) fn ends_at(&self, linger: Duration) -> Option<Instant> {
        let linger = if self.gone { Duration::ZERO } else { linger };
        (self.standing == Standing::Detached).then(|| self.since + linger.saturating_sub(self.detached_before))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMED: Option<Standing> = None;
    const ABSENT: Option<Standing> = Some(Standing::Detached);
    const RETAINED: Option<Standing> = Some(Standing::Retained);
    const DETACHED: Option<Standing> = Some(Standing::Detached);

    fn pod(absent: Option<Standing>, role: Role) -> Pod {
        Pod { serves: true, role, read_only: role == Role::Standby, absent, answered: None }
    }

    fn bits(targets: &[Target]) -> u32 {
        targets.iter().fold(0, |bits, target| bits | target.bit())
    }

    #[test]
    fn retains_the_last_pod_of_a_requested_role() {
        let pods = [pod(ABSENT, Role::Primary), pod(NAMED, Role::Standby), pod(ABSENT, Role::Standby)];
        for (requested, primary) in [
            (&[Target::ReadWrite, Target::Standby][..], RETAINED),
            (&[Target::PreferPrimary], RETAINED),
            (&[Target::Standby], DETACHED),
            (&[Target::Any], DETACHED),
            (&[], DETACHED),
        ] {
            assert_eq!(standings(&pods, bits(requested)), [primary, None, DETACHED], "{requested:?}");
        }
    }

    #[test]
    fn retains_all_standbys_if_no_standby_is_named() {
        let pods = [pod(NAMED, Role::Primary), pod(ABSENT, Role::Standby), pod(ABSENT, Role::Standby)];
        for requested in [Target::Standby, Target::PreferStandby, Target::ReadOnly] {
            assert_eq!(standings(&pods, requested.bit()), [None, RETAINED, RETAINED], "{requested}");
        }
        assert_eq!(standings(&pods, Target::Any.bit()), [None, DETACHED, DETACHED]);
    }

    #[test]
    fn pods_that_do_not_serve_neither_are_retained_nor_replace_another_pod() {
        let out = |pod| Pod { serves: false, ..pod };
        let pods = [out(pod(NAMED, Role::Primary)), pod(ABSENT, Role::Primary), out(pod(ABSENT, Role::Primary))];
        assert_eq!(standings(&pods, Target::ReadWrite.bit()), [None, RETAINED, DETACHED]);
        let none_serves = pods.map(out);
        assert_eq!(standings(&none_serves, Target::ReadWrite.bit()), [None, RETAINED, RETAINED]);
    }

    #[test]
    fn retains_the_absent_primary_that_answered_last_and_keeps_it() {
        let now = Instant::now();
        let at = |seconds| Some(now + Duration::from_secs(seconds));
        let primary = |absent, answered| Pod { answered, ..pod(absent, Role::Primary) };
        let fresh = [primary(ABSENT, at(1)), primary(ABSENT, at(2))];
        for requested in [Target::ReadWrite, Target::Any] {
            assert_eq!(standings(&fresh, requested.bit()), [DETACHED, RETAINED], "{requested}");
        }
        let later = [primary(ABSENT, at(3)), primary(RETAINED, at(2))];
        assert_eq!(standings(&later, Target::Primary.bit()), [DETACHED, RETAINED]);
        let failed = [later[0], Pod { serves: false, ..later[1] }];
        assert_eq!(standings(&failed, Target::Primary.bit()), [RETAINED, DETACHED]);
    }

    #[test]
    fn only_the_time_in_which_a_pod_is_detached_counts() {
        let (start, linger) = (Instant::now(), Duration::from_secs(30));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut absence = Absence::new(Standing::Detached, start);
        assert_eq!(absence.ends_at(linger), Some(at(30)));
        assert!(absence.set(Standing::Retained, at(10)));
        assert!(!absence.set(Standing::Retained, at(20)));
        assert_eq!(absence.ends_at(linger), None);
        assert!(absence.set(Standing::Detached, at(100)));
        assert_eq!(absence.ends_at(linger), Some(at(120)));
        assert_eq!(absence.ends_at(Duration::ZERO), Some(at(100)));
    }

    #[test]
    fn a_pod_that_no_longer_exists_does_not_linger() {
        let (start, linger) = (Instant::now(), Duration::from_secs(30));
        let mut absence = Absence::new(Standing::Detached, start);
        absence.set_gone(true);
        assert_eq!(absence.ends_at(linger), Some(start));
        absence.set(Standing::Retained, start);
        assert_eq!(absence.ends_at(linger), None, "a retained Pod is used until its server refuses");
        absence.set(Standing::Detached, start + linger);
        assert_eq!(absence.ends_at(linger), Some(start + linger));
    }

    fn any_pod() -> impl Strategy<Value = Pod> {
        let absent = prop_oneof![Just(NAMED), Just(ABSENT), Just(RETAINED)];
        (any::<bool>(), 0..Role::ALL.len(), any::<bool>(), absent).prop_map(|(serves, role, read_only, absent)| Pod {
            serves,
            role: Role::ALL[role],
            read_only,
            absent,
            answered: None,
        })
    }

    proptest! {
        #[test]
        fn a_requested_target_is_served_if_any_pod_can_serve_it(
            pods in prop::collection::vec(any_pod(), 0..8), requested in 0..=Target::ALL_BITS
        ) {
            let standings = standings(&pods, requested);
            let in_use = |index: usize| standings[index] != DETACHED;
            let used = pods.iter().enumerate().filter(|(index, _)| in_use(*index));
            let used: Vec<_> = used.map(|(_, pod)| pod).collect();
            for target in Target::ARRAY.into_iter().filter(|target| target.bit() & requested != 0) {
                for preferred in [false, true] {
                    let can = pods.iter().any(|pod| pod.serves(target, preferred));
                    prop_assert_eq!(can, used.iter().any(|pod| pod.serves(target, preferred)), "{}", target);
                }
            }
            let none_serves = !pods.iter().any(|pod| pod.serves);
            let retained = |pod: &(usize, &Pod)| standings[pod.0] == RETAINED;
            let retained: Vec<_> = pods.iter().enumerate().filter(retained).map(|(_, pod)| pod).collect();
            prop_assert!(retained.iter().filter(|pod| pod.is_writable_primary()).count() <= 1, "two primaries");
            for (pod, standing) in pods.iter().zip(&standings) {
                prop_assert_eq!(pod.absent.is_none(), standing.is_none());
                prop_assert!(*standing != RETAINED || pod.serves || none_serves, "retains a Pod that does not serve");
            }
            if missing(&pods, requested) == 0 && !none_serves {
                prop_assert!(retained.is_empty(), "retains a Pod although named Pods serve every requested target");
            }
            // The decision is stable: applying it does not change it.
            let applied: Vec<_> = pods.iter().zip(&standings).map(|(pod, s)| Pod { absent: *s, ..*pod }).collect();
            prop_assert_eq!(super::standings(&applied, requested), standings);
        }
    }
}
