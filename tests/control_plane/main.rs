//! Runs the manifests of `examples/kubernetes` on a real control plane: etcd, kube-apiserver, kube-controller-manager
//! and CoreDNS. The tests act as scheduler and kubelet, and run the containers as processes in namespaces.
//!
//! Each scenario starts its own control plane in its own namespaces, drives the example microservice with 150 requests
//! per second, changes the cluster, and compares the failed requests with the servers' own states and with the
//! addresses that CoreDNS returns. `make kubernetes` runs all of them.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "tests print their measurements")]

mod api;
mod authority;
mod cluster;
#[path = "../../examples/load/http.rs"]
mod http;
mod isolated;
mod kubelet;
mod load;
mod manifests;
mod names;
mod network;
mod observed;
mod plane;
#[path = "../microservice/program.rs"]
mod program;
mod report;
mod servers;
mod shell;
mod timeline;

mod cold_start;
mod outages;
mod primary;
mod promotion;
mod scale;
mod standby;
