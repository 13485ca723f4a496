//! A simulated operating system: each call goes to the [`World`](super::simulation::World) of the current thread.

pub(crate) mod clock;
pub(crate) mod fs;
mod net;
mod process;
pub(crate) mod random;
mod task;
pub(crate) mod thread;

pub(crate) use self::{
    net::{Datagram, TcpStream, connect},
    process::{count_retired, retired, unique},
    task::{JoinSet, spawn, spawn_blocking, spawn_on},
};
pub(crate) use super::no_unix::{UnixStream, connect_unix};
