//! The requirement of a caller: a target (the requested role), and optionally a limit on the age of a server's data.
//!
//! Callers with equal requirements form a class. A limit is rounded down to one of the [`STEPS`], so that all classes
//! fit into one bit set: bit `i` is the target with index `i` without a limit, and the higher bits are the targets in
//! [`LIMITED`], each with every step.
//!
//! The age of a server's data grows as time passes, so no task can announce when a Pod stops fulfilling a limit.
//! [`served`] therefore reads a clock. It is called only if a caller with a limit is looking for a connection or waits
//! for one.

use crate::{config::Target, endpoint::slot::Slot, system::clock, time::Duration};

/// The limits. Zero is fulfilled only by a primary.
pub(crate) const STEPS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

const TARGETS: usize = Target::ARRAY.len();
/// The targets for which a limit makes a difference: a standby can serve them while a primary serves.
const LIMITED: [Target; 4] = [Target::Any, Target::ReadOnly, Target::Standby, Target::PreferStandby];

/// Number of classes.
pub(crate) const CLASSES: usize = TARGETS + LIMITED.len() * STEPS.len();
const _: () = assert!(CLASSES < u32::BITS as usize);
/// The bits of all classes.
pub(crate) const ALL_BITS: u32 = (1 << CLASSES) - 1;

/// The time at the start of the clock: one year, so that data can be older than the process.
const OFFSET: Duration = Duration::from_secs(365 * 86_400);

/// The requirement of a caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Requirement {
    target: Target,
    class: u8,
}

impl Requirement {
    /// Creates a requirement with a limit. The target `prefer-primary` becomes `primary`: a standby serves it only
    /// while there is no primary, and the age of the standby's data is then unknown.
    pub(crate) fn new(target: Target, max_lag: Option<Duration>) -> Self {
        let Some(limit) = max_lag else { return target.into() };
        let Some(kind) = LIMITED.iter().position(|limited| *limited == target) else {
            return if target == Target::PreferPrimary { Target::Primary.into() } else { target.into() };
        };
        let step = STEPS.partition_point(|step| *step <= limit) - 1;
        Self { target, class: (TARGETS + kind * STEPS.len() + step) as u8 }
    }

    #[inline]
    pub(crate) fn target(self) -> Target {
        self.target
    }

    /// Returns the number of the class.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.class.into()
    }

    /// Returns the bit of the class.
    #[inline]
    pub(crate) fn bit(self) -> u32 {
        1 << self.class
    }

    /// Returns the limit's number in [`STEPS`], if there is a limit.
    #[inline]
    pub(crate) fn step(self) -> Option<usize> {
        self.index().checked_sub(TARGETS).map(|limited| limited % STEPS.len())
    }

    /// Returns true if there is no limit, or the Pod fulfills the requirement with its limit now.
    pub(crate) fn is_within_limit(self, slot: &Slot) -> bool {
        self.step().is_none() || serves(slot, self.bit())
    }

    /// Returns the limit after rounding.
    pub(crate) fn limit(self) -> Option<Duration> {
        self.step().map(|step| STEPS[step])
    }
}

impl From<Target> for Requirement {
    #[inline]
    fn from(target: Target) -> Self {
        Self { target, class: target.index() as u8 }
    }
}

/// Returns the targets that these classes request.
pub(crate) fn targets(classes: u32) -> u32 {
    let limited = LIMITED.iter().enumerate().filter(|(kind, _)| classes & steps(*kind) != 0);
    limited.fold(classes & Target::ALL_BITS, |bits, (_, target)| bits | target.bit())
}

/// Returns the bits of a limited target with all steps.
fn steps(kind: usize) -> u32 {
    ((1 << STEPS.len()) - 1) << (TARGETS + kind * STEPS.len())
}

/// Returns the current time in milliseconds, on the timeline of [`Slot::fresh_at`]. It includes the time for which the
/// machine was suspended.
pub(crate) fn now() -> u64 {
    millis(OFFSET + clock::since_start() + clock::suspended())
}

/// Returns a duration in milliseconds, rounded up.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Returns the classes that a Pod serves now.
pub(crate) fn served(slot: &Slot) -> u32 {
    let targets = slot.targets();
    let fulfilled = match slot.data_age(now) {
        Some(age) => STEPS.partition_point(|step| millis(*step) < age),
        None => STEPS.len(),
    };
    let mut classes = targets;
    for (kind, target) in LIMITED.iter().enumerate() {
        if targets & target.bit() != 0 {
            let below = ((1u32 << fulfilled) - 1) << (TARGETS + kind * STEPS.len());
            classes |= steps(kind) & !below;
        }
    }
    classes
}

/// Returns those of these classes that a Pod serves now.
#[inline]
pub(crate) fn served_of(slot: &Slot, classes: u32) -> u32 {
    classes & if classes > Target::ALL_BITS { served(slot) } else { slot.targets() }
}

/// Returns true if a Pod serves one of these classes now.
#[inline]
pub(crate) fn serves(slot: &Slot, classes: u32) -> bool {
    slot.serves(classes) || classes > Target::ALL_BITS && served(slot) & classes != 0
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use super::*;

    fn slot(targets: &[Target]) -> Slot {
        let slot = Slot::default();
        slot.set_targets(targets.iter().fold(0, |bits, target| bits | target.bit()));
        slot
    }

    #[test]
    fn every_requirement_has_its_own_class() {
        let mut classes = 0;
        for target in Target::ARRAY {
            let requirement = Requirement::from(target);
            assert_eq!((requirement.bit(), requirement.step()), (target.bit(), None));
            classes |= requirement.bit();
        }
        for target in LIMITED {
            for (step, limit) in STEPS.into_iter().enumerate() {
                let requirement = Requirement::new(target, Some(limit));
                assert_eq!(
                    (requirement.target(), requirement.step(), requirement.limit()),
                    (target, Some(step), Some(limit))
                );
                assert_eq!(classes & requirement.bit(), 0, "{target}, {limit:?}");
                assert_eq!(targets(requirement.bit()), target.bit());
                classes |= requirement.bit();
            }
        }
        assert_eq!(classes, ALL_BITS);
        assert_eq!(targets(ALL_BITS), Target::ALL_BITS);
    }

    #[test]
    fn limits_are_rounded_down() {
        let limit = |limit| Requirement::new(Target::Standby, Some(limit)).limit();
        assert_eq!(limit(Duration::from_millis(249)), Some(Duration::ZERO));
        assert_eq!(limit(Duration::from_millis(999)), Some(Duration::from_millis(250)));
        assert_eq!(limit(Duration::from_secs(5)), Some(Duration::from_secs(3)));
        assert_eq!(limit(Duration::MAX), Some(Duration::from_secs(60)));
        for target in [Target::Primary, Target::ReadWrite, Target::PreferPrimary] {
            assert_eq!(Requirement::new(target, Some(Duration::ZERO)).limit(), None, "{target}");
        }
    }

    #[test]
    fn a_pod_serves_the_limits_that_its_data_fulfills() {
        let standby = slot(&[Target::Any, Target::Standby]);
        let serves =
            |target, seconds: u64| serves(&standby, Requirement::new(target, Some(Duration::from_secs(seconds))).bit());
        assert!(!serves(Target::Standby, 60), "the age is unknown");
        let now = now();
        standby.set_fresh_at(Some(now));
        assert!(serves(Target::Standby, 3) && serves(Target::Any, 60) && !serves(Target::Standby, 0));
        assert!(!serves(Target::ReadOnly, 60) && !serves(Target::PreferStandby, 60), "not a candidate");
        standby.set_fresh_at(Some(now - 5_000));
        assert!(!serves(Target::Standby, 3) && serves(Target::Any, 10));
        standby.set_fresh_at(None);
        assert!(!serves(Target::Standby, 60));
        let primary = slot(&[Target::Any]);
        primary.set_is_current(true);
        assert!(super::serves(&primary, Requirement::new(Target::Any, Some(Duration::ZERO)).bit()));
        primary.set_is_current(false);
        assert!(!super::serves(&primary, Requirement::new(Target::Any, Some(Duration::MAX)).bit()));
        assert!(super::serves(&primary, Target::Any.bit()), "without a limit, the age does not matter");
    }
}
