//! The smallest world in which a pool works: a client, a name server, and servers that answer every statement.
//!
//! It shows that the library runs on the simulated network, and how fast. It models neither replication nor Kubernetes.

mod dns;
mod postgres;
mod scenario;

pub use self::scenario::Scenario;
