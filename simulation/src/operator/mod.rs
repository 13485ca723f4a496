//! Models of the operators that keep a group of servers available: [`patroni`] with one agent for each server, and
//! [`cloudnativepg`] with a controller and one instance manager for each server.
//!
//! Both keep their decisions in a [`Store`], which may be unreachable, and report the readiness and role of each Pod to
//! Kubernetes through [`Pods`].

pub mod cloudnativepg;
mod group;
pub mod patroni;
mod pods;
mod store;
#[cfg(test)]
mod tests;

pub use self::{
    group::bootstrap,
    pods::{Pods, Role},
    store::{Content, Document, Lease, MemoryStore, Store, SynchronousState, Unavailable},
};
