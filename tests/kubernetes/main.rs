//! The manifests of `examples/kubernetes`: read into Kubernetes's own types, checked against each other and against what
//! the documents call things, and the StatefulSet's Pods run.

mod manifests;
mod read;
mod replication;
