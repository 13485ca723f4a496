//! The Pods behind the name: who they are, what is counted for each, and the published set.

mod id;

pub use id::Endpoint;
