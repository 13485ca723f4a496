use std::time::Duration;

use podpool::simulation::{Keepalive, TcpOptions};

/// Maximum number of bytes in a segment.
pub(super) const SEGMENT: usize = 16 * 1024;
/// Size of the receive buffer, and therefore the largest window.
pub(super) const RECEIVE_BUFFER: u64 = 128 * 1024;
/// Size of the send buffer.
pub(super) const SEND_BUFFER: usize = 256 * 1024;
/// Shortest and longest retransmission time-out (Linux: TCP_RTO_MIN and TCP_RTO_MAX).
pub(super) const RTO_MIN: Duration = Duration::from_millis(200);
pub(super) const RTO_MAX: Duration = Duration::from_secs(120);
/// Retransmission time-out of a SYN, and before the first measurement (RFC 6298).
pub(super) const RTO_INITIAL: Duration = Duration::from_secs(1);
/// Number of retransmissions after which a connection without a user time-out fails (Linux: tcp_retries2).
pub(super) const RETRIES: u32 = 15;
/// Number of retransmissions of a SYN or a SYN with ACK (Linux: tcp_syn_retries, tcp_synack_retries).
pub(super) const SYN_RETRIES: u32 = 6;
pub(super) const SYN_ACK_RETRIES: u32 = 5;
/// Number of retransmissions after the application has closed the socket (Linux: tcp_orphan_retries).
pub(super) const ORPHAN_RETRIES: u32 = 8;
/// Time for which a closed socket waits for the peer's FIN (Linux: tcp_fin_timeout).
pub(super) const FIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The keepalive settings of a socket, with Linux's defaults in place of zeros.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probing {
    pub(super) idle: Duration,
    pub(super) interval: Duration,
    pub(super) count: u32,
}

impl Probing {
    fn new(keepalive: Keepalive) -> Self {
        let or = |value: Duration, default| if value.is_zero() { Duration::from_secs(default) } else { value };
        let Keepalive { idle, interval, count } = keepalive;
        Self { idle: or(idle, 7200), interval: or(interval, 75), count: if count == 0 { 9 } else { count } }
    }
}

/// The options of an endpoint that matter after it has been opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) user_timeout: Option<Duration>,
    pub(super) keepalive: Option<Probing>,
}

impl From<&TcpOptions> for Options {
    fn from(options: &TcpOptions) -> Self {
        Self {
            user_timeout: Some(options.user_timeout).filter(|timeout| !timeout.is_zero()),
            keepalive: options.keepalive.map(Probing::new),
        }
    }
}
