//! The sockets that hickory asks through.
//!
//! They differ from tokio's in two things. A UDP socket is connected to its name server, so that a closed port is
//! noticed at once (ICMP says "connection refused") instead of after the whole time-out, and the kernel drops what
//! comes from elsewhere. And each packet is admitted by the [`RateLimit`], or waits until it is.

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

#[derive(Clone)]
pub(super) struct Sockets {
    tokio: TokioRuntimeProvider,
    rate_limit: Arc<Mutex<RateLimit>>,
    trouble: Trouble,
}

/// The last error of a socket: hickory reports most of them as "no connections available".
pub(super) type Trouble = Arc<Mutex<Option<io::Error>>>;

impl Sockets {
    pub(super) fn new(rate_limit: Arc<Mutex<RateLimit>>, trouble: Trouble) -> Self {
        Self { tokio: TokioRuntimeProvider::new(), rate_limit, trouble }
    }
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Connected;
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
        let (trouble, connecting) = (self.trouble.clone(), self.tokio.connect_tcp(server, local, timeout));
        Box::pin(async move { connecting.await.inspect_err(|error| note(&trouble, error)) })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let (rate_limit, trouble) = (self.rate_limit.clone(), self.trouble.clone());
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await.inspect_err(|error| note(&trouble, error))?;
            socket.connect(server).await.inspect_err(|error| note(&trouble, error))?;
            let socket = Arc::new(socket);
            let error = Mutex::new(Box::pin(error_of(socket.clone())) as Pin<Box<_>>);
            Ok(Connected { socket, server, rate_limit, trouble, error, turn: Mutex::new(Turn::Unasked) })
        })
    }
}

pub(super) struct Connected {
    socket: Arc<UdpSocket>,
    server: SocketAddr,
    rate_limit: Arc<Mutex<RateLimit>>,
    trouble: Trouble,
    /// Ends with what ICMP says. Waiting for a packet alone does not wake up on it.
    error: Mutex<Pin<Box<dyn Future<Output = io::Error> + Send>>>,
    turn: Mutex<Turn>,
}

/// Whether the socket's one packet may go out.
enum Turn {
    Unasked,
    Waits(Pin<Box<Sleep>>),
    Admitted,
}

fn note(trouble: &Trouble, error: &io::Error) {
    let copy = match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    };
    *lock(trouble) = Some(copy);
}

/// The first error that comes back, such as "connection refused" from a closed port.
async fn error_of(socket: Arc<UdpSocket>) -> io::Error {
    loop {
        let told = match socket.ready(Interest::ERROR).await {
            Ok(_) => socket.try_io(Interest::ERROR, || match socket.take_error()? {
                Some(error) => Ok(error),
                None => Err(io::ErrorKind::WouldBlock.into()),
            }),
            Err(error) => return error,
        };
        match told {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(error) | Err(error) => return error,
        }
    }
}

impl DnsUdpSocket for Connected {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buf = ReadBuf::new(buf);
        let failed = match self.socket.poll_recv(cx, &mut buf) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok((buf.filled().len(), self.server))),
            Poll::Ready(Err(error)) => error,
            Poll::Pending => ready!(lock(&self.error).as_mut().poll(cx)),
        };
        note(&self.trouble, &failed);
        Poll::Ready(Err(failed))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, packet: &[u8], _: SocketAddr) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_send_ready(cx))?;
        let mut turn = lock(&self.turn);
        loop {
            match &mut *turn {
                Turn::Admitted => return self.socket.poll_send(cx, packet),
                Turn::Waits(room) => ready!(room.as_mut().poll(cx)),
                Turn::Unasked => {}
            }
            *turn = match lock(&self.rate_limit).admit(Instant::now(), packet) {
                Ok(()) => Turn::Admitted,
                Err(room) => Turn::Waits(Box::pin(sleep_until(room))),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_an_error_at_once() {
        let closed = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let socket =
            Sockets::new(Arc::default(), Arc::default()).bind_udp(([0, 0, 0, 0], 0).into(), closed).await.unwrap();
        socket.send_to(b"anybody there?", closed).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(1), socket.recv_from(&mut [0; 100])).await.unwrap();
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
