use std::net::SocketAddr;

use bytes::Bytes;

/// A packet on its way from one host to another.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Tcp(Segment),
    Udp(Bytes),
    /// ICMP port unreachable: the source of this packet received a UDP packet for a closed port.
    PortUnreachable,
}

/// A TCP segment. Sequence numbers start at 0 with SYN and do not wrap.
#[derive(Clone, Debug, Default)]
pub(super) struct Segment {
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    /// The number of the first byte. SYN and FIN count as one byte each.
    pub(super) number: u64,
    /// The number of the next byte that the sender expects.
    pub(super) ack: Option<u64>,
    /// Number of bytes after `ack` that the sender can receive.
    pub(super) window: u64,
    pub(super) data: Bytes,
}
