//! Tests the manifests in `examples/kubernetes`: parses them into Kubernetes' own types, checks that they agree with
//! each other and with the names in the documentation, creates certificates with the scripts of the Job, and runs the
//! StatefulSet's Pods as processes on this machine.

#![allow(clippy::print_stdout, reason = "tests print their measurements")]

mod cert_manager;
mod certificates;
#[path = "../common/mod.rs"]
mod common;
mod lookup;
mod manifests;
mod pods;
mod policies;
mod read;
mod replication;
mod security;
mod tls;
