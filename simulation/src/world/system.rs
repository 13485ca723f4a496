use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use podpool::simulation::{self, Datagram, File, Operation, Stream, Task, TcpOptions};
use tokio::{task::AbortHandle, time::Instant};

use super::{host::Machine, process::Process};

/// The operating system of the hosts, as podpool uses it.
#[derive(Debug)]
pub(super) struct System {
    start: Instant,
    /// The host of code that runs outside of every host's tasks.
    outside: Arc<Machine>,
    last_number: Cell<u64>,
}

impl System {
    pub(super) fn new(start: Instant, outside: Arc<Machine>) -> Self {
        Self { start, outside, last_number: Cell::new(0) }
    }

    fn process(&self) -> Arc<Process> {
        Process::current().unwrap_or_else(|| self.outside.process())
    }

    fn machine(&self) -> Arc<Machine> {
        self.process().machine.clone()
    }
}

impl simulation::World for System {
    fn connect(&self, address: SocketAddr, options: &TcpOptions) -> Operation<Box<dyn Stream>> {
        let machine = self.machine();
        let connecting = machine.network.connect(machine.node, address, *options);
        Box::pin(async move { Ok(Box::new(connecting.await?) as Box<dyn Stream>) })
    }

    fn bind_datagram(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<Box<dyn Datagram>> {
        let machine = self.machine();
        Ok(Box::new(machine.network.bind_udp(machine.node, local, Some(peer))?))
    }

    fn task(&self) -> Box<dyn Task> {
        Box::new(self.process().task())
    }

    fn spawned(&self, task: u64, handle: AbortHandle) {
        self.process().spawned(task, handle);
    }

    fn random(&self) -> u64 {
        self.machine().random()
    }

    fn unique(&self) -> u64 {
        self.last_number.set(self.last_number.get() + 1);
        self.last_number.get()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn suspended(&self) -> Duration {
        Duration::ZERO
    }

    fn file(&self, path: &Path, content: bool) -> io::Result<File> {
        self.machine().files().read(path, content)
    }

    fn entries(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.machine().files().entries(directory)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.machine().files().append(path, bytes);
        Ok(())
    }
}
