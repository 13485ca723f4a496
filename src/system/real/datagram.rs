use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{Interest, ReadBuf},
    net::UdpSocket,
};

/// A UDP socket that is connected to one peer. The kernel drops packets from other sources, and reports a closed port
/// immediately (ICMP port unreachable becomes "connection refused").
pub(crate) struct Datagram {
    socket: Arc<UdpSocket>,
    /// Future that resolves to an error reported by ICMP. Waiting for readability alone does not detect such an error.
    error: Mutex<Pin<Box<dyn Future<Output = io::Error> + Send>>>,
}

impl Datagram {
    /// Opens a socket that is bound to `local` and connected to `peer`.
    pub(crate) async fn bind_connected(local: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(local).await?;
        socket.connect(peer).await?;
        let socket = Arc::new(socket);
        let error = Mutex::new(Box::pin(socket_error(socket.clone())) as Pin<Box<_>>);
        Ok(Self { socket, error })
    }

    /// Completes when the socket can send a packet.
    pub(crate) fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    /// Sends a packet to the peer.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, packet)
    }

    /// Receives a packet from the peer, and returns its length. Fails with the socket's first error, such as
    /// "connection refused" from a closed port.
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        match self.socket.poll_recv(cx, &mut buf) {
            Poll::Ready(received) => Poll::Ready(received.map(|()| buf.filled().len())),
            Poll::Pending => {
                let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                Poll::Ready(Err(ready!(error.as_mut().poll(cx))))
            }
        }
    }
}

/// Waits for the socket's first error.
async fn socket_error(socket: Arc<UdpSocket>) -> io::Error {
    loop {
        let result = match socket.ready(Interest::ERROR).await {
            Ok(_) => socket.try_io(Interest::ERROR, || match socket.take_error()? {
                Some(error) => Ok(error),
                None => Err(io::ErrorKind::WouldBlock.into()),
            }),
            Err(error) => return error,
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(error) | Err(error) => return error,
        }
    }
}
