//! Reports the periods in which no Pod is healthy, and those in which no Pod serves writes.

use super::{Directory, member::Member};
use crate::{
    config::Target,
    endpoint::{Endpoint, Role},
    event::Event,
    health::State,
    sync::lock,
    time::{Duration, Instant},
};

/// The events about missing Pods that were emitted, and the start of the period that the next one is about.
#[derive(Debug)]
pub(super) struct Outages {
    healthy: Presence,
    primary: Presence,
    /// The Pod that was the primary last.
    last_primary: Option<Endpoint>,
}

/// Whether something exists, and what was reported about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Presence {
    Present,
    /// It has not existed since then. `reported` is true after an event about this.
    Absent {
        since: Instant,
        reported: bool,
    },
}

impl Presence {
    /// Records that it exists. Returns the time for which it did not, and whether that was reported.
    fn found(&mut self, now: Instant) -> Option<(Duration, bool)> {
        match std::mem::replace(self, Self::Present) {
            Self::Present => None,
            Self::Absent { since, reported } => Some((now.saturating_duration_since(since), reported)),
        }
    }

    /// Records that it does not exist. Returns true if this must be reported now, because `is_certain` is true and it
    /// has not been reported before.
    fn missed(&mut self, now: Instant, is_certain: bool) -> bool {
        let (since, reported) = match *self {
            Self::Present => (now, false),
            Self::Absent { since, reported } => (since, reported),
        };
        *self = Self::Absent { since, reported: reported || is_certain };
        is_certain && !reported
    }
}

impl Outages {
    /// Creates the state of a new pool, which has neither a healthy Pod nor a primary.
    pub(super) fn new(now: Instant) -> Self {
        let absent = Presence::Absent { since: now, reported: false };
        Self { healthy: absent, primary: absent, last_primary: None }
    }
}

impl Directory {
    /// Emits events if the last healthy Pod or the primary was lost, or exists again. While the name has no Pods,
    /// nothing is known about them, so nothing is emitted.
    pub(super) fn report_outages(&mut self, now: Instant) {
        let members: Vec<_> = self.members.all().iter().filter(|member| !member.is_alternative()).collect();
        if members.is_empty() {
            return;
        }
        // A Pod is unknown until its first probe or dial has ended.
        let all_known = members
            .iter()
            .all(|member| member.health.state() != State::Probing || lock(&member.pod.last_failure).last().is_some());
        let mut events = Vec::new();
        if members.iter().any(|member| member.serves()) {
            if let Some((after, true)) = self.outages.healthy.found(now) {
                events.push(Event::HealthyPodsAgain { after });
            }
        } else if self.outages.healthy.missed(now, all_known) {
            events.push(Event::NoHealthyPods { pods: members.len(), cause: describe_all(&members).into() });
        }
        // A primary whose role must be verified again is not lost yet.
        let has_primary = members.iter().any(|member| member.role == Role::Primary && member.serves());
        if let Some(primary) = members.iter().find(|member| member.is_primary()) {
            let endpoint = &primary.pod.endpoint;
            let found = self.outages.primary.found(now);
            if self.outages.last_primary.as_ref() != Some(endpoint) || matches!(found, Some((_, true))) {
                let after = found.filter(|(_, reported)| *reported).map(|(after, _)| after);
                events.push(Event::PrimaryFound { endpoint: endpoint.clone(), after });
            }
            self.outages.last_primary = Some(endpoint.clone());
        } else if !has_primary {
            let is_wanted = self.outages.last_primary.is_some() || self.requested_targets & Target::Primary.bit() != 0;
            if self.outages.primary.missed(now, all_known && is_wanted) {
                let endpoint = self.outages.last_primary.clone();
                let cause = match &endpoint {
                    Some(endpoint) => match members.iter().find(|member| member.pod.endpoint == *endpoint) {
                        Some(member) => describe(member),
                        None => "is no longer behind the Service".into(),
                    },
                    None => describe_all(&members),
                };
                events.push(Event::PrimaryLost { endpoint, cause: cause.into() });
            }
        }
        drop(members);
        for event in events {
            self.group.events.emit(event);
        }
    }
}

/// Describes why a Pod is not used, or which role it has. The text continues one that begins with the Pod.
fn describe(member: &Member) -> String {
    if let Some(fence) = member.fence {
        return format!("is fenced: {fence}");
    }
    if member.is_detached() {
        return "is absent from DNS".into();
    }
    if member.health.state() == State::Healthy {
        return format!("is now {}", member.role);
    }
    match lock(&member.pod.last_failure).last() {
        Some((_, attempt)) => attempt.reason(),
        None => format!("is {}", member.health.state()),
    }
}

/// Describes each Pod, with its name and address.
fn describe_all(members: &[&Member]) -> String {
    let pods: Vec<_> = members.iter().map(|member| format!("{} {}", member.pod.endpoint, describe(member))).collect();
    pods.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_is_reported_once_and_only_when_certain() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut presence = Outages::new(start).primary;
        assert!(!presence.missed(at(1), false));
        assert!(presence.missed(at(2), true));
        assert!(!presence.missed(at(3), true));
        assert_eq!(presence.found(at(4)), Some((Duration::from_secs(4), true)));
        assert_eq!(presence.found(at(5)), None);
        assert!(!presence.missed(at(6), false));
        assert_eq!(presence.found(at(8)), Some((Duration::from_secs(2), false)));
        assert!(presence.missed(at(9), true));
    }
}
