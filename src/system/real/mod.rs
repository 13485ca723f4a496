//! The operating system and the runtime.

pub(crate) mod clock;
mod datagram;
pub(crate) mod fs;
mod net;
mod process;
pub(crate) mod random;
mod task;
pub(crate) mod thread;

pub(crate) use tokio::{
    net::TcpStream,
    spawn,
    task::{JoinSet, spawn_blocking},
};

pub(crate) use self::{
    datagram::Datagram,
    net::connect,
    process::{count_retired, retired, unique},
    task::spawn_on,
};
