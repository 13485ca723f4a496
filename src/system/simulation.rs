//! The interface between this crate and a simulated world. Exists only with `--cfg podpool_simulation`.
//!
//! A [`World`] belongs to one thread. While it is [entered](enter), this crate uses it for every connection, task,
//! file, random number and clock reading on that thread. Time comes from the thread's tokio runtime, whose clock must
//! be paused.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
};

/// The future of an operation.
pub type Operation<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// The hosts, the network and the clocks of a simulation. The methods apply to the host whose task is being polled.
pub trait World {
    /// Connects a TCP socket.
    fn connect(&self, address: SocketAddr, options: &TcpOptions) -> Operation<Box<dyn Stream>>;

    /// Opens a UDP socket that is bound to `local` and connected to `peer`.
    fn bind_datagram(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<Box<dyn Datagram>>;

    /// Creates the record of a task that is about to be spawned.
    fn task(&self) -> Box<dyn Task>;

    /// Stores the handle of a task that has been spawned. Aborting it drops the task's future.
    fn spawned(&self, task: u64, handle: AbortHandle);

    /// Returns a random number.
    fn random(&self) -> u64;

    /// Returns a number that is greater than all numbers returned before.
    fn unique(&self) -> u64;

    /// Returns the time since the start of the simulation.
    fn elapsed(&self) -> Duration;

    /// Returns the total time for which the host's machine has been suspended.
    fn suspended(&self) -> Duration;

    /// Returns a file of the host, or its metadata if `content` is false.
    fn file(&self, path: &Path, content: bool) -> io::Result<File>;

    /// Returns the paths of the entries of a directory of the host.
    fn entries(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Appends to a file of the host, which is created if it does not exist.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
}

/// The options of a TCP socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpOptions {
    /// The local address, or `None` if the operating system chooses it.
    pub local: Option<SocketAddr>,
    /// Time after which a connection fails if sent data is not acknowledged. Zero means the operating system's default.
    pub user_timeout: Duration,
    /// The intervals of TCP keepalive, or `None` if it is off.
    pub keepalive: Option<Keepalive>,
}

/// The intervals of TCP keepalive. Zero means the operating system's default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keepalive {
    /// Time without received data after which the first probe is sent.
    pub idle: Duration,
    /// Time between two probes.
    pub interval: Duration,
    /// Number of probes without a response after which the connection fails.
    pub count: u32,
}

/// A connected TCP socket.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connected UDP socket.
pub trait Datagram: Send + Sync {
    /// Sends a packet to the peer, and returns its length.
    fn poll_send(&self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<usize>>;

    /// Receives a packet from the peer, and returns its length. Fails with "connection refused" after a packet was sent
    /// to a closed port.
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>>;
}

/// A task that belongs to a host. Dropped after the task's future.
pub trait Task: Send {
    /// Returns the number that identifies the task in [`World::spawned`].
    fn id(&self) -> u64;

    /// Calls `poll`, which polls the task's future, with the task's host as the current host. While the host is paused,
    /// stores the waker instead and calls it when the host continues.
    fn poll(&mut self, cx: &mut Context<'_>, poll: &mut dyn FnMut(&mut Context<'_>));

    /// Calls `drop`, which drops the task's future, with the task's host as the current host.
    fn release(&mut self, drop: &mut dyn FnMut());
}

/// A file of a simulated host.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// The bytes, or nothing if only the metadata was requested.
    pub content: Vec<u8>,
    /// The length in bytes.
    pub length: u64,
    /// The permission bits.
    pub mode: u32,
    /// The number of the owner's account.
    pub owner: u32,
    /// A number that differs after each change.
    pub version: u64,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// Makes a world the current one of this thread until the returned guard is dropped.
///
/// # Panics
///
/// Panics if the thread already has a world.
pub fn enter(world: Rc<dyn World>) -> Entered {
    WORLD.with_borrow_mut(|current| {
        assert!(current.is_none(), "the thread already has a simulated world");
        *current = Some(world);
    });
    Entered(())
}

/// A guard that leaves the current world when it is dropped.
#[must_use = "the world is left when the guard is dropped"]
pub struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        WORLD.with_borrow_mut(|current| *current = None);
    }
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").finish_non_exhaustive()
    }
}

/// Returns the current world.
///
/// # Panics
///
/// Panics if the thread has not entered a world.
pub(super) fn world() -> Rc<dyn World> {
    let world = WORLD.with_borrow(Clone::clone);
    world.expect("the library was built with `--cfg podpool_simulation`, but the thread has no simulated world")
}
