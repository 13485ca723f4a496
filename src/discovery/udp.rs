//! Sockets for hickory-resolver.
//!
//! They differ from hickory's tokio sockets in two ways:
//!
//! - Each UDP socket is connected to its name server. The kernel then drops packets from other sources, and reports a
//!   closed port immediately (ICMP port unreachable becomes "connection refused") rather than after the full timeout.
//! - Each UDP packet is sent only when the [`RateLimit`] admits it.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime};
use tokio::{
    io::{Interest, ReadBuf},
    net::UdpSocket,
    time::{Sleep, sleep_until},
};

use super::rate_limit::RateLimit;
use crate::{
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// A hickory runtime that opens the sockets for one name server.
#[derive(Clone)]
pub(super) struct Sockets {
    tokio: TokioRuntimeProvider,
    rate_limit: Arc<Mutex<RateLimit>>,
    last_error: LastSocketError,
}

/// The last socket error for a name server. It is recorded because hickory reports most socket errors as "no
/// connections available".
pub(super) type LastSocketError = Arc<Mutex<Option<io::Error>>>;

impl Sockets {
    pub(super) fn new(rate_limit: Arc<Mutex<RateLimit>>, last_error: LastSocketError) -> Self {
        Self { tokio: TokioRuntimeProvider::new(), rate_limit, last_error }
    }
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = ConnectedUdp;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let (last_error, connecting) = (self.last_error.clone(), self.tokio.connect_tcp(server, local, timeout));
        Box::pin(async move { connecting.await.inspect_err(|error| record(&last_error, error)) })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let (rate_limit, last_error) = (self.rate_limit.clone(), self.last_error.clone());
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await.inspect_err(|error| record(&last_error, error))?;
            socket.connect(server).await.inspect_err(|error| record(&last_error, error))?;
            let socket = Arc::new(socket);
            let error = Mutex::new(Box::pin(socket_error(socket.clone())) as Pin<Box<_>>);
            let admission = Mutex::new(Admission::NotRequested);
            Ok(ConnectedUdp { socket, server, rate_limit, last_error, error, admission })
        })
    }
}

/// A UDP socket that is connected to one name server. hickory opens a new socket for each packet.
pub(super) struct ConnectedUdp {
    socket: Arc<UdpSocket>,
    server: SocketAddr,
    rate_limit: Arc<Mutex<RateLimit>>,
    last_error: LastSocketError,
    /// Future that resolves to an error reported by ICMP. Waiting for readability alone does not detect such an error.
    error: Mutex<Pin<Box<dyn Future<Output = io::Error> + Send>>>,
    admission: Mutex<Admission>,
}

/// The progress of the socket's packet through the rate limit.
enum Admission {
    NotRequested,
    Waiting(Pin<Box<Sleep>>),
    Admitted,
}

/// Stores a copy of `error`. `io::Error` does not implement `Clone`.
fn record(last_error: &LastSocketError, error: &io::Error) {
    let copy = match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    };
    *lock(last_error) = Some(copy);
}

/// Waits for the socket's first error, such as "connection refused" from a closed port.
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

impl DnsUdpSocket for ConnectedUdp {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buf = ReadBuf::new(buf);
        let failed = match self.socket.poll_recv(cx, &mut buf) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok((buf.filled().len(), self.server))),
            Poll::Ready(Err(error)) => error,
            Poll::Pending => ready!(lock(&self.error).as_mut().poll(cx)),
        };
        record(&self.last_error, &failed);
        Poll::Ready(Err(failed))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, packet: &[u8], _: SocketAddr) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_send_ready(cx))?;
        let mut admission = lock(&self.admission);
        loop {
            match &mut *admission {
                Admission::Admitted => return self.socket.poll_send(cx, packet),
                Admission::Waiting(sleep) => ready!(sleep.as_mut().poll(cx)),
                Admission::NotRequested => {}
            }
            *admission = match lock(&self.rate_limit).admit(Instant::now(), packet) {
                Ok(()) => Admission::Admitted,
                Err(free_at) => Admission::Waiting(Box::pin(sleep_until(free_at))),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reports_a_closed_port_immediately() {
        let closed = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let socket =
            Sockets::new(Arc::default(), Arc::default()).bind_udp(([0, 0, 0, 0], 0).into(), closed).await.unwrap();
        socket.send_to(b"a datagram", closed).await.unwrap();
        let received = tokio::time::timeout(Duration::from_secs(1), socket.recv_from(&mut [0; 100])).await.unwrap();
        assert_eq!(received.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
