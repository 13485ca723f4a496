use std::{any::Any, sync::Arc};

use super::{Candidates, LeastCost, LeastInFlight, PeakEwma, Policy, Random, Rng, RoundRobin};
use crate::config::PolicyName;

/// The policy in use: ours without a virtual call, a user's with one.
#[derive(Clone, Debug)]
pub(crate) enum Chooser {
    LeastCost(LeastCost),
    LeastInFlight(LeastInFlight),
    PeakEwma(PeakEwma),
    Random(Random),
    RoundRobin(Arc<RoundRobin>),
    Custom(Arc<dyn Policy>),
}

impl Chooser {
    /// This policy, as itself if it is one of ours.
    pub(crate) fn new(policy: impl Policy) -> Self {
        let any: &dyn Any = &policy;
        if let Some(ours) = any.downcast_ref() {
            Self::LeastCost(*ours)
        } else if let Some(ours) = any.downcast_ref() {
            Self::LeastInFlight(*ours)
        } else if let Some(ours) = any.downcast_ref() {
            Self::PeakEwma(*ours)
        } else if let Some(ours) = any.downcast_ref() {
            Self::Random(*ours)
        } else if any.is::<RoundRobin>() {
            Self::RoundRobin(Arc::default())
        } else {
            Self::Custom(Arc::new(policy))
        }
    }

    /// The policy of that name.
    pub(crate) fn named(name: PolicyName) -> Self {
        match name {
            PolicyName::LeastCost => Self::new(LeastCost::new()),
            PolicyName::LeastInFlight => Self::new(LeastInFlight::new()),
            PolicyName::PeakEwma => Self::new(PeakEwma::new()),
            PolicyName::Random => Self::new(Random::new()),
            PolicyName::RoundRobin => Self::new(RoundRobin::new()),
        }
    }

    /// The policy that can often choose without looking around, if it is the one in use.
    #[inline(always)]
    pub(crate) fn quick(&self) -> Option<&LeastCost> {
        match self {
            Self::LeastCost(policy) => Some(policy),
            _ => None,
        }
    }

    /// The choice; of a quick policy that which looks around.
    #[inline]
    pub(crate) fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        match self {
            Self::LeastCost(policy) => policy.look_around(candidates, rng),
            Self::LeastInFlight(policy) => policy.pick(candidates, rng),
            Self::PeakEwma(policy) => policy.pick(candidates, rng),
            Self::Random(policy) => policy.pick(candidates, rng),
            Self::RoundRobin(policy) => policy.pick(candidates, rng),
            Self::Custom(policy) => policy.pick(candidates, rng).filter(|&place| place < candidates.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pods;

    #[derive(Debug)]
    struct Beyond;

    impl Policy for Beyond {
        fn pick(&self, candidates: &Candidates<'_>, _: &mut Rng) -> Option<usize> {
            Some(candidates.len())
        }
    }

    #[test]
    fn ours_are_called_directly_and_what_a_users_policy_says_is_checked() {
        assert!(matches!(Chooser::new(LeastCost::new()), Chooser::LeastCost(_)));
        assert!(matches!(Chooser::new(LeastInFlight::new()), Chooser::LeastInFlight(_)));
        assert!(matches!(Chooser::new(PeakEwma::new()), Chooser::PeakEwma(_)));
        assert!(matches!(Chooser::new(Random::new()), Chooser::Random(_)));
        assert!(matches!(Chooser::new(RoundRobin::new()), Chooser::RoundRobin(_)));
        let custom = Chooser::new(Beyond);
        assert!(matches!(custom, Chooser::Custom(_)));
        assert_eq!(Pods::new(3).with(|candidates| custom.pick(candidates, &mut Rng::seeded(1))), None);
    }

    #[test]
    fn a_name_stands_for_its_policy() {
        for name in ["least-cost", "least-in-flight", "peak-ewma", "random", "round-robin"] {
            let chooser = format!("{:?}", Chooser::named(name.parse().unwrap()));
            let variant: String = chooser.chars().take_while(|c| *c != '(').collect();
            assert_eq!(variant.to_lowercase(), name.replace('-', ""));
        }
    }

    #[test]
    fn nothing_to_choose_from_gives_nothing() {
        let policies = [
            Chooser::new(LeastCost::new()),
            Chooser::new(LeastInFlight::new()),
            Chooser::new(PeakEwma::new()),
            Chooser::new(Random::new()),
            Chooser::new(RoundRobin::new()),
        ];
        for policy in policies {
            let picked = Pods::new(0).with(|candidates| policy.pick(candidates, &mut Rng::seeded(1)));
            assert_eq!(picked, None, "{policy:?}");
            let picked = Pods::new(1).with(|candidates| policy.pick(candidates, &mut Rng::seeded(1)));
            assert_eq!(picked, Some(0), "{policy:?}");
        }
    }
}
