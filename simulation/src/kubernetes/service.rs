//! Services: the name that a client resolves, and the ports and addresses behind it.

use std::net::IpAddr;

/// An IP family of a Service. Each has EndpointSlices of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A named TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name of the port in SRV records.
    pub name: String,
    /// The number of the port.
    pub number: u16,
}

/// How a Service is addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// The name resolves to the addresses of the Pods.
    Headless,
    /// The name resolves to these virtual addresses.
    ClusterIp(Vec<IpAddr>),
}

/// A Service and the settings that determine its EndpointSlices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The namespace of the Service and of its Pods.
    pub namespace: String,
    /// The first label of the DNS name.
    pub name: String,
    /// Whether the Service has virtual addresses.
    pub kind: ServiceKind,
    /// The ports of every endpoint.
    pub ports: Vec<Port>,
    /// The IP families, in the order of preference.
    pub families: Vec<Family>,
    /// Whether every Pod with an address counts as ready (`publishNotReadyAddresses`).
    pub publish_not_ready: bool,
}

impl Service {
    /// Creates a headless IPv4 Service with one port.
    pub fn headless(namespace: &str, name: &str, port_name: &str, port: u16) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kind: ServiceKind::Headless,
            ports: vec![Port { name: port_name.to_owned(), number: port }],
            families: vec![Family::V4],
            publish_not_ready: false,
        }
    }
}
