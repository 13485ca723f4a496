//! The text of an event: its name, the Pod, what happened, and what follows from it.

use std::fmt;

use super::Event;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Some(endpoint) = self.endpoint() {
            write!(f, " {endpoint}")?;
        }
        match self {
            Self::StateChanged { from, to, cause, .. } => {
                write!(f, " {from} -> {to}")?;
                cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::RoleChanged { from, to, timeline, .. } => {
                write!(f, " {from} -> {to}")?;
                timeline.map_or(Ok(()), |timeline| write!(f, ", timeline {timeline}"))
            }
            Self::FencingHistoryForgotten { timeline: Some(timeline), cause } => {
                write!(f, " timeline {timeline}: {cause}")
            }
            Self::FencingHistoryForgotten { timeline: None, cause }
            | Self::ServerOversubscribed { cause, .. }
            | Self::CertificatesRefused { cause }
            | Self::EndpointFenced { cause, .. }
            | Self::StandbyLate { cause, .. }
            | Self::LoginFailed { cause, .. }
            | Self::SetupFailed { cause, .. }
            | Self::TlsFailed { cause, .. }
            | Self::ResolveFailed { cause, .. } => write!(f, ": {cause}"),
            Self::ResolveRecovered { source } => write!(f, ": {source}"),
            Self::SecurityChanged { from, to, .. } | Self::SecurityDowngraded { from, to, .. } => {
                write!(f, ": from {from} to {to}")
            }
            Self::EndpointAlternative { used, .. } => write!(f, ": the same server is used at {used}"),
            Self::Panicked { source, cause } => write!(f, " {source}: {cause}"),
            Self::PassfileIgnored { path, cause } => write!(f, " {}: {cause}", path.display()),
            Self::NoHealthyPods { pods: 1, cause } => write!(f, ": {cause}"),
            Self::NoHealthyPods { pods, cause } => write!(f, ": none of {pods} Pods: {cause}"),
            Self::HealthyPodsAgain { after } => write!(f, " after {after:.1?}"),
            Self::PrimaryLost { endpoint: Some(_), cause } => write!(f, " {cause}"),
            Self::PrimaryLost { endpoint: None, cause } => write!(f, ": no Pod is the primary: {cause}"),
            Self::PrimaryFound { after: Some(after), .. } => write!(f, " after {after:.1?} without a primary"),
            Self::PrimaryFound { after: None, .. } => f.write_str(" is the primary"),
            _ => Ok(()),
        }?;
        self.consequence().map_or(Ok(()), |consequence| write!(f, "; {consequence}"))
    }
}

impl Event {
    /// Returns what the event means for callers, unless that is obvious.
    fn consequence(&self) -> Option<&'static str> {
        Some(match self {
            Self::EndpointAdded { .. } => "it is used after its first passed probe",
            Self::EndpointDetached { .. } => "it is absent from DNS and not used, because other Pods serve all roles",
            Self::EndpointRetained { .. } => "it is absent from DNS but still used, because no other Pod has its role",
            Self::EndpointReturned { .. } => "DNS returns it again",
            Self::EndpointDrained { .. } => {
                "it is absent from DNS; connections in use are closed when they are returned"
            }
            Self::EndpointRemoved { .. } => "its last connection is closed",
            Self::EndpointFenced { .. } => "it is not used",
            Self::EndpointUnfenced { .. } => "it may be used again",
            Self::CertificatesRefused { .. } => "the previous certificates stay in use",
            Self::LoginFailed { .. } | Self::TlsFailed { .. } => "open connections stay in use",
            Self::SetupFailed { .. } => "the connection is closed",
            Self::StandbyLate { .. } => "it serves no reads until it has caught up",
            Self::ListenIgnored { .. } => "notifications on pooled connections are dropped; use `Pool::listen`",
            Self::NoHealthyPods { .. } => "checkouts try the Pods that were healthy last, or wait",
            Self::PrimaryLost { .. } => "writes wait for a primary",
            Self::ResolveFailed { known: 0, .. } => "no Pod is known yet, so checkouts wait until the name resolves",
            Self::ResolveFailed { .. } => "the known Pods stay in use",
            Self::StateChanged { to: "ejected", .. } => "checkouts use other Pods",
            Self::StateChanged { from: "probing", to: "healthy", cause: None, .. } => "it is connected and serves",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_lookup_states_whether_any_pod_is_known() {
        let text = |known| {
            let (source, cause) = ("A and AAAA records of db".into(), "NXDOMAIN".into());
            Event::ResolveFailed { source, cause, known }.consequence()
        };
        assert_eq!(text(3), Some("the known Pods stay in use"));
        assert_eq!(text(0), Some("no Pod is known yet, so checkouts wait until the name resolves"));
    }
}
