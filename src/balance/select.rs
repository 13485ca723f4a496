use super::{Candidates, Chooser, Rng};
use crate::endpoint::snapshot::{Candidate, Snapshot};

/// Goes through the candidates of a target in the policy's order, until `take` gives something. `missed` hears of the
/// first choice, if it gave nothing; `rest` is scratch space, kept so that it need not be allocated again.
///
/// This is the one way from a snapshot to a Pod: the checkout, the benches and the simulator all come through here.
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
    let first = chooser.pick(Candidates::new(snapshot, list), rng)?;
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
    while let Some(place) = chooser.pick(Candidates::new(snapshot, rest), rng) {
        let candidate = rest.swap_remove(place);
        if let Some(taken) = take(snapshot.pod(candidate)) {
            return Some(taken);
        }
    }
    None
}
