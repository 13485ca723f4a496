use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::config::Limits;

/// TCP options that make the operating system detect a dead peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketOptions {
    user_timeout: Duration,
    keepalive_idle: Duration,
    keepalive_interval: Duration,
    keepalive_count: u32,
}

impl SocketOptions {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            user_timeout: limits.tcp_user_timeout,
            keepalive_idle: limits.keepalives_idle,
            keepalive_interval: limits.keepalives_interval,
            keepalive_count: limits.keepalives_count,
        }
    }

    /// Connects a socket with these options.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_nodelay(true)?;
        // Zero means the operating system's default, as in libpq (PostgreSQL manual, "Parameter Key Words").
        let mut keepalive = TcpKeepalive::new();
        if !self.keepalive_idle.is_zero() {
            keepalive = keepalive.with_time(self.keepalive_idle);
        }
        #[cfg(not(target_os = "openbsd"))]
        {
            if !self.keepalive_interval.is_zero() {
                keepalive = keepalive.with_interval(self.keepalive_interval);
            }
            if self.keepalive_count > 0 {
                keepalive = keepalive.with_retries(self.keepalive_count);
            }
        }
        let options = SockRef::from(&socket);
        options.set_keepalive(true)?;
        options.set_tcp_keepalive(&keepalive)?;
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        if !self.user_timeout.is_zero() {
            options.set_tcp_user_timeout(Some(self.user_timeout))?;
        }
        socket.connect(address).await
    }
}
