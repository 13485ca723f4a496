use super::{Candidates, Chooser, LeastCost, Rng};
use crate::endpoint::snapshot::{Candidate, Snapshot};

/// Selects a Pod by the [fast path](Chooser::fast_path) of a policy: draws one Pod at random and calls `take` for it.
/// Returns `None` if that Pod is busy or slow, if `take` returns `None`, or if weights differ. The caller then calls
/// [`select`].
///
/// Checkouts, benchmarks and simulations all select Pods with these two functions.
// This is a separate function, so that the most frequent path while Pods are idle is short and inlined completely.
#[inline(always)]
pub(crate) fn select_fast<P, R>(
    snapshot: &Snapshot<P>,
    target: usize,
    policy: &LeastCost,
    rng: &mut Rng,
    take: impl FnOnce(&P) -> Option<R>,
) -> Option<R> {
    let list = snapshot.even_candidates(target);
    let first = policy.draw_idle(Candidates::new(snapshot, list), rng)?;
    take(snapshot.find(list.get(first)?.slot)?)
}

/// Selects a Pod: calls `take` for the candidates of a target, in the policy's order, until `take` returns a result.
///
/// `missed` is called with the first candidate if `take` returns `None` for it. `rest` is scratch space, which the
/// caller keeps to avoid allocations.
#[inline]
pub(crate) fn select<P, R>(
    snapshot: &Snapshot<P>,
    target: usize,
    chooser: &Chooser,
    rng: &mut Rng,
    rest: &mut Vec<Candidate>,
    mut take: impl FnMut(&P) -> Option<R>,
    missed: impl FnOnce(&P),
) -> Option<R> {
    let list = snapshot.candidates(target);
    let first = chooser.pick(&Candidates::new(snapshot, list), rng)?;
    let pod = snapshot.pod(list[first]);
    if let Some(taken) = take(pod) {
        return Some(taken);
    }
    missed(pod);
    others(snapshot, list, first, chooser, rng, rest, take)
}

/// Calls `take` for the candidates other than the first, in the policy's order. Not inlined, to keep the most frequent
/// path of a checkout short.
#[cold]
#[inline(never)]
fn others<P, R>(
    snapshot: &Snapshot<P>,
    list: &[Candidate],
    first: usize,
    chooser: &Chooser,
    rng: &mut Rng,
    rest: &mut Vec<Candidate>,
    mut take: impl FnMut(&P) -> Option<R>,
) -> Option<R> {
    rest.clear();
    rest.extend_from_slice(list);
    rest.swap_remove(first);
    while let Some(index) = chooser.pick(&Candidates::new(snapshot, rest), rng) {
        let candidate = rest.swap_remove(index);
        if let Some(taken) = take(snapshot.pod(candidate)) {
            return Some(taken);
        }
    }
    None
}
