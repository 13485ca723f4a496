//! Sockets for hickory-resolver.
//!
//! They differ from hickory's tokio sockets in two ways:
//!
//! - Each UDP socket is connected to its name server. Packets from other sources are dropped, and a closed port is
//!   reported immediately rather than after the full timeout.
//! - Each UDP packet is sent only when the [`RateLimit`] admits it.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, Spawn, TokioTime, iocompat::AsyncIoTokioAsStd};
use tokio::time::{Sleep, sleep_until, timeout};

use super::rate_limit::RateLimit;
use crate::{
    sync::{Mutex, lock},
    system::{Datagram, JoinSet, SocketOptions, TcpStream, connect},
    time::{Duration, Instant},
};

/// Time limit for a TCP connection if hickory passes none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A hickory runtime that opens the sockets for one name server.
#[derive(Clone)]
pub(super) struct Sockets {
    tasks: Tasks,
    rate_limit: Arc<Mutex<RateLimit>>,
    last_error: LastSocketError,
}

/// The last socket error for a name server. It is recorded because hickory reports most socket errors as "no
/// connections available".
pub(super) type LastSocketError = Arc<Mutex<Option<io::Error>>>;

impl Sockets {
    pub(super) fn new(rate_limit: Arc<Mutex<RateLimit>>, last_error: LastSocketError) -> Self {
        Self { tasks: Tasks::default(), rate_limit, last_error }
    }
}

/// The background tasks of the connections to one name server. They are aborted when the last copy is dropped.
#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Spawn for Tasks {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.0);
        tasks.spawn(future);
        while tasks.try_join_next().is_some() {}
    }
}

impl RuntimeProvider for Sockets {
    type Handle = Tasks;
    type Timer = TokioTime;
    type Udp = ConnectedUdp;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.tasks.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let last_error = self.last_error.clone();
        Box::pin(async move {
            let options = SocketOptions { local, ..SocketOptions::default() };
            let connected = match timeout(limit.unwrap_or(CONNECT_TIMEOUT), connect(server, &options)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "TCP connect timed out")),
            };
            connected.map(AsyncIoTokioAsStd).inspect_err(|error| record(&last_error, error))
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let (rate_limit, last_error) = (self.rate_limit.clone(), self.last_error.clone());
        Box::pin(async move {
            let opened = Datagram::bind_connected(local, server).await;
            let socket = opened.inspect_err(|error| record(&last_error, error))?;
            let admission = Mutex::new(Admission::NotRequested);
            Ok(ConnectedUdp { socket, server, rate_limit, last_error, admission })
        })
    }
}

/// A UDP socket that is connected to one name server. hickory opens a new socket for each packet.
pub(super) struct ConnectedUdp {
    socket: Datagram,
    server: SocketAddr,
    rate_limit: Arc<Mutex<RateLimit>>,
    last_error: LastSocketError,
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

impl DnsUdpSocket for ConnectedUdp {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let received = ready!(self.socket.poll_recv(cx, buf)).inspect_err(|error| record(&self.last_error, error));
        Poll::Ready(received.map(|length| (length, self.server)))
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
    use tokio::net::UdpSocket;

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
