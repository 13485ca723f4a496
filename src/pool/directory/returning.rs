//! The return of an ejected primary. A primary that was unresponsive or partitioned may have been replaced while it was
//! ejected. The pool learns of a promotion only from the promoted Pod, so before the former primary returns, all other
//! Pods that pass their probes must respond to a probe that was sent after the primary passed its own.

use super::{Directory, Member};
use crate::{
    endpoint::Role,
    health::{State, state::HealthEvent},
    time::Instant,
};

impl Directory {
    /// Returns true if a Pod that has passed a probe is an ejected primary that must not return yet. Requests the
    /// probes of the other Pods.
    pub(super) fn must_ask_others(&mut self, serial: u64, role: Role, now: Instant) -> bool {
        let Some(member) = self.find(serial) else { return false };
        if member.health.state() != State::Ejected || role != Role::Primary {
            member.returning_since = None;
            return false;
        }
        let since = *member.returning_since.get_or_insert(now);
        let missing = self.not_asked_since(serial, since);
        if !missing {
            self.find(serial).into_iter().for_each(|member| member.returning_since = None);
        }
        missing
    }

    /// Applies the passed probes of ejected primaries that were waiting for the other Pods.
    pub(super) fn return_primaries(&mut self, now: Instant) {
        let returning = |member: &Member| Some((member.pod.serial, member.returning_since?));
        let returning: Vec<_> = self.members.all().iter().filter_map(returning).collect();
        for (serial, since) in returning {
            if self.not_asked_since(serial, since) {
                continue;
            }
            let alone = self.is_alone(serial, Role::Primary);
            let Some(member) = self.find(serial) else { continue };
            member.returning_since = None;
            let endpoint = member.pod.endpoint.clone();
            let returned = self.apply(serial, HealthEvent::Passed { alone }, now, None);
            self.on_probe_passed(&endpoint, returned, now);
            self.judge(serial);
        }
    }

    /// Returns true if another Pod passes its probes, but no probe of it that was sent at `since` or later has passed,
    /// and none has failed since then. Requests the probes of such Pods. A probe can fail although the Pod counts as
    /// passing, for example if its server has no free connection slot.
    fn not_asked_since(&self, serial: u64, since: Instant) -> bool {
        let others = self.members.all().iter().filter(|member| member.pod.serial != serial && member.passes_probes());
        let has_passed = |member: &Member| member.last_probe.is_some_and(|probe| probe.sent >= since);
        let has_failed = |member: &Member| member.probe_failed_at.is_some_and(|failed_at| failed_at >= since);
        let missing = others.filter(|member| !has_passed(member) && !has_failed(member));
        missing.inspect(|member| member.pod.server.probe_wanted.notify_one()).count() > 0
    }

    /// Returns true if no other Pod with this role serves. Pods with a different role are ignored: serving standbys
    /// cannot replace the only primary.
    pub(super) fn is_alone(&self, serial: u64, role: Role) -> bool {
        let same_role = |member: &&Member| member.pod.serial != serial && member.role == role;
        !self.members.all().iter().filter(same_role).any(Member::serves)
    }
}
