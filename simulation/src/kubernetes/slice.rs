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
    /// The address of the Pod.
    pub address: IpAddr,
    /// The conditions of the Pod.
    pub conditions: Conditions,
    /// The Pod's host name below the Service's name. Pods of a StatefulSet have one.
    pub hostname: Option<String>,
    /// The node that runs the Pod.
    pub node: String,
    /// The name of the Pod.
    pub pod: String,
}

/// A part of a Service's endpoints of one IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The namespace of the Service.
    pub namespace: String,
    /// The name of the Service.
    pub service: String,
    /// The name of the slice, which the controller generates.
    pub name: String,
    /// The family of all addresses.
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
    /// A new slice.
    Added(EndpointSlice),
    /// The new state of a slice.
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
    /// A write of an EndpointSlice.
    Slice(SliceEvent),
}
