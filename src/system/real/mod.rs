//! The operating system and the runtime.

pub(crate) mod clock;
mod datagram;
pub(crate) mod fs;
mod net;
pub(crate) mod random;
mod task;
pub(crate) mod thread;

pub(crate) use tokio::{
    net::TcpStream,
    spawn,
    task::{JoinSet, spawn_blocking},
};

pub(crate) use self::{datagram::Datagram, net::connect, task::spawn_on};

/// Returns a number that is unique in this process and greater than all numbers returned before.
pub(crate) fn unique() -> u64 {
    // This atomic is the standard library's even in loom tests, because no memory ordering depends on the counter.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    // Relaxed: the counter guards no other data, and the modifications of a single atomic have a total order.
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
