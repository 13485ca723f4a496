//! A simulated world for podpool: network, name servers, Kubernetes and PostgreSQL servers are tasks on one runtime
//! whose clock is paused. One seed determines every event.

pub mod adversary;
pub mod properties;
pub mod report;
pub mod shrink;
