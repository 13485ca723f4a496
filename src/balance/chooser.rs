use std::{any::Any, sync::Arc};

use super::{Candidates, LeastCost, LeastInFlight, PeakEwma, Policy, Random, Rng, RoundRobin};
use crate::config::PolicyName;

/// The policy in use. Built-in policies are called directly, and a custom policy of the application through dynamic
/// dispatch.
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
    /// Creates a chooser for a policy. Recognizes built-in policies by their type.
    pub(crate) fn new(policy: impl Policy) -> Self {
        let any: &dyn Any = &policy;
        if let Some(policy) = any.downcast_ref() {
            Self::LeastCost(*policy)
        } else if let Some(policy) = any.downcast_ref() {
            Self::LeastInFlight(*policy)
        } else if let Some(policy) = any.downcast_ref() {
            Self::PeakEwma(*policy)
        } else if let Some(policy) = any.downcast_ref() {
            Self::Random(*policy)
        } else if any.is::<RoundRobin>() {
            Self::RoundRobin(Arc::default())
        } else {
            Self::Custom(Arc::new(policy))
        }
    }

    /// Creates a chooser for the built-in policy with this name.
    pub(crate) fn named(name: PolicyName) -> Self {
        match name {
            PolicyName::LeastCost => Self::new(LeastCost::new()),
            PolicyName::LeastInFlight => Self::new(LeastInFlight::new()),
            PolicyName::PeakEwma => Self::new(PeakEwma::new()),
            PolicyName::Random => Self::new(Random::new()),
            PolicyName::RoundRobin => Self::new(RoundRobin::new()),
        }
    }

    /// Replaces a custom policy by the result of `wrap`. A built-in policy stays unchanged.
    pub(crate) fn wrap_custom(self, wrap: impl FnOnce(Arc<dyn Policy>) -> Arc<dyn Policy>) -> Self {
        match self {
            Self::Custom(policy) => Self::Custom(wrap(policy)),
            built_in => built_in,
        }
    }

    /// Returns the policy if it is [`LeastCost`], the only one with a fast path.
    #[inline(always)]
    pub(crate) fn fast_path(&self) -> Option<&LeastCost> {
        match self {
            Self::LeastCost(policy) => Some(policy),
            _ => None,
        }
    }

    /// Chooses a candidate, without the [fast path](Self::fast_path).
    #[inline]
    pub(crate) fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        match self {
            Self::LeastCost(policy) => policy.compare(candidates, rng),
            Self::LeastInFlight(policy) => policy.pick(candidates, rng),
            Self::PeakEwma(policy) => policy.pick(candidates, rng),
            Self::Random(policy) => policy.pick(candidates, rng),
            Self::RoundRobin(policy) => policy.pick(candidates, rng),
            Self::Custom(policy) => policy.pick(candidates, rng).filter(|&index| index < candidates.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pods;

    #[derive(Debug)]
    struct OutOfRange;

    impl Policy for OutOfRange {
        fn pick(&self, candidates: &Candidates<'_>, _: &mut Rng) -> Option<usize> {
            Some(candidates.len())
        }
    }

    #[test]
    fn recognizes_built_in_policies_and_checks_custom_indexes() {
        assert!(matches!(Chooser::new(LeastCost::new()), Chooser::LeastCost(_)));
        assert!(matches!(Chooser::new(LeastInFlight::new()), Chooser::LeastInFlight(_)));
        assert!(matches!(Chooser::new(PeakEwma::new()), Chooser::PeakEwma(_)));
        assert!(matches!(Chooser::new(Random::new()), Chooser::Random(_)));
        assert!(matches!(Chooser::new(RoundRobin::new()), Chooser::RoundRobin(_)));
        let custom = Chooser::new(OutOfRange);
        assert!(matches!(custom, Chooser::Custom(_)));
        assert_eq!(Pods::new(3).with(|candidates| custom.pick(candidates, &mut Rng::seeded(1))), None);
    }

    #[test]
    fn each_name_selects_its_policy() {
        for name in ["least-cost", "least-in-flight", "peak-ewma", "random", "round-robin"] {
            let chooser = format!("{:?}", Chooser::named(name.parse().unwrap()));
            let variant: String = chooser.chars().take_while(|c| *c != '(').collect();
            assert_eq!(variant.to_lowercase(), name.replace('-', ""));
        }
    }

    #[test]
    fn built_in_policies_handle_zero_and_one_candidate() {
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
