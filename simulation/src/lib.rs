//! A simulated world for podpool: network, name servers, Kubernetes and PostgreSQL servers are tasks on one runtime
//! whose clock is paused. One seed determines every event.

#[cfg(not(podpool_simulation))]
compile_error!("run cargo in the directory of this package, so that it reads the flags in .cargo/config.toml");

pub mod adversary;
#[allow(missing_docs, reason = "most fields and variants are described by the terms of Kubernetes and DNS")]
pub mod dns;
#[allow(missing_docs, reason = "most fields and variants are described by the terms of Kubernetes and DNS")]
pub mod kubernetes;
pub mod minimal;
pub mod network;
pub mod operator;
pub mod postgres;
pub mod properties;
mod random;
pub mod report;
pub mod run;
pub mod shrink;
mod signal;
pub mod spawn;
pub mod tools;
pub mod world;
