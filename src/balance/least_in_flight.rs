use super::{Candidates, Policy, Rng};

/// Of two different Pods drawn at random, the one with fewer connections lent out; on a tie, either.
///
/// Use it when the Pods are alike and each client keeps several connections busy: the count then shows a slow Pod by
/// itself, because its connections come back late. Two choices are enough to keep the fullest Pod close to the average
/// (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), they cost the same for three Pods
/// as for a thousand, and unlike a scan they do not send every client to the same Pod at once. The two are different
/// Pods: drawn with replacement, a busy Pod could be compared with itself and win.
///
/// It sees this process's connections only. Where each of many clients has next to nothing in flight, the counts are
/// nearly always zero and it comes down to a fair random choice.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LeastInFlight;

impl LeastInFlight {
    /// The policy.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Policy for LeastInFlight {
    #[inline]
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let n = candidates.len();
        if n < 2 {
            return n.checked_sub(1);
        }
        let first = rng.below(n);
        let mut second = rng.below(n - 1);
        second += usize::from(second >= first);
        Some(if candidates.in_flight(second) < candidates.in_flight(first) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{
        slot::{Slab, SlotHandle},
        snapshot::Candidate,
    };

    struct Pods {
        slab: Slab,
        handles: Vec<SlotHandle>,
        list: Vec<Candidate>,
    }

    fn pods(n: u32) -> Pods {
        let mut slab = Slab::default();
        let handles: Vec<_> = (0..n).map(|_| slab.take()).collect();
        let list = handles.iter().map(|h| Candidate { slot: h.number() }).collect();
        Pods { slab, handles, list }
    }

    fn shares(pods: &Pods, picks: usize) -> Vec<usize> {
        let slots = pods.slab.slots();
        let candidates = Candidates::new(&slots, &pods.list);
        let (policy, mut rng) = (LeastInFlight::new(), Rng::seeded(42));
        let mut shares = vec![0; pods.list.len()];
        (0..picks).for_each(|_| shares[policy.pick(&candidates, &mut rng).unwrap()] += 1);
        shares
    }

    #[test]
    fn nothing_to_choose_from_gives_nothing() {
        let pods = pods(0);
        let slots = pods.slab.slots();
        assert_eq!(LeastInFlight.pick(&Candidates::new(&slots, &[]), &mut Rng::seeded(1)), None);
    }

    #[test]
    fn equal_pods_get_equal_shares() {
        for n in [1, 2, 3, 20] {
            let shares = shares(&pods(n), 20_000 * n as usize);
            assert!(shares.iter().all(|&share| (19_000..21_000).contains(&share)), "{shares:?}");
        }
    }

    #[test]
    fn the_busiest_pod_is_never_picked_while_another_is_less_busy() {
        let pods = pods(5);
        pods.handles[3].checkout();
        let shares = shares(&pods, 10_000);
        assert_eq!(shares[3], 0, "{shares:?}");
        assert!(shares.iter().enumerate().all(|(i, &share)| i == 3 || share > 2_000), "{shares:?}");
    }
}
