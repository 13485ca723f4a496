//! A simulated operating system: each call goes to the [`World`](super::simulation::World) of the current thread.

pub(crate) mod clock;
pub(crate) mod fs;
mod net;
pub(crate) mod random;
mod task;
pub(crate) mod thread;

pub(crate) use self::{
    net::{Datagram, TcpStream, connect},
    task::{JoinSet, spawn, spawn_blocking, spawn_on},
};
use super::simulation::world;

/// Returns a number that is unique in the world and greater than all numbers returned before.
pub(crate) fn unique() -> u64 {
    world().unique()
}
