use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::system::{
    Keepalive, SocketOptions,
    simulation::{self, world},
};

/// A connected TCP socket of a simulated host.
pub struct TcpStream(Box<dyn simulation::Stream>);

/// Connects a TCP socket.
///
/// Cancel-safe: dropping the future closes the socket.
pub(crate) async fn connect(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
    let SocketOptions { local, user_timeout, keepalive } = *options;
    let keepalive =
        keepalive.map(|Keepalive { idle, interval, count }| simulation::Keepalive { idle, interval, count });
    let connecting = world().connect(address, &simulation::TcpOptions { local, user_timeout, keepalive });
    connecting.await.map(TcpStream)
}

impl AsyncRead for TcpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream").finish_non_exhaustive()
    }
}

/// A UDP socket of a simulated host that is connected to one peer.
pub(crate) struct Datagram(Box<dyn simulation::Datagram>);

impl Datagram {
    /// Opens a socket that is bound to `local` and connected to `peer`.
    pub(crate) async fn bind_connected(local: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        world().bind_datagram(local, peer).map(Self)
    }

    /// Completes immediately.
    pub(crate) fn poll_send_ready(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends a packet to the peer.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_send(cx, packet)
    }

    /// Receives a packet from the peer, and returns its length. Fails with the socket's first error, such as
    /// "connection refused" from a closed port.
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, buf)
    }
}
