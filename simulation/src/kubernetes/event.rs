//! What happens in the cluster.

use std::{fmt, net::IpAddr};

use super::{
    pod::PodInfo,
    runtime::Signal,
    service::Service,
    slice::{Change, SliceEvent},
};

/// An event of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Service is new or has changed.
    Service(Service),
    /// A write of an EndpointSlice.
    Slice(SliceEvent),
    /// A step in the life of a Pod.
    Pod(PodInfo, PodEvent),
    /// A node stops or resumes to report.
    Node(String, bool),
}

/// A step in the life of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodEvent {
    /// The StatefulSet controller creates the Pod.
    Created,
    /// The process starts, for the first time or again, at these addresses.
    Started(Vec<IpAddr>),
    /// The API server has another condition `Ready`.
    Ready(bool),
    /// A deletion begins.
    Deleted,
    /// The kubelet sends a signal to the process.
    Signalled(Signal),
    /// The process has ended.
    Exited,
    /// The API server does not have the Pod any more.
    Removed,
}

impl Event {
    /// Returns the part that a name server reads.
    pub fn change(&self) -> Option<Change> {
        match self {
            Self::Service(service) => Some(Change::Service(service.clone())),
            Self::Slice(event) => Some(Change::Slice(event.clone())),
            Self::Pod(..) | Self::Node(..) => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "Service {}", service.name),
            Self::Slice(event) => slice(event, f),
            Self::Pod(pod, event) => write!(f, "Pod {} ({}) {event:?}", pod.name, pod.uid),
            Self::Node(node, true) => write!(f, "node {node} reports"),
            Self::Node(node, false) => write!(f, "node {node} does not report"),
        }
    }
}

/// Writes an event of a slice with its endpoints: `r`eady, `s`erving, `t`erminating.
fn slice(event: &SliceEvent, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = match event {
        SliceEvent::Added(_) => "added",
        SliceEvent::Modified(_) => "modified",
        SliceEvent::Deleted(_) => "deleted",
    };
    write!(f, "EndpointSlice {} {kind}:", event.slice().name)?;
    for endpoint in &event.slice().endpoints {
        let conditions = endpoint.conditions;
        let flag = |is_set: bool, letter: char| if is_set { letter } else { '-' };
        let flags = [flag(conditions.ready, 'r'), flag(conditions.serving, 's'), flag(conditions.terminating, 't')];
        let flags: String = flags.into_iter().collect();
        write!(f, " {}={}/{flags}", endpoint.pod, endpoint.address)?;
    }
    Ok(())
}
