//! Tests the manifests in `examples/kubernetes`: parses them into Kubernetes' own types, checks that they agree with
//! each other and with the names in the documentation, and runs the StatefulSet's Pods as processes on this machine.

mod lookup;
mod manifests;
mod pods;
mod policies;
mod read;
mod replication;
