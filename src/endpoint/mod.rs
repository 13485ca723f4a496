//! The Pods behind the Service: their identity ([`Endpoint`]) and the role of their servers ([`Role`]).

// Internally, this module also holds the state of the Pods that checkouts read:
//
// * `set` finds the changes between the known set of Pods and a new one from discovery.
// * `slot` holds the counters and flags of each Pod, which every checkout updates.
// * `snapshot` is the immutable set of Pods that a checkout chooses from. It shares unchanged `chunks` with the
//   previous snapshot.
// * `publish` makes a new snapshot visible to all threads.

pub(crate) mod chunks;
mod id;
pub(crate) mod publish;
mod role;
pub(crate) mod set;
pub(crate) mod slot;
pub(crate) mod snapshot;

pub use id::Endpoint;
pub use role::Role;
