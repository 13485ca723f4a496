use std::{io, net::SocketAddr};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::system::{Keepalive, SocketOptions};

/// Connects a TCP socket.
///
/// Cancel-safe: dropping the future closes the socket.
pub(crate) async fn connect(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = options.local {
        socket.bind(local)?;
    }
    socket.set_nodelay(true)?;
    let settings = SockRef::from(&socket);
    if let Some(keepalive) = &options.keepalive {
        settings.set_keepalive(true)?;
        settings.set_tcp_keepalive(&intervals(keepalive))?;
    }
    if !options.user_timeout.is_zero() {
        // The other operating systems have no such option.
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        settings.set_tcp_user_timeout(Some(options.user_timeout))?;
    }
    socket.connect(address).await
}

/// Returns the intervals that differ from the operating system's defaults.
fn intervals(keepalive: &Keepalive) -> TcpKeepalive {
    let mut intervals = TcpKeepalive::new();
    if !keepalive.idle.is_zero() {
        intervals = intervals.with_time(keepalive.idle);
    }
    #[cfg(not(target_os = "openbsd"))]
    {
        if !keepalive.interval.is_zero() {
            intervals = intervals.with_interval(keepalive.interval);
        }
        if keepalive.count > 0 {
            intervals = intervals.with_retries(keepalive.count);
        }
    }
    intervals
}
