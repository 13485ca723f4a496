//! Kubernetes: a StatefulSet controller, kubelets, nodes and the EndpointSlice controller, as one state machine in
//! simulated time.
//!
//! ```text
//! operations ─▶ Cluster (timers) ─▶ ContainerRuntime: start, signal, probe
//!                  ▲    │
//!        exited ───┘    └─▶ Event: Service and EndpointSlices for name servers, lives of Pods for the trace
//! ```
//!
//! The controllers' decisions are pure: [`statefulset`] and [`slice_controller`]. The delays are those of a recorded
//! control plane; the tests replay the recordings.

mod addresses;
mod cluster;
mod control;
mod driver;
mod event;
mod kubelet;
mod nodes;
mod operations;
mod pod;
mod runtime;
mod service;
mod settings;
mod slice;
mod slice_controller;
mod statefulset;
mod timers;

pub use addresses::Reuse;
pub use cluster::Cluster;
pub use driver::{Driver, SharedCluster};
pub use event::{Event, PodEvent};
pub use operations::Unavailable;
pub use pod::{Pod, PodInfo, Uid};
pub use runtime::{ContainerRuntime, Signal};
pub use service::{Family, Port, Service, ServiceKind};
pub use settings::{ClusterSettings, ReadinessProbe};
pub use slice::{Change, Conditions, Endpoint, EndpointSlice, SliceEvent};
pub use statefulset::{Policy, StatefulSet};

#[cfg(test)]
mod tests;
