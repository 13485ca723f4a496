//! Ports that nobody else uses: every port is drawn at random below the range that the system gives to outgoing
//! connections, so that it is still free when a server comes back to it, and is bound on every address before use.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::RangeInclusive,
};

use socket2::{Domain, Socket, Type};

/// Below 32768, where Linux's ephemeral ports begin, and above what well-known programs use.
const RANGE: RangeInclusive<u16> = 15_000..=32_000;

/// How many ports are tried.
const ATTEMPTS: usize = 200;

/// The port that all Pods of a cluster share, held on 127.0.0.1 (where no Pod lives) so that no other cluster of this
/// machine takes it while a Pod is down. Bound and never listening: connecting to it is refused.
pub(super) struct PodPort {
    port: u16,
    _held: Socket,
}

impl PodPort {
    /// Draws a port that is free on 127.0.0.1 and on every one of `addresses`.
    pub(super) fn reserve(addresses: &[Ipv4Addr]) -> io::Result<Self> {
        any_port(|port| {
            let held = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
            for address in addresses {
                TcpListener::bind((*address, port))?;
            }
            Ok(Self { port, _held: held })
        })
    }

    pub(super) fn number(&self) -> u16 {
        self.port
    }
}

/// Tells whether this machine answers to a loopback address: macOS knows only 127.0.0.1 unless told otherwise.
pub(super) fn exists(address: Ipv4Addr) -> io::Result<bool> {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(false),
        Err(error) => Err(error),
    }
}

/// One port of 127.0.0.1 for UDP and TCP.
pub(super) fn dns_sockets() -> io::Result<(UdpSocket, TcpListener)> {
    any_port(|port| bind_dns((IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()))
}

pub(super) fn bind_dns(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?))
}

fn any_port<T>(bind: impl Fn(u16) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        match bind(rand::random_range(RANGE)) {
            Ok(bound) => return Ok(bound),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
