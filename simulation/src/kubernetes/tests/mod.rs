//! Tests of the cluster: against the recordings, and of what the recordings do not have.

mod containers;
mod nodes;
mod replay;
mod sets;
mod setup;
mod slices;
mod watches;
