//! The Pods behind the name: who they are, what is counted for each, and the published set.

pub(crate) mod chunks;
mod id;
pub(crate) mod publish;
mod role;
pub(crate) mod set;
pub(crate) mod slot;
pub(crate) mod snapshot;

pub use id::Endpoint;
pub use role::Role;
