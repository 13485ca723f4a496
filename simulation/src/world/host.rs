use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use podpool::simulation::TcpOptions;
use tokio::task::JoinHandle;

use super::{
    World,
    files::Files,
    process::Process,
    random::{next, seed_of},
};
use crate::{
    network::{Network, Node, TcpListener, TcpStream, UdpSocket},
    spawn::Spawn,
};

/// A host: a machine with addresses, files and a wall clock, and the process that runs on it. Clones refer to the same
/// host.
#[derive(Clone)]
pub struct Host {
    world: World,
    machine: Arc<Machine>,
}

/// The parts of a host that outlive its process.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: Arc<str>,
    pub(super) network: Network,
    pub(super) node: Node,
    /// The skew of the wall clock, in nanoseconds. Relaxed accesses: all of them happen on one thread.
    skew: AtomicI64,
    /// The state of the random numbers for the process. Relaxed accesses: all of them happen on one thread.
    random: AtomicU64,
    pub(super) files: Mutex<Files>,
    process: Mutex<Option<Arc<Process>>>,
}

impl Machine {
    pub(super) fn new(name: &str, network: &Network, addresses: &[IpAddr], seed: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            network: network.clone(),
            node: network.add(addresses),
            skew: AtomicI64::new(0),
            random: AtomicU64::new(seed_of(seed, name)),
            files: Mutex::default(),
            process: Mutex::default(),
        })
    }

    pub(super) fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    /// Returns a random number for the process.
    pub(super) fn random(&self) -> u64 {
        let mut state = self.random.load(Ordering::Relaxed);
        let number = next(&mut state);
        self.random.store(state, Ordering::Relaxed);
        number
    }

    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the process. Starts one if none runs.
    pub(super) fn process(self: &Arc<Self>) -> Arc<Process> {
        self.slot().get_or_insert_with(|| Process::new(self.clone())).clone()
    }
}

impl Host {
    pub(super) fn new(world: World, machine: Arc<Machine>) -> Self {
        Self { world, machine }
    }

    /// Returns the host's name.
    pub fn name(&self) -> &Arc<str> {
        &self.machine.name
    }

    /// Returns the world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Returns the number of the host in the network.
    pub fn node(&self) -> Node {
        self.machine.node
    }

    /// Appends an event of this host to the trace.
    pub fn event(&self, text: impl fmt::Display) {
        self.world.trace().event(&self.machine.name, text);
    }

    /// Calls a function that belongs to the host's process: tasks that it spawns run on this host.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        self.machine.process().enter(f)
    }

    /// Spawns a task in the host's process, which is started if none runs.
    pub fn run<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.machine.process().spawn(task)
    }

    /// Spawns a task that stays on this thread in the host's process.
    pub fn run_local<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.machine.process().spawn_local(task)
    }

    /// Stops or continues the process, like SIGSTOP and SIGCONT. The kernel continues to answer: connections are
    /// accepted, and segments are acknowledged.
    pub fn set_paused(&self, paused: bool) {
        self.machine.process().set_paused(paused);
    }

    /// Kills the process, like SIGKILL: its tasks are dropped, and the kernel closes its sockets. The next task starts
    /// a new process.
    pub fn kill(&self) {
        let killed = self.machine.slot().take();
        if let Some(process) = killed {
            self.machine.network.close_sockets(self.machine.node);
            process.kill();
        }
    }

    /// Stops the machine and its process without a trace on the network, like a loss of power.
    pub fn crash(&self) {
        self.machine.network.crash(self.machine.node);
        self.kill();
    }

    /// Starts the machine after a crash. Its kernel answers segments of former connections with RST.
    pub fn boot(&self) {
        self.machine.network.boot(self.machine.node);
    }

    /// Replaces the host's addresses.
    pub fn set_addresses(&self, addresses: &[IpAddr]) {
        self.machine.network.set_addresses(self.machine.node, addresses);
    }

    /// Sets the difference between the host's wall clock and the exact time.
    pub fn set_skew(&self, ahead: bool, by: Duration) {
        let nanos = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        self.machine.skew.store(if ahead { nanos } else { -nanos }, Ordering::Relaxed);
    }

    /// Returns the number of tasks of the process that have not ended.
    pub fn tasks(&self) -> usize {
        self.machine.process().tasks()
    }

    /// Creates or replaces a file, which everyone may read.
    pub fn write_file(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        self.machine.files().write(path.as_ref(), content.as_ref(), 0o644);
    }

    /// Creates or replaces a file with these permission bits.
    pub fn write_file_with_mode(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>, mode: u32) {
        self.machine.files().write(path.as_ref(), content.as_ref(), mode);
    }

    /// Removes a file.
    pub fn remove_file(&self, path: impl AsRef<Path>) {
        self.machine.files().remove(path.as_ref());
    }

    /// Connects a TCP socket.
    pub async fn connect(&self, peer: SocketAddr, options: TcpOptions) -> io::Result<TcpStream> {
        self.machine.network.connect(self.machine.node, peer, options).await
    }

    /// Opens a listening TCP socket on one of the host's addresses.
    pub fn listen(&self, local: SocketAddr) -> io::Result<TcpListener> {
        self.machine.network.listen(self.machine.node, local)
    }

    /// Opens a UDP socket that accepts packets from every source.
    pub fn bind_udp(&self, local: SocketAddr) -> io::Result<UdpSocket> {
        self.machine.network.bind_udp(self.machine.node, local, None)
    }
}

impl Spawn for Host {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.run(task);
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("name", &self.machine.name).finish_non_exhaustive()
    }
}
