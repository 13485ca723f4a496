//! TCP sockets.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use podpool::simulation::TcpOptions;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    Network,
    core::{Core, Listener, store},
    endpoint::{Endpoint, Owner, Phase},
    failure::Failure,
};

/// A connected TCP socket. Dropping it closes the connection: with FIN, or with RST if there is unread data.
#[derive(Debug)]
pub struct TcpStream {
    network: Network,
    number: u64,
    local: SocketAddr,
    peer: SocketAddr,
}

impl TcpStream {
    /// Connects to an address.
    pub(super) async fn connect(
        network: Network,
        host: usize,
        peer: SocketAddr,
        options: TcpOptions,
    ) -> io::Result<Self> {
        let stream = network.with(|core| {
            let local = core.choose_local(host, options.local, peer)?;
            let number = core.open(host, (local, peer), (&options).into(), Instant::now());
            Ok::<_, Failure>(Self { network: network.clone(), number, local, peer })
        })?;
        poll_fn(|cx| stream.poll_connected(cx)).await?;
        Ok(stream)
    }

    /// Returns the socket's address.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Returns the address of the peer.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        self.network.with(|core| core.reset(self.number, Instant::now()));
    }

    fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|core| {
            let mut retired = Vec::new();
            let endpoint = endpoint(core, self.number)?;
            match endpoint.phase {
                Phase::Open => return Poll::Ready(Ok(())),
                Phase::Failed(failure) => return Poll::Ready(Err(failure)),
                Phase::Connecting | Phase::Accepting => store(&mut endpoint.writer, cx, &mut retired),
            }
            core.retired.append(&mut retired);
            Poll::Pending
        })
    }

    fn poll<T>(&self, poll: impl FnOnce(&mut Core) -> Poll<Result<T, Failure>>) -> Poll<io::Result<T>> {
        self.network.with(poll).map_err(Into::into)
    }
}

/// Returns an endpoint. Fails if its host has crashed.
fn endpoint(core: &mut Core, number: u64) -> Result<&mut Endpoint, Failure> {
    core.endpoints.get_mut(&number).ok_or(Failure::TimedOut)
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(|core| {
            let mut retired = Vec::new();
            let endpoint = endpoint(core, self.number)?;
            if !endpoint.received.is_empty() {
                endpoint.received.read(buf);
                core.has_read(self.number, Instant::now());
                return Poll::Ready(Ok(()));
            }
            match endpoint.phase {
                Phase::Failed(failure) => return Poll::Ready(Err(failure)),
                _ if endpoint.received.is_finished() => return Poll::Ready(Ok(())),
                _ => store(&mut endpoint.reader, cx, &mut retired),
            }
            core.retired.append(&mut retired);
            Poll::Pending
        })
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|core| {
            let mut retired = Vec::new();
            let endpoint = endpoint(core, self.number)?;
            match endpoint.phase {
                Phase::Failed(failure) => return Poll::Ready(Err(failure)),
                _ if endpoint.is_shut_down => return Poll::Ready(Err(Failure::BrokenPipe)),
                _ => {}
            }
            let written = endpoint.sent.write(bytes);
            if written > 0 || bytes.is_empty() {
                core.transmit(self.number, Instant::now());
                return Poll::Ready(Ok(written));
            }
            store(&mut endpoint.writer, cx, &mut retired);
            core.retired.append(&mut retired);
            Poll::Pending
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|core| {
            if endpoint(core, self.number)?.is_open() {
                core.shut_down(self.number, Instant::now());
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.network.with(|core| core.close(self.number, Instant::now()));
    }
}

/// A listening TCP socket. Dropping it ends the connections that were not accepted.
#[derive(Debug)]
pub struct TcpListener {
    network: Network,
    number: u64,
    local: SocketAddr,
}

impl TcpListener {
    pub(super) fn bind(network: &Network, host: usize, local: SocketAddr) -> io::Result<Self> {
        network.with(|core| {
            if !core.hosts[host].addresses.contains(&local.ip()) {
                return Err(Failure::AddressNotAvailable.into());
            }
            if core.listeners.contains_key(&local) {
                return Err(Failure::AddressInUse.into());
            }
            let number = core.number();
            core.listeners.insert(local, Listener { host, number, ..Listener::default() });
            Ok(Self { network: network.clone(), number, local })
        })
    }

    /// Returns the socket's address.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Accepts a connection and returns the address of the peer.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.network.with(|core| {
            let listener = core.listeners.get_mut(&self.local).filter(|listener| listener.number == self.number);
            let Some(listener) = listener else {
                return Poll::Ready(Err(Failure::AddressNotAvailable.into()));
            };
            while let Some(number) = listener.ready.pop_front() {
                // A connection may have ended before it was accepted.
                let Some(endpoint) = core.endpoints.get_mut(&number) else { continue };
                endpoint.owner = Owner::Application;
                let (local, peer) = (endpoint.local, endpoint.remote);
                return Poll::Ready(Ok((TcpStream { network: self.network.clone(), number, local, peer }, peer)));
            }
            let mut retired = Vec::new();
            store(&mut listener.waker, cx, &mut retired);
            core.retired.append(&mut retired);
            Poll::Pending
        })
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let removed = self.network.with(|core| {
            let is_open = core.listeners.get(&self.local).is_some_and(|listener| listener.number == self.number);
            is_open.then(|| core.close_listener(self.local, Instant::now()))
        });
        drop(removed);
    }
}
