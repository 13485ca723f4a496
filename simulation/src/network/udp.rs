//! UDP sockets.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use podpool::simulation::Datagram;
use tokio::time::Instant;

use super::{
    Network,
    core::{Core, store},
    failure::Failure,
    packet::{Content, Packet},
};

/// Maximum number of packets that wait for the application. Further packets are dropped.
const QUEUE: usize = 256;

/// A bound socket.
#[derive(Debug)]
pub(super) struct UdpState {
    pub(super) host: usize,
    number: u64,
    peer: Option<SocketAddr>,
    queue: VecDeque<(Bytes, SocketAddr)>,
    refused: bool,
    waker: Option<Waker>,
}

impl Core {
    /// Processes a UDP packet, or the message that one was refused.
    pub(super) fn receive_datagram(&mut self, host: usize, packet: Packet, now: Instant) {
        let Packet { source, destination, content } = packet;
        let socket = self.udp.get_mut(&destination);
        match (socket, content) {
            (Some(socket), Content::Udp(bytes))
                if socket.peer.is_none_or(|peer| peer == source) && socket.queue.len() < QUEUE =>
            {
                socket.queue.push_back((bytes, source));
                self.woken.extend(socket.waker.take());
            }
            (Some(socket), Content::PortUnreachable) if socket.peer == Some(source) => {
                socket.refused = true;
                self.woken.extend(socket.waker.take());
            }
            (None, Content::Udp(_)) => {
                let reply = Packet { source: destination, destination: source, content: Content::PortUnreachable };
                self.send(host, reply, now, now);
            }
            _ => {}
        }
    }
}

/// A UDP socket. Closed when it is dropped.
#[derive(Debug)]
pub struct UdpSocket {
    network: Network,
    local: SocketAddr,
    number: u64,
}

impl UdpSocket {
    /// Opens a socket, which accepts only packets from `peer` if it is set.
    pub(super) fn bind(
        network: &Network,
        host: usize,
        local: SocketAddr,
        peer: Option<SocketAddr>,
    ) -> io::Result<Self> {
        network.with(|core| {
            let local = core.choose_local(host, Some(local), peer.unwrap_or(local))?;
            let number = core.number();
            let (queue, refused, waker) = (VecDeque::new(), false, None);
            core.udp.insert(local, UdpState { host, number, peer, queue, refused, waker });
            Ok(Self { network: network.clone(), local, number })
        })
    }

    /// Returns the socket's address.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Receives a packet and returns its source.
    pub async fn receive(&self) -> io::Result<(Bytes, SocketAddr)> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Sends a packet.
    pub fn send_to(&self, packet: &[u8], destination: SocketAddr) -> io::Result<()> {
        self.network.with(|core| {
            let socket = self.state(core)?;
            if std::mem::take(&mut socket.refused) {
                return Err(Failure::Refused.into());
            }
            let (host, now) = (socket.host, Instant::now());
            let content = Content::Udp(Bytes::copy_from_slice(packet));
            core.send(host, Packet { source: self.local, destination, content }, now, now);
            Ok(())
        })
    }

    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, SocketAddr)>> {
        self.network.with(|core| {
            let mut retired = Vec::new();
            let socket = match self.state(core) {
                Ok(socket) => socket,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if let Some(received) = socket.queue.pop_front() {
                return Poll::Ready(Ok(received));
            }
            if std::mem::take(&mut socket.refused) {
                return Poll::Ready(Err(Failure::Refused.into()));
            }
            store(&mut socket.waker, cx, &mut retired);
            core.retired.append(&mut retired);
            Poll::Pending
        })
    }

    /// Returns the socket's state. Fails if its host has crashed since it was opened.
    fn state<'a>(&self, core: &'a mut Core) -> io::Result<&'a mut UdpState> {
        let state = core.udp.get_mut(&self.local).filter(|state| state.number == self.number);
        state.ok_or_else(|| Failure::AddressNotAvailable.into())
    }
}

impl Datagram for UdpSocket {
    fn poll_send(&self, _: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<usize>> {
        let peer = self.network.with(|core| self.state(core).map(|socket| socket.peer))?;
        let Some(peer) = peer else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        Poll::Ready(self.send_to(packet, peer).map(|()| packet.len()))
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_receive(cx).map_ok(|(bytes, _)| {
            let length = bytes.len().min(buf.len());
            buf[..length].copy_from_slice(&bytes[..length]);
            length
        })
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.network.with(|core| {
            if self.state(core).is_ok() {
                // Returned, so that its waker is dropped after the lock has been released.
                return core.udp.remove(&self.local);
            }
            None
        });
    }
}
