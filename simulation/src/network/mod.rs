//! A simulated network: TCP and UDP between hosts, in simulated time.
//!
//! TCP is modelled segment by segment: handshake, window, acknowledgements, retransmission with back-off, keepalive,
//! user time-out, FIN and RST. The defaults are Linux's. Faults are properties of a [`Link`], the path from one host to
//! another, so that they can differ between the two directions. A lost segment is retransmitted, so the application
//! sees loss and a partition only as delay, until the connection fails.
//!
//! The network is driven by events in the order of their times. One task, the [`driver`], processes them.

mod core;
mod driver;
mod endpoint;
mod failure;
mod link;
mod options;
mod packet;
mod receive_buffer;
mod send_buffer;
mod stream;
mod tcp;
mod timers;
mod udp;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use podpool::simulation::TcpOptions;
use tokio::time::Instant;

use self::core::Core;
pub use self::{
    link::Link,
    stream::{TcpListener, TcpStream},
    udp::UdpSocket,
};

/// A network. Clones share its state.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Core>>);

/// The number of a host in its network.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Node(usize);

impl Network {
    /// Creates a network without hosts, and starts its driver on the current runtime.
    pub fn new(seed: u64) -> Self {
        let network = Self(Arc::new(Mutex::new(Core::new(seed))));
        tokio::spawn(driver::Driver::new(network.clone()));
        network
    }

    /// Adds a host.
    pub fn add(&self, addresses: &[IpAddr]) -> Node {
        Node(self.with(|core| core.add_host(addresses)))
    }

    /// Replaces the addresses of a host. Its connections remain open, but no longer receive anything.
    pub fn set_addresses(&self, node: Node, addresses: &[IpAddr]) {
        self.with(|core| core.set_addresses(node.0, addresses));
    }

    /// Connects a TCP socket.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    pub fn connect(
        &self,
        node: Node,
        peer: SocketAddr,
        options: TcpOptions,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send + use<> {
        TcpStream::connect(self.clone(), node.0, peer, options)
    }

    /// Opens a listening TCP socket on one of the host's addresses.
    pub fn listen(&self, node: Node, local: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(self, node.0, local)
    }

    /// Opens a UDP socket, which accepts only packets from `peer` if it is set.
    pub fn bind_udp(&self, node: Node, local: SocketAddr, peer: Option<SocketAddr>) -> io::Result<UdpSocket> {
        UdpSocket::bind(self, node.0, local, peer)
    }

    /// Sets the properties of all links that are not set with [`set_link`](Self::set_link).
    pub fn set_default_link(&self, link: Link) {
        self.with(|core| core.default_link = link);
    }

    /// Returns the link from one host to another.
    pub fn link(&self, from: Node, to: Node) -> Link {
        self.with(|core| core.links.get(&(from.0, to.0)).copied().unwrap_or(core.default_link))
    }

    /// Sets the link from one host to another. Packets that are on their way still arrive.
    pub fn set_link(&self, from: Node, to: Node, link: Link) {
        self.with(|core| core.links.insert((from.0, to.0), link));
    }

    /// Blocks or unblocks the links between two hosts in both directions.
    pub fn set_partition(&self, a: Node, b: Node, blocked: bool) {
        for (from, to) in [(a, b), (b, a)] {
            self.set_link(from, to, Link { blocked, ..self.link(from, to) });
        }
    }

    /// Ends all connections between two hosts with RST, as a firewall that has lost its state does.
    pub fn reset_connections(&self, a: Node, b: Node) {
        self.with(|core| {
            let owner = |core: &Core, address: SocketAddr| core.addresses.get(&address.ip()).copied();
            let between: Vec<_> = core
                .endpoints
                .iter()
                .filter(|(_, endpoint)| match owner(core, endpoint.remote) {
                    Some(peer) => [(a.0, b.0), (b.0, a.0)].contains(&(endpoint.host, peer)),
                    None => false,
                })
                .map(|(number, _)| *number)
                .collect();
            between.into_iter().for_each(|number| core.fail(number, failure::Failure::Reset));
        });
    }

    /// Loses all further packets of the connections that two hosts have now. Returns these connections.
    pub fn sever_connections(&self, a: Node, b: Node) -> Vec<(SocketAddr, SocketAddr)> {
        self.with(|core| {
            let owner = |address: SocketAddr| core.addresses.get(&address.ip()).copied();
            let is_between = |endpoint: &&endpoint::Endpoint| {
                owner(endpoint.remote).is_some_and(|peer| [(a.0, b.0), (b.0, a.0)].contains(&(endpoint.host, peer)))
            };
            let between = core.endpoints.values().filter(is_between);
            let pairs: Vec<_> = between.map(|endpoint| (endpoint.local, endpoint.remote)).collect();
            core.severed.extend(pairs.iter().flat_map(|(local, remote)| [(*local, *remote), (*remote, *local)]));
            pairs
        })
    }

    /// Delivers the packets of severed connections again.
    pub fn restore_connections(&self, connections: &[(SocketAddr, SocketAddr)]) {
        self.with(|core| {
            core.severed.retain(|(one, other)| {
                !connections.contains(&(*one, *other)) && !connections.contains(&(*other, *one))
            });
        });
    }

    /// Stops a host without a trace on the network, like a loss of power: its connections are half-open from then on.
    /// While it is down, packets to it are lost.
    pub fn crash(&self, node: Node) {
        let removed = self.with(|core| {
            core.hosts[node.0].is_up = false;
            let numbers = core.endpoints.iter().filter(|(_, endpoint)| endpoint.host == node.0);
            let numbers: Vec<_> = numbers.map(|(number, _)| *number).collect();
            let endpoints: Vec<_> = numbers.iter().filter_map(|number| core.endpoints.remove(number)).collect();
            core.pairs.retain(|_, number| !numbers.contains(number));
            let listeners: Vec<_> = core.listeners.extract_if(.., |_, listener| listener.host == node.0).collect();
            let sockets: Vec<_> = core.udp.extract_if(.., |_, socket| socket.host == node.0).collect();
            (endpoints, listeners, sockets)
        });
        // Dropped after the lock has been released, because the sockets contain wakers.
        drop(removed);
    }

    /// Closes all sockets of a host, like the kernel when a process ends.
    pub fn close_sockets(&self, node: Node) {
        let removed = self.with(|core| {
            let now = Instant::now();
            let listeners = core.listeners.iter().filter(|(_, listener)| listener.host == node.0);
            let listeners: Vec<_> = listeners.map(|(local, _)| *local).collect();
            let listeners: Vec<_> = listeners.into_iter().map(|local| core.close_listener(local, now)).collect();
            let endpoints = core.endpoints.iter().filter(|(_, endpoint)| endpoint.host == node.0);
            let endpoints: Vec<_> = endpoints.map(|(number, _)| *number).collect();
            endpoints.into_iter().for_each(|number| core.close(number, now));
            let sockets: Vec<_> = core.udp.extract_if(.., |_, socket| socket.host == node.0).collect();
            (listeners, sockets)
        });
        // Dropped after the lock has been released, because the sockets contain wakers.
        drop(removed);
    }

    /// Starts a host after a crash. It answers segments of its former connections with RST.
    pub fn boot(&self, node: Node) {
        self.with(|core| core.hosts[node.0].is_up = true);
    }

    /// Returns the number of packets that were sent since the start.
    pub fn packets(&self) -> u64 {
        self.with(|core| core.packets)
    }

    /// Returns the number of endpoints of connections, including those whose socket is closed but whose peer has not
    /// acknowledged that.
    pub fn endpoints(&self, node: Node) -> usize {
        self.with(|core| core.endpoints.values().filter(|endpoint| endpoint.host == node.0).count())
    }

    /// Returns the number of sockets that the process of a host has open, without listening ones.
    pub fn sockets(&self, node: Node) -> usize {
        self.with(|core| {
            let is_open = |end: &&endpoint::Endpoint| end.host == node.0 && end.owner == endpoint::Owner::Application;
            let connections = core.endpoints.values().filter(is_open).count();
            connections + core.udp.values().filter(|socket| socket.host == node.0).count()
        })
    }

    /// Calls a function with the state, and afterwards the wakers that the function has collected.
    fn with<T>(&self, f: impl FnOnce(&mut Core) -> T) -> T {
        let (result, woken, retired) = {
            let mut core = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let result = f(&mut core);
            (result, std::mem::take(&mut core.woken), std::mem::take(&mut core.retired))
        };
        drop(retired);
        woken.into_iter().for_each(std::task::Waker::wake);
        result
    }

    /// Processes the events that are due. Returns the time of the next event.
    fn process(&self, now: Instant) -> Option<Instant> {
        self.with(|core| {
            while let Some(event) = core.pop(now) {
                match event {
                    core::Event::Arrival(packet) => core.arrive(*packet, now),
                    core::Event::Timer(number) => core.timer(number, now),
                }
            }
            core.next_event()
        })
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}
