//! The role of the server that serves a call.
//!
//! A checkout verifies the role that the server last reported on the connection. The server may have changed its role
//! since then; the next probe reports it. Therefore a server with the wrong role is permitted for the time of a probe.
//! With `lag_fallback=primary`, the primary may replace standbys for the targets `standby` and `read-only`.
//!
//! `docs/failure-modes.md`: from PostgreSQL 14 on, "a connection reports a promotion with the response to its next
//! statement", so `retry` repeats a read that a promoted server has executed.

use std::{collections::BTreeMap, time::Duration};

use super::{
    bounds,
    history::{Event, History, Instance, Outcome, Role},
    pauses::Pauses,
    violation::{Violation, Violations},
};
use crate::adversary::{Fault, LagFallback, Target, Window, Work};

/// First major version of PostgreSQL that reports changes of the role.
const REPORTS_ROLE: u32 = 14;

/// The roles of the servers over time, as far as they report them. `docs/limits.md`: PostgreSQL 13 does not report
/// `default_transaction_read_only`.
pub(super) struct Roles(BTreeMap<Instance, Vec<(Duration, Option<Role>)>>);

impl Roles {
    pub(super) fn of(history: &History) -> Self {
        let mut roles: BTreeMap<Instance, Vec<_>> = BTreeMap::new();
        let reports = history.plan.topology.postgres >= REPORTS_ROLE;
        for record in &history.records {
            if let Event::Role { on, role } = record.event {
                let role = role.map(|role| Role { read_only: role.read_only && reports, ..role });
                roles.entry(on).or_default().push((record.at, role));
            }
        }
        Self(roles)
    }

    /// Returns the role of a server at a time. None if it is unknown, or if the server does not run.
    pub(super) fn at(&self, on: Instance, at: Duration) -> Option<Role> {
        let changes = self.0.get(&on)?;
        changes.iter().rev().find(|(since, _)| *since <= at)?.1
    }

    /// Returns the roles of a server from one time to another. None in the list means unknown or not running.
    pub(super) fn between(&self, on: Instance, from: Duration, to: Duration) -> Vec<Option<Role>> {
        let changes = self.0.get(&on).map_or(&[][..], Vec::as_slice);
        let within = changes.iter().filter(|(at, _)| from < *at && *at <= to).map(|(_, role)| *role);
        [self.at(on, from)].into_iter().chain(within).collect()
    }

    /// Returns the servers that have a role at a time.
    pub(super) fn running(&self, at: Duration) -> impl Iterator<Item = (Instance, Role)> {
        self.0.keys().filter_map(move |on| Some((*on, self.at(*on, at)?)))
    }
}

pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let (roles, calls, pauses) = (Roles::of(history), history.calls(), Pauses::of(history));
    let settings = &history.plan.settings;
    let window = bounds::probed(settings);
    for record in &history.records {
        let Event::CheckedOut { call, on, role, .. } = record.event else { continue };
        let Some(call) = calls.get(&call) else { continue };
        let target = call.target;
        if settings.lag_fallback == LagFallback::Primary && matches!(target, Target::Standby | Target::ReadOnly) {
            continue;
        }
        let is_wrong = |role: Role| !role.fits(target);
        let text = |which: &str| {
            format!("call {} with target {} received a connection to {on}, {which}", call.id.0, target.as_str())
        };
        if role.is_some_and(is_wrong) {
            violations.add(record.at, text("whose reported role does not fit"));
            continue;
        }
        let from = record.at.saturating_sub(window);
        // A stopped client learns nothing. Its first calls afterwards may precede the probes.
        let was_running = pauses.is_running(call.client, from, record.at);
        let past = roles.between(on, from, record.at);
        if was_running && past.iter().all(|role| role.is_some_and(is_wrong)) {
            violations.add(record.at, text(&format!("whose role has not fitted for {} ms", window.as_millis())));
        }
    }
    reads(history, &roles, &mut violations);
    violations.found()
}

/// Checks that the role of a Pod in the status is that of its server, if the Pod passes its probes and the server has
/// had the role for the time of a probe.
pub(super) fn known(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let (roles, pauses) = (Roles::of(history), Pauses::of(history));
    let window = bounds::probed(&history.plan.settings);
    if !bounds::has_slots(&history.plan) {
        return violations.found();
    }
    for record in &history.records {
        let Event::Sampled { client, pods } = &record.event else { continue };
        let from = record.at.saturating_sub(window);
        let hides =
            |fault: &Window| hides_role(&fault.fault) && fault.start <= record.at && from <= fault.end + bounds::HIDDEN;
        let was_running = record.at >= window && pauses.is_running(*client, from, record.at);
        if !was_running || history.plan.faults.iter().any(hides) {
            continue;
        }
        for pod in pods.iter().filter(|pod| pod.healthy) {
            let Some(standby) = pod.standby else { continue };
            let is_wrong = |role: &Option<Role>| role.is_some_and(|role| role.standby != standby);
            if roles.between(pod.on, from, record.at).iter().all(is_wrong) {
                let (on, seen) = (pod.on, if standby { "standby" } else { "primary" });
                let text = format!("client {client} takes {on} for a {seen}, which it has not been for");
                violations.add(record.at, format!("{text} {} ms", window.as_millis()));
            }
        }
    }
    violations.found()
}

/// Returns true for a fault in which a Pod may count as healthy although its probes get no answer: it refuses the login
/// or further connections, or so many Pods do not respond that the cause may be the client.
fn hides_role(fault: &Fault) -> bool {
    use Fault::*;
    matches!(fault.family(), "network" | "secret")
        || matches!(fault, Full { .. } | Hang { .. } | Slow { .. } | PowerLoss { .. } | NodeLost { .. })
}

/// Checks that the result of a read through `retry` is not that of a server that had another role when it executed the
/// read.
fn reads(history: &History, roles: &Roles, violations: &mut Violations) {
    let plan = &history.plan;
    if plan.topology.postgres < REPORTS_ROLE || plan.settings.lag_fallback == LagFallback::Primary {
        return;
    }
    let calls = history.calls();
    for record in &history.records {
        let Event::Read { call, on, .. } = record.event else { continue };
        let Some(call) = calls.get(&call).filter(|call| call.work == Work::Read) else { continue };
        let is_result = call.checkouts.last().is_some_and(|last| last.on == on && last.at <= record.at)
            && matches!(call.ended, Some((_, Outcome::Done)));
        let accepts_standbys = match call.target {
            Target::Primary => false,
            Target::Standby => true,
            _ => continue,
        };
        let past = roles.between(on, record.at.saturating_sub(bounds::TOLERANCE), record.at);
        if is_result && past.iter().all(|role| role.is_some_and(|role| role.standby != accepts_standbys)) {
            let (call, target) = (call.id.0, call.target.as_str());
            violations
                .add(record.at, format!("call {call} with target {target} returned what {on} read in another role"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::{
        history::{CallId, PodSample},
        testing::{POD, began, done, down, healthy, history, out, out_as, paused, role, sampled, texts},
    };

    fn found(events: impl IntoIterator<Item = (u64, Event)>) -> Vec<String> {
        texts(check("roles", &history(events)))
    }

    #[test]
    fn the_reported_role_must_fit() {
        let events = |target, role| [(0, began(1, target)), (1, out_as(1, POD, role))];
        assert_eq!(found(events(Target::Standby, Role::STANDBY)), [""; 0]);
        assert_eq!(found(events(Target::PreferStandby, Role::PRIMARY)), [""; 0]);
        let expected = "call 1 with target standby received a connection to pod-0, whose reported role does not fit";
        assert_eq!(found(events(Target::Standby, Role::PRIMARY)), [expected]);
        let read_only = Role { read_only: true, ..Role::PRIMARY };
        assert_eq!(found(events(Target::ReadOnly, read_only)), [""; 0]);
        assert_eq!(found(events(Target::ReadWrite, read_only)).len(), 1);
    }

    #[test]
    fn a_server_may_have_a_new_role_for_the_time_of_a_probe() {
        let events = |at| [(0, role(POD, Role::STANDBY)), (1000, role(POD, Role::PRIMARY)), (at, out(1, POD))];
        let found = |at| found([(0, began(1, Target::Standby))].into_iter().chain(events(at)));
        assert_eq!(found(5_000), [""; 0]);
        assert_eq!(found(13_000).len(), 1);
    }

    #[test]
    fn the_status_has_the_role_of_a_pod_that_passes_its_probes() {
        let events = |at, passes| {
            let sample = PodSample { healthy: passes, ..healthy(POD, true) };
            [(0, role(POD, Role::STANDBY)), (1_000, role(POD, Role::PRIMARY)), (at, sampled(&[sample]))]
        };
        let found = |at, passes| texts(known("known", &history(events(at, passes))));
        let window = bounds::probed(&Default::default()).as_millis() as u64;
        assert_eq!(found(999 + window, true), [""; 0]);
        let expected = format!("client 0 takes pod-0 for a standby, which it has not been for {window} ms");
        assert_eq!(found(1_000 + window, true), [expected]);
        assert_eq!(found(1_000 + window, false), [""; 0]);
    }

    #[test]
    fn unknown_roles_and_stopped_clients_are_not_judged() {
        let call = (0, began(1, Target::Standby));
        assert_eq!(found([call.clone(), (20_000, out(1, POD))]), [""; 0]);
        let restarted = [(0, role(POD, Role::PRIMARY)), (19_000, down(POD)), (19_500, role(POD, Role::PRIMARY))];
        assert_eq!(found([call.clone()].into_iter().chain(restarted).chain([(20_000, out(1, POD))])), [""; 0]);
        let stopped = [(0, role(POD, Role::PRIMARY)), (11_000, paused(true)), (19_999, paused(false))];
        assert_eq!(found([call].into_iter().chain(stopped).chain([(20_000, out(1, POD))])), [""; 0]);
    }

    #[test]
    fn a_read_of_a_promoted_server_is_repeated() {
        let read = |at| {
            let began = Event::Began {
                call: CallId(1),
                client: 0,
                caller: 0,
                work: Work::Read,
                target: Target::Standby,
                ids: Vec::new(),
            };
            let read = (at, Event::Read { call: CallId(1), on: POD, lacks_since: None });
            let roles = [(0, role(POD, Role::STANDBY)), (1_000, role(POD, Role::PRIMARY))];
            found(roles.into_iter().chain([(900, began), (900, out(1, POD)), read, (2_000, done(1))]))
        };
        assert_eq!(read(1_049), [""; 0]);
        assert_eq!(read(1_051), ["call 1 with target standby returned what pod-0 read in another role"]);
    }

    #[test]
    fn the_primary_may_replace_late_standbys_if_the_settings_say_so() {
        let mut history = history([(0, began(1, Target::Standby)), (1, out_as(1, POD, Role::PRIMARY))]);
        history.plan.settings.lag_fallback = LagFallback::Primary;
        assert_eq!(texts(check("roles", &history)), [""; 0]);
    }
}
