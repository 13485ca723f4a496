use std::{net::SocketAddr, time::Duration};

/// The options of a TCP socket. TCP_NODELAY is always set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketOptions {
    /// The local address, or `None` if the operating system chooses it.
    pub(crate) local: Option<SocketAddr>,
    /// Time after which a connection fails if sent data is not acknowledged. Zero means the operating system's default.
    pub(crate) user_timeout: Duration,
    /// The intervals of TCP keepalive, or `None` if it is off.
    pub(crate) keepalive: Option<Keepalive>,
}

/// The intervals of TCP keepalive. Zero means the operating system's default, as in libpq (PostgreSQL manual,
/// "Parameter Key Words").
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keepalive {
    /// Time without received data after which the first probe is sent.
    pub(crate) idle: Duration,
    /// Time between two probes.
    pub(crate) interval: Duration,
    /// Number of probes without a response after which the connection fails.
    pub(crate) count: u32,
}
