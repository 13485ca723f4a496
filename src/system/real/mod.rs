//! The operating system and the runtime.

pub(crate) mod clock;
mod datagram;
pub(crate) mod fs;
mod net;
mod process;
pub(crate) mod random;
mod task;
pub(crate) mod thread;
#[cfg(unix)]
mod unix;

pub(crate) use tokio::{
    net::TcpStream,
    spawn,
    task::{JoinSet, spawn_blocking},
};

#[cfg(not(unix))]
use super::no_unix as unix;

pub(crate) use self::{
    datagram::Datagram,
    net::connect,
    process::{count_retired, retired, unique},
    task::spawn_on,
    unix::{UnixStream, connect_unix},
};
