//! Finds free ports for the servers and the DNS server.
//!
//! Ports are chosen at random below the ephemeral range, so no outgoing connection takes the port of a server that is
//! down. A port is used only if it can be bound on every address.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::RangeInclusive,
};

use socket2::{Domain, Socket, Type};

/// The range of ports: below Linux's ephemeral ports, which begin at 32768, and above the ports of common services.
const RANGE: RangeInclusive<u16> = 15_000..=32_000;

/// Maximum number of ports to try.
const ATTEMPTS: usize = 200;

/// The port that all Pods of a cluster share.
///
/// The port stays bound on 127.0.0.1, which no Pod uses, so that no other cluster on this machine takes the port while
/// a Pod is down. The socket does not listen, so connections to it are refused.
pub(super) struct PodPort {
    port: u16,
    _held: Socket,
}

impl PodPort {
    /// Reserves a random port that is free on 127.0.0.1 and on all `addresses`.
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

/// Returns true if a loopback address is configured on this machine. macOS configures only 127.0.0.1 by default.
pub(super) fn exists(address: Ipv4Addr) -> io::Result<bool> {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(false),
        Err(error) => Err(error),
    }
}

/// Binds a random port on 127.0.0.1 for both UDP and TCP.
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
