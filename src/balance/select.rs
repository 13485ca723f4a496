use super::{Candidates, Chooser, LeastCost, Rng};
use crate::endpoint::snapshot::{Candidate, Snapshot};

/// What `take` gives for the first choice of a [quick](Chooser::quick) policy, where all weights are the same and the
/// policy need not look around; `None` where it must, or `take` gives nothing: then [`select`] begins anew.
///
/// These two, one after the other, are the one way from a snapshot to a Pod: the checkout, the benches and the simulator
/// all come through here.
// By itself, so that the way that is nearly always taken while Pods are idle is short and calls nothing.
#[inline(always)]
pub(crate) fn select_at_once<P, R>(
    snapshot: &Snapshot<P>,
    target: usize,
    policy: &LeastCost,
    rng: &mut Rng,
    take: impl FnOnce(&P) -> Option<R>,
) -> Option<R> {
    let list = snapshot.even_candidates(target);
    let first = policy.at_once(Candidates::new(snapshot, list), rng)?;
    take(snapshot.find(list.get(first)?.slot)?)
}

/// Goes through the candidates of a target in the policy's order, until `take` gives something. `missed` hears of the
/// first choice, if it gave nothing; `rest` is scratch space, kept so that it need not be allocated again.
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

/// Goes on after the first choice. Apart, so that the checkout holds no more than the way that is nearly always taken.
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
    while let Some(place) = chooser.pick(&Candidates::new(snapshot, rest), rng) {
        let candidate = rest.swap_remove(place);
        if let Some(taken) = take(snapshot.pod(candidate)) {
            return Some(taken);
        }
    }
    None
}
