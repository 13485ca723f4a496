//! The actions of a random history.

use proptest::prelude::*;

use super::PODS;

/// The behavior of a server when it is probed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Behavior {
    /// The probe passes.
    Passes,
    /// The connection is refused.
    Refuses,
    /// No connection to the Pod receives anything.
    Hangs,
    /// The probe's connection receives nothing, but another connection does.
    Stalls,
    /// The server has no free connection slot for the probe (53300).
    Full,
}

/// One action of a history. A `usize` is the number of a Pod.
///
/// The `bool` of `BreakConnection` and `EndSession` is true if the connection is older than the last purge of its Pod.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Behave(usize, Behavior),
    /// The server becomes the primary of a new timeline.
    Promote(usize),
    /// The server becomes the primary of the first timeline again.
    RevertToOldPrimary(usize),
    BecomeStandby(usize),
    /// The server becomes a primary of another cluster, on a much higher timeline.
    JoinOtherCluster(usize),
    /// A connection breaks.
    BreakConnection(usize, bool),
    /// The server ends a session with 57P01.
    EndSession(usize, bool),
    /// The server reports its role on a connection.
    ReportRole(usize),
    /// The server refuses a write.
    RefuseWrite(usize),
    /// The server's statements fail through its own fault.
    FailStatements(usize),
    /// A dial fails.
    FailDial(usize),
    /// The name resolves to the Pods of this bit set.
    Resolve(u8),
    /// Lookups fail.
    FailLookups,
    /// The name resolves to no Pods.
    ResolveToNone,
    /// A caller begins (true) or ends (false) to wait for a target that no Pod can serve.
    ProbeUrgently(bool),
}

/// Generates an action. Changes of the weights or their order invalidate the recorded regressions.
pub(super) fn any_action() -> impl Strategy<Value = Action> {
    use Action::*;
    let pod = || 0..PODS;
    let behavior = prop_oneof![
        4 => Just(Behavior::Passes),
        2 => Just(Behavior::Refuses),
        2 => Just(Behavior::Hangs),
        1 => Just(Behavior::Stalls),
        1 => Just(Behavior::Full),
    ];
    prop_oneof![
        8 => (pod(), behavior).prop_map(|(pod, behavior)| Behave(pod, behavior)),
        2 => pod().prop_map(Promote),
        1 => pod().prop_map(RevertToOldPrimary),
        2 => pod().prop_map(BecomeStandby),
        1 => pod().prop_map(JoinOtherCluster),
        2 => (pod(), any::<bool>()).prop_map(|(pod, old)| BreakConnection(pod, old)),
        2 => (pod(), any::<bool>()).prop_map(|(pod, old)| EndSession(pod, old)),
        2 => pod().prop_map(ReportRole),
        1 => pod().prop_map(RefuseWrite),
        1 => pod().prop_map(FailStatements),
        1 => pod().prop_map(FailDial),
        3 => any::<u8>().prop_map(Resolve),
        1 => Just(FailLookups),
        1 => Just(ResolveToNone),
        1 => any::<bool>().prop_map(ProbeUrgently),
    ]
}
