//! Pods that are absent from DNS: applies the decision of [`health::absence`](crate::health::absence) to the members,
//! drains detached Pods in time, and requests frequent lookups while a Pod or a role is missing.

use super::{Directory, absent::Absent, member::Member};
use crate::{
    endpoint::Endpoint,
    error::Attempt,
    event::Event,
    health::{
        State,
        absence::{self, Standing},
    },
    time::Instant,
    trace::pod_line,
};

impl Directory {
    /// Records which members are absent from DNS after a lookup that returned the Pods in `named`. `absent` contains
    /// the members whose absence is confirmed, and `gone` those of them that no longer exist.
    pub(super) fn set_absent(&mut self, named: &[Endpoint], absent: &[Endpoint], gone: &[Endpoint], now: Instant) {
        self.review_absences = true;
        for member in self.members.all_mut() {
            let endpoint = &member.pod.endpoint;
            if member.absent.is_some() && named.contains(endpoint) {
                member.absent = None;
                self.changed = true;
                self.group.events.emit(Event::EndpointReturned { endpoint: endpoint.clone() });
            } else if member.absent.is_none() && absent.contains(endpoint) {
                member.absent = Some(Absent::new(&member.pod, now));
                member.absence_is_new = true;
                self.changed = true;
            }
            if let Some(known) = &mut member.absent
                && absent.contains(endpoint)
            {
                known.absence.set_gone(gone.contains(endpoint));
            }
        }
    }

    /// Decides which absent Pods are used, and drains detached Pods whose time is over.
    pub(super) fn judge_absences(&mut self, now: Instant) {
        if !std::mem::take(&mut self.review_absences) && !self.changed {
            return;
        }
        let pods: Vec<_> = self.members.all().iter().map(Member::absence_input).collect();
        let requested = self.requested_targets;
        for (member, standing) in self.members.all_mut().iter_mut().zip(absence::standings(&pods, requested)) {
            let (Some(absent), Some(standing)) = (&mut member.absent, standing) else { continue };
            let is_new = std::mem::take(&mut member.absence_is_new);
            if !absent.absence.set(standing, now) && !is_new {
                continue;
            }
            absent.tests.set_retained(standing == Standing::Retained);
            self.changed = true;
            let endpoint = member.pod.endpoint.clone();
            self.group.events.emit(match standing {
                Standing::Retained => Event::EndpointRetained { endpoint },
                Standing::Detached => Event::EndpointDetached { endpoint },
            });
        }
        self.drain_absent(now, |member, linger_ends| linger_ends && member.is_detached());
        self.judge_lookups(absence::missing(&pods, requested), now);
    }

    /// Starts or ends frequent lookups. `missing` is the bit set of requested targets that no named Pod serves.
    fn judge_lookups(&mut self, missing: u32, now: Instant) {
        let is_lost = |member: &&Member| {
            let ejected = member.health.state() == State::Ejected;
            ejected || member.absent.is_some() || self.hosts.is_missing(&member.pod.endpoint)
        };
        let lost = self.members.all().iter().filter(is_lost).map(|member| member.pod.serial).collect();
        let group = &self.group;
        if self.losses.update(missing, lost) {
            group.lookups.begin(now);
            group.look_up_now();
        } else if self.losses.is_empty() {
            group.lookups.end();
        }
    }

    /// Drains a Pod whose server has refused a test dial.
    pub(super) fn on_test_refused(&mut self, serial: u64, attempt: Attempt, now: Instant) {
        let Some(member) = self.find(serial).filter(|member| member.absent.is_some()) else { return };
        let pod = &member.pod;
        pod_line!(info, pod, error = %attempt, "Pod drained: absent from DNS, and its server refuses connections");
        self.drain_absent(now, |member, _| member.pod.serial == serial);
    }

    /// Makes the test dial of an absent Pod now, because its server may have refused a connection.
    pub(super) fn test_now(&mut self, serial: u64) {
        if let Some(absent) = self.find(serial).and_then(|member| member.absent.as_ref()) {
            absent.tests.dial_now();
        }
    }

    /// Returns the earliest time at which a detached Pod must be drained.
    pub(super) fn next_absence_end(&self) -> Option<Instant> {
        let linger = self.group.limits.detach_linger;
        self.members.all().iter().filter_map(|member| member.absent.as_ref()?.absence.ends_at(linger)).min()
    }

    /// Drains the absent Pods that `selects` returns true for. Its second argument is true if the Pod has been detached
    /// for `detach_linger`.
    fn drain_absent(&mut self, now: Instant, selects: impl Fn(&Member, bool) -> bool) {
        let linger = self.group.limits.detach_linger;
        let is_over = |member: &Member| {
            let absent = member.absent.as_ref()?;
            let linger_ends = absent.absence.ends_at(linger).is_some_and(|at| at <= now);
            selects(member, linger_ends).then(|| member.pod.endpoint.clone())
        };
        let over: Vec<_> = self.members.all().iter().filter_map(is_over).collect();
        if over.is_empty() {
            return;
        }
        let known = self.known().into_iter().map(|(endpoint, _)| endpoint);
        let rest: Vec<_> = known.filter(|endpoint| !over.contains(endpoint)).collect();
        self.set_known(&rest, now);
        self.choose_subset(now);
    }
}

impl Member {
    /// Returns true if the Pod's absence from DNS is confirmed.
    pub(crate) fn is_absent(&self) -> bool {
        self.absent.is_some()
    }

    /// Returns true if the Pod is absent from DNS and must not be used.
    pub(crate) fn is_detached(&self) -> bool {
        self.standing() == Some(Standing::Detached)
    }

    /// Returns the standing of a Pod whose absence from DNS is confirmed.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.absent.as_ref().map(Absent::standing)
    }

    /// Returns the properties that determine whether absent Pods are used.
    fn absence_input(&self) -> absence::Pod {
        absence::Pod {
            serves: self.is_sound() && !self.is_late() && !self.is_alternative(),
            role: self.verified_role(),
            read_only: self.is_read_only(),
            absent: self.standing(),
            answered: self.last_probe.map(|probe| probe.received),
        }
    }
}
