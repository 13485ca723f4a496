//! The steps of a random history.

use proptest::prelude::*;

use super::TARGETS;

/// One step of a random history. Each `usize` in `Cancel` to `Purge` selects a caller or a Pod: it is an index modulo
/// the number of callers or Pods.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A caller enters the queue. The number is the index of its target (requested role) in [`TARGETS`].
    Enter(usize),
    /// A waiting caller is cancelled.
    Cancel(usize),
    /// A caller returns its connection.
    Return(usize),
    /// A Pod is added. True adds a primary, false a standby.
    Add(bool),
    /// A Pod is drained.
    Drain(usize),
    /// A Pod changes its role. True makes it a primary, false a standby.
    Role(usize, bool),
    /// From now on, a dial to the Pod takes this many milliseconds. True lets the dials succeed, false lets them fail.
    Dial(usize, u64, bool),
    /// A Pod's idle connections are closed.
    Purge(usize),
    /// The pool's maximum number of pooled connections changes.
    Limit(usize),
    /// This many milliseconds pass.
    Pass(u64),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let which = any::<usize>();
    prop_oneof![
        8 => (0..TARGETS.len()).prop_map(Step::Enter),
        3 => which.prop_map(Step::Cancel),
        6 => which.prop_map(Step::Return),
        1 => any::<bool>().prop_map(Step::Add),
        1 => which.prop_map(Step::Drain),
        1 => (which, any::<bool>()).prop_map(|(pod, primary)| Step::Role(pod, primary)),
        3 => (which, prop_oneof![Just(5u64), Just(100), Just(2000)], any::<bool>())
            .prop_map(|(pod, millis, succeeds)| Step::Dial(pod, millis, succeeds)),
        1 => which.prop_map(Step::Purge),
        1 => (1usize..6).prop_map(Step::Limit),
        6 => prop_oneof![Just(3u64), Just(60), Just(300), Just(1500)].prop_map(Step::Pass),
    ]
}
