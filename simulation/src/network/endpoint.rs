//! One end of a TCP connection, as the kernel of its host keeps it.

use std::{net::SocketAddr, task::Waker, time::Duration};

use tokio::time::Instant;

use super::{
    failure::Failure,
    options::{Options, RTO_INITIAL, RTO_MAX, RTO_MIN},
    packet::Segment,
    receive_buffer::ReceiveBuffer,
    send_buffer::SendBuffer,
};

/// The phase of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// The SYN was sent.
    Connecting,
    /// A SYN was received, and answered with SYN and ACK.
    Accepting,
    Open,
    /// The connection has failed. Nothing is sent or received any more.
    Failed(Failure),
}

/// The holder of an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// The connection was requested by the peer and has not been accepted yet.
    Listener,
    Application,
    /// The application has closed the socket, and the kernel completes the exchange with the peer.
    Kernel,
}

/// The state of one end of a connection.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) host: usize,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) phase: Phase,
    pub(super) options: Options,
    pub(super) owner: Owner,

    pub(super) sent: SendBuffer,
    /// The number of the first byte that is not acknowledged.
    pub(super) unacknowledged: u64,
    /// The number of the next byte to send for the first time.
    pub(super) next: u64,
    /// The end of the bytes that were in flight at the last retransmission time-out.
    pub(super) recover: u64,
    /// True once the application has closed its direction. The FIN follows the last byte.
    pub(super) is_shut_down: bool,
    /// Number of bytes that the peer can receive after `unacknowledged`.
    pub(super) window: u64,

    pub(super) received: ReceiveBuffer,
    /// The window in the last segment that was sent.
    pub(super) offered: u64,

    pub(super) timers: Timers,
    pub(super) round_trip: RoundTrip,
    /// Earliest arrival of the next packet, so that packets do not overtake each other.
    pub(super) arrival: Instant,

    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// The deadlines of an endpoint.
#[derive(Debug)]
pub(super) struct Timers {
    /// The time of the event that checks the deadlines.
    pub(super) scheduled: Option<Instant>,
    /// Time of the next retransmission, or of the next probe of a closed window.
    pub(super) retransmit: Option<Instant>,
    /// Number of retransmissions since the last progress.
    pub(super) retries: u32,
    /// Time since when the peer has acknowledged nothing.
    pub(super) stalled_since: Option<Instant>,
    /// Time of the last segment from the peer.
    pub(super) heard: Instant,
    /// Number of probes since then, by keepalive or because the peer's window is closed.
    pub(super) probes: u32,
    pub(super) keepalive: Option<Instant>,
    /// Time at which a socket that the application has closed stops waiting for the peer.
    pub(super) linger: Option<Instant>,
}

/// The estimate of the round-trip time (RFC 6298).
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    /// The end and the departure of the segment that is being timed.
    pub(super) timed: Option<(u64, Instant)>,
}

impl RoundTrip {
    /// Ends the measurement if the timed segment is acknowledged.
    pub(super) fn acknowledge(&mut self, number: u64, now: Instant) {
        let Some((_, departure)) = self.timed.take_if(|(end, _)| *end <= number) else { return };
        let measured = now - departure;
        match self.smoothed {
            None => (self.smoothed, self.variation) = (Some(measured), measured / 2),
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(measured)) / 4;
                self.smoothed = Some((smoothed * 7 + measured) / 8);
            }
        }
    }

    /// Returns the time-out after this number of retransmissions.
    pub(super) fn timeout(&self, retries: u32) -> Duration {
        let first = self.smoothed.map_or(RTO_INITIAL, |smoothed| smoothed + (self.variation * 4).max(RTO_MIN));
        (first * (1 << retries.min(16))).min(RTO_MAX)
    }
}

impl Endpoint {
    pub(super) fn new(
        host: usize,
        (local, remote): (SocketAddr, SocketAddr),
        phase: Phase,
        options: Options,
        now: Instant,
    ) -> Self {
        Self {
            host,
            local,
            remote,
            phase,
            options,
            owner: if phase == Phase::Accepting { Owner::Listener } else { Owner::Application },
            sent: SendBuffer::new(1),
            unacknowledged: 0,
            next: 0,
            recover: 0,
            is_shut_down: false,
            window: 0,
            received: ReceiveBuffer::new(1),
            offered: 0,
            timers: Timers {
                scheduled: None,
                retransmit: None,
                retries: 0,
                stalled_since: None,
                heard: now,
                probes: 0,
                keepalive: None,
                linger: None,
            },
            round_trip: RoundTrip::default(),
            arrival: now,
            reader: None,
            writer: None,
        }
    }

    /// Returns true if the handshake is complete and the connection has not failed.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Returns the number after the last byte to send, including the FIN.
    pub(super) fn end(&self) -> u64 {
        self.sent.end() + u64::from(self.is_shut_down)
    }

    /// Returns the segment at a number: the SYN, data, or the FIN.
    pub(super) fn segment(&self, number: u64, limit: u64) -> Segment {
        let data = if number == 0 { Default::default() } else { self.sent.segment(number, limit) };
        let after = number + data.len() as u64;
        Segment {
            syn: number == 0,
            fin: self.is_shut_down && number > 0 && after == self.sent.end(),
            number,
            data,
            ..self.acknowledgement()
        }
    }

    /// Returns a segment without data.
    pub(super) fn acknowledgement(&self) -> Segment {
        let ack = (self.phase != Phase::Connecting).then(|| self.received.next());
        Segment { number: self.next, ack, window: self.received.window(), ..Segment::default() }
    }

    /// Returns the time of the next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let Timers { retransmit, keepalive, linger, .. } = self.timers;
        [retransmit, keepalive, linger].into_iter().flatten().min()
    }
}

impl Segment {
    /// Returns the number after the segment.
    pub(super) fn end(&self) -> u64 {
        self.number + self.data.len() as u64 + u64::from(self.syn) + u64::from(self.fin)
    }
}
