//! The random actions that a simulated history consists of.

use proptest::prelude::*;

use super::PODS;

/// A server's response to a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Behavior {
    /// The probe passes.
    Passes,
    /// The server refuses the probe's connection.
    Refuses,
    /// The probe times out, and no other connection to the Pod receives anything either.
    Hangs,
    /// The probe times out, but another connection to the Pod receives data.
    Stalls,
    /// The server has no free connection slot for the probe (53300).
    Full,
}

/// An action in a history. Each `usize` is the index of a simulated Pod.
///
/// The `bool` of `BreakConnection` and `EndSession` is true if the connection was opened before the Pod's last purge.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// The server changes its response to probes.
    Behave(usize, Behavior),
    /// The server is promoted to primary on a new timeline.
    Promote(usize),
    /// The server returns as an outdated primary, on the first timeline.
    RevertToOldPrimary(usize),
    BecomeStandby(usize),
    /// The server is replaced by the primary of another cluster, on a much higher timeline.
    JoinOtherCluster(usize),
    /// A connection to the Pod is reset.
    BreakConnection(usize, bool),
    /// The server ends a session with 57P01.
    EndSession(usize, bool),
    /// The server reports its role on a connection.
    ReportRole(usize),
    /// The server refuses a write.
    RefuseWrite(usize),
    /// Too many statements fail because of the server.
    FailStatements(usize),
    /// A dial to the Pod fails.
    FailDial(usize),
    /// From now on, the name resolves to the Pods in this bit set.
    Resolve(u8),
    /// From now on, lookups fail.
    FailLookups,
    /// From now on, the name resolves to no Pods.
    ResolveToNone,
    /// A caller starts (true) or stops (false) waiting for a target that no Pod can serve.
    ProbeUrgently(bool),
}

/// Generates an action. Changing the weights or their order invalidates the recorded proptest regressions.
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
