//! EndpointSlices: the part of the API that name servers and watches see.

use std::net::IpAddr;

use super::service::{Family, Port, Service};

/// The conditions of an endpoint, as the EndpointSlice controller derives them from its Pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Whether name servers name the endpoint. A terminating Pod is not ready, unless the Service publishes the
    /// addresses of Pods that are not ready.
    pub ready: bool,
    /// Whether the Pod's readiness probe succeeds, whether it terminates or not.
    pub serving: bool,
    /// Whether the Pod is being deleted.
    pub terminating: bool,
}

/// One address of one Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub conditions: Conditions,
    /// The Pod's host name below the Service's name. Pods of a StatefulSet have one.
    pub hostname: Option<String>,
    pub node: String,
    pub pod: String,
}

/// A part of a Service's endpoints of one IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub namespace: String,
    pub service: String,
    pub name: String,
    pub family: Family,
    /// In the order in which the controller added them.
    pub endpoints: Vec<Endpoint>,
    /// Empty until the slice has had an endpoint.
    pub ports: Vec<Port>,
    /// How often the slice was written.
    pub generation: u64,
}

/// An event of a watch on EndpointSlices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceEvent {
    Added(EndpointSlice),
    Modified(EndpointSlice),
    /// The last state of a slice that is gone.
    Deleted(EndpointSlice),
}

impl SliceEvent {
    /// Returns the slice: its new state, or its last one.
    pub fn slice(&self) -> &EndpointSlice {
        match self {
            Self::Added(slice) | Self::Modified(slice) | Self::Deleted(slice) => slice,
        }
    }
}

/// A change of what a name server reads from the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A Service is new or has changed.
    Service(Service),
    /// The Service of this namespace and name is gone.
    ServiceDeleted(String, String),
    Slice(SliceEvent),
}
