//! What faults of DNS do to a pool with real Pods behind the name: who stays keeps its connections, callers notice
//! nothing, and the packets are counted.

#[path = "../common/mod.rs"]
mod common;
mod failover;
mod outages;
mod packets;
mod sets;
mod site;
mod srv;
