//! TCP: the segments that an endpoint receives and sends.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::{
    core::{Core, Event, Listener},
    endpoint::{Endpoint, Owner, Phase},
    failure::Failure,
    options::{FIN_TIMEOUT, Options, RECEIVE_BUFFER, SEGMENT},
    packet::{Content, Packet, Segment},
};

impl Core {
    /// Adds an endpoint that sends a SYN.
    pub(super) fn open(&mut self, host: usize, pair: (SocketAddr, SocketAddr), options: Options, now: Instant) -> u64 {
        let number = self.number();
        self.endpoints.insert(number, Endpoint::new(host, pair, Phase::Connecting, options, now));
        self.pairs.insert(pair, number);
        self.transmit(number, now);
        number
    }

    /// Processes a segment.
    pub(super) fn receive_segment(&mut self, host: usize, packet: Packet, now: Instant) {
        let Content::Tcp(segment) = &packet.content else { return };
        let pair = (packet.destination, packet.source);
        match self.pairs.get(&pair) {
            Some(&number) => self.receive(number, segment.clone(), now),
            None if segment.syn && segment.ack.is_none() && self.listeners.contains_key(&packet.destination) => {
                let number = self.number();
                let mut endpoint = Endpoint::new(host, pair, Phase::Accepting, Options::default(), now);
                endpoint.window = segment.window;
                self.endpoints.insert(number, endpoint);
                self.pairs.insert(pair, number);
                self.transmit(number, now);
            }
            None => self.refuse(host, &packet, segment, now),
        }
    }

    fn receive(&mut self, number: u64, segment: Segment, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        if segment.rst {
            let failure = if endpoint.phase == Phase::Connecting { Failure::Refused } else { Failure::Reset };
            return self.fail(number, failure);
        }
        endpoint.timers.heard = now;
        endpoint.timers.probes = 0;
        let was_open = endpoint.is_open();
        match endpoint.phase {
            Phase::Connecting if segment.syn && segment.ack == Some(1) => endpoint.phase = Phase::Open,
            Phase::Accepting if segment.ack.is_some_and(|ack| ack >= 1) => endpoint.phase = Phase::Open,
            Phase::Connecting if segment.ack.is_some() => {
                // The peer still has a former connection between these addresses.
                let reply = Segment { rst: true, number: segment.ack.unwrap_or(0), ..Segment::default() };
                return self.send_segment(number, reply, now);
            }
            Phase::Connecting | Phase::Failed(_) => return,
            Phase::Accepting | Phase::Open => {}
        }
        if let Some(ack) = segment.ack {
            self.acknowledged(number, ack, segment.window, now);
        }
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        if !was_open && endpoint.is_open() {
            self.established(number, now);
        }
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        if segment.syn {
            // Acknowledges the SYN with ACK, again if it is repeated. A SYN on an open connection comes from a peer
            // that has forgotten it, which answers the acknowledgement with RST. A repeated SYN is answered by the
            // retransmission.
            if segment.ack.is_some() || was_open {
                self.acknowledge(number, now);
            }
            return;
        }
        if segment.data.is_empty() && !segment.fin {
            // A segment before the expected number is a keepalive probe.
            if segment.number < endpoint.received.next() {
                self.acknowledge(number, now);
            }
            return;
        }
        if endpoint.owner == Owner::Kernel && !segment.data.is_empty() && segment.end() > endpoint.received.next() {
            // The application has closed the socket, so nobody can read the data.
            self.reset(number, now);
            return;
        }
        if endpoint.received.receive(segment.number, segment.data, segment.fin) {
            self.woken.extend(endpoint.reader.take());
        }
        self.acknowledge(number, now);
        self.remove_if_done(number);
    }

    /// Completes the handshake.
    fn established(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        if let Some(keepalive) = endpoint.options.keepalive {
            endpoint.timers.keepalive = Some(now + keepalive.idle);
        }
        self.woken.extend(endpoint.reader.take());
        self.woken.extend(endpoint.writer.take());
        if endpoint.owner == Owner::Listener {
            match self.listeners.get_mut(&endpoint.local) {
                Some(listener) => {
                    listener.ready.push_back(number);
                    self.woken.extend(listener.waker.take());
                }
                // The listener was closed during the handshake.
                None => self.reset(number, now),
            }
        }
        self.reschedule(number);
    }

    /// Processes an acknowledgement.
    fn acknowledged(&mut self, number: u64, ack: u64, window: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        if ack > endpoint.next {
            return;
        }
        let opened = window > endpoint.window && ack >= endpoint.unacknowledged;
        if ack >= endpoint.unacknowledged {
            endpoint.window = window;
        }
        if ack > endpoint.unacknowledged {
            endpoint.unacknowledged = ack;
            let end = endpoint.sent.end();
            endpoint.sent.acknowledge(ack.clamp(1, end));
            endpoint.round_trip.acknowledge(ack, now);
            endpoint.timers.retries = 0;
            endpoint.timers.stalled_since = (ack < endpoint.next).then_some(now);
            endpoint.timers.retransmit = (ack < endpoint.next).then(|| now + endpoint.round_trip.timeout(0));
            if endpoint.sent.space() > 0 {
                self.woken.extend(endpoint.writer.take());
            }
            if ack < endpoint.recover {
                self.retransmit(number, now);
            }
        } else if opened && ack == endpoint.next {
            endpoint.timers.retries = 0;
            endpoint.timers.stalled_since = None;
            endpoint.timers.retransmit = None;
        }
        self.transmit(number, now);
        self.remove_if_done(number);
    }

    /// Sends the SYN, data and the FIN, as far as they have not been sent and the peer's window allows.
    pub(super) fn transmit(&mut self, number: u64, now: Instant) {
        loop {
            let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
            let in_handshake = matches!(endpoint.phase, Phase::Connecting | Phase::Accepting);
            if matches!(endpoint.phase, Phase::Failed(_))
                || endpoint.next >= if in_handshake { 1 } else { endpoint.end() }
            {
                break;
            }
            let allowed = (endpoint.unacknowledged + endpoint.window).saturating_sub(endpoint.next);
            let only_fin = endpoint.next == endpoint.sent.end();
            if !in_handshake && allowed == 0 && !only_fin {
                // The window is closed: the peer is probed until it opens.
                if endpoint.timers.retransmit.is_none() {
                    endpoint.timers.retransmit = Some(now + endpoint.round_trip.timeout(0));
                    endpoint.timers.stalled_since.get_or_insert(now);
                }
                break;
            }
            let segment = endpoint.segment(endpoint.next, allowed);
            endpoint.next = segment.end();
            if endpoint.round_trip.timed.is_none() {
                endpoint.round_trip.timed = Some((segment.end(), now));
            }
            endpoint.timers.stalled_since.get_or_insert(now);
            if endpoint.timers.retransmit.is_none() {
                endpoint.timers.retransmit = Some(now + endpoint.round_trip.timeout(endpoint.timers.retries));
            }
            self.send_segment(number, segment, now);
        }
        self.reschedule(number);
    }

    /// Sends the bytes again that were in flight at the last time-out.
    pub(super) fn retransmit(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        // A segment that was sent twice is not timed, because the acknowledgement could be for either (Karn).
        endpoint.round_trip.timed = None;
        let (mut at, end) = (endpoint.unacknowledged, endpoint.recover.min(endpoint.next));
        let first_only = endpoint.timers.retries > 0;
        while at < end {
            let Some(endpoint) = self.endpoints.get(&number) else { return };
            let segment = endpoint.segment(at, SEGMENT as u64);
            if segment.end() == at {
                return;
            }
            at = segment.end();
            self.send_segment(number, segment, now);
            if first_only {
                return;
            }
        }
    }

    pub(super) fn acknowledge(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get(&number) else { return };
        let segment = endpoint.acknowledgement();
        self.send_segment(number, segment, now);
    }

    pub(super) fn send_segment(&mut self, number: u64, segment: Segment, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        endpoint.offered = segment.window;
        let (host, earliest) = (endpoint.host, endpoint.arrival);
        let packet = Packet { source: endpoint.local, destination: endpoint.remote, content: Content::Tcp(segment) };
        if let Some(arrival) = self.send(host, packet, now, earliest)
            && let Some(endpoint) = self.endpoints.get_mut(&number)
        {
            endpoint.arrival = arrival;
        }
    }

    /// Sends a window update if the application has read enough.
    pub(super) fn has_read(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get(&number) else { return };
        let window = endpoint.received.window();
        if endpoint.is_open() && endpoint.offered < RECEIVE_BUFFER / 4 && window >= RECEIVE_BUFFER / 2 {
            self.acknowledge(number, now);
        }
    }

    /// Ends a connection with an error.
    pub(super) fn fail(&mut self, number: u64, failure: Failure) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        let pair = (endpoint.local, endpoint.remote);
        endpoint.phase = Phase::Failed(failure);
        self.woken.extend(endpoint.reader.take());
        self.woken.extend(endpoint.writer.take());
        let keep = endpoint.owner == Owner::Application;
        if self.pairs.get(&pair) == Some(&number) {
            self.pairs.remove(&pair);
        }
        if !keep {
            self.endpoints.remove(&number);
        }
    }

    /// Sends RST and ends the connection.
    pub(super) fn reset(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get(&number) else { return };
        if !matches!(endpoint.phase, Phase::Failed(_) | Phase::Connecting) {
            let segment = Segment { rst: true, ..endpoint.acknowledgement() };
            self.send_segment(number, segment, now);
        }
        self.fail(number, Failure::Reset);
    }

    /// Closes the application's direction. The FIN follows the data.
    pub(super) fn shut_down(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        endpoint.is_shut_down = true;
        self.transmit(number, now);
    }

    /// Closes a listening socket and ends the connections that were not accepted.
    pub(super) fn close_listener(&mut self, local: SocketAddr, now: Instant) -> Option<Listener> {
        let removed = self.listeners.remove(&local);
        for number in removed.iter().flat_map(|listener| &listener.ready) {
            self.reset(*number, now);
        }
        removed
    }

    /// Closes a socket, as the drop of a socket does. Unread data makes the kernel send RST.
    pub(super) fn close(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        if endpoint.owner != Owner::Application {
            return;
        }
        endpoint.owner = Owner::Kernel;
        match endpoint.phase {
            Phase::Open if endpoint.received.is_empty() => {
                endpoint.timers.linger = Some(now + FIN_TIMEOUT);
                endpoint.timers.keepalive = None;
                self.shut_down(number, now);
                self.remove_if_done(number);
            }
            Phase::Open | Phase::Accepting => self.reset(number, now),
            Phase::Connecting | Phase::Failed(_) => self.fail(number, Failure::Reset),
        }
    }

    /// Removes an endpoint that the application has closed and whose directions have both ended.
    fn remove_if_done(&mut self, number: u64) {
        let Some(endpoint) = self.endpoints.get(&number) else { return };
        let has_sent_all = endpoint.is_shut_down && endpoint.unacknowledged == endpoint.end();
        if endpoint.owner == Owner::Kernel && has_sent_all && endpoint.received.is_finished() {
            let pair = (endpoint.local, endpoint.remote);
            self.pairs.remove(&pair);
            self.endpoints.remove(&number);
        }
    }

    /// Schedules the check of the endpoint's next deadline.
    pub(super) fn reschedule(&mut self, number: u64) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        let Some(deadline) = endpoint.deadline() else { return };
        if endpoint.timers.scheduled.is_none_or(|scheduled| deadline < scheduled) {
            endpoint.timers.scheduled = Some(deadline);
            self.schedule(deadline, Event::Timer(number));
        }
    }
}
