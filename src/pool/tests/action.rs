//! The random actions that make up a simulated history.

use proptest::prelude::*;

use super::PODS;

/// A server's response to a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Behavior {
    /// The probe passes.
    Passes,
    /// The server refuses the probe's connection.
    Refuses,
    /// The probe times out, and no other connection to the Pod receives data either.
    Hangs,
    /// The probe times out, but another connection to the Pod still receives data.
    Stalls,
    /// The server has no free connection slot for the probe (53300).
    Full,
}

/// An action in a history. Each `usize` is the index of a simulated Pod.
///
/// The `bool` of `BreakConnection` and `EndSession` is true if the connection was opened before all open connections of
/// the Pod were last invalidated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// From now on, the server responds to probes in this way.
    Behave(usize, Behavior),
    /// The server is promoted to primary on a new timeline.
    Promote(usize),
    /// The server returns as a stale primary, on the first timeline.
    RevertToOldPrimary(usize),
    BecomeStandby(usize),
    /// The server is replaced by the primary of another cluster. Its timeline is much higher.
    JoinOtherCluster(usize),
    /// A connection to the Pod is reset.
    BreakConnection(usize, bool),
    /// The server ends a session with 57P01.
    EndSession(usize, bool),
    /// The server reports its role on a connection.
    ReportRole(usize),
    /// The server refuses a write.
    RefuseWrite(usize),
    /// Too many statements fail with errors that are the server's fault.
    FailStatements(usize),
    /// A dial to the Pod fails.
    FailDial(usize),
    /// From now on, the name resolves to the Pods in this bit set.
    Resolve(u8),
    /// From now on, lookups fail.
    FailLookups,
    /// From now on, the name resolves to no Pods.
    ResolveToNone,
    /// True: a caller starts to wait for a role that no Pod can serve. False: it stops waiting.
    ProbeUrgently(bool),
}

/// Generates a random action. Changing the weights or their order invalidates the recorded proptest regressions.
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
