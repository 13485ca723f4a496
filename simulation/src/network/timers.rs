//! TCP: retransmission, probes of a closed window, keepalive and the user time-out, as in Linux.

use tokio::time::Instant;

use super::{
    core::Core,
    endpoint::{Owner, Phase},
    failure::Failure,
    options::{FIN_TIMEOUT, ORPHAN_RETRIES, RETRIES, SYN_ACK_RETRIES, SYN_RETRIES},
    packet::Segment,
};

impl Core {
    /// Checks the deadlines of an endpoint.
    pub(super) fn timer(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        // An event that was scheduled before an earlier one finds nothing to do.
        if endpoint.timers.scheduled.is_none_or(|scheduled| scheduled > now) {
            return;
        }
        endpoint.timers.scheduled = None;
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if is_due(endpoint.timers.linger) {
            if endpoint.unacknowledged == endpoint.end() {
                return self.fail(number, Failure::TimedOut);
            }
            endpoint.timers.linger = Some(now + FIN_TIMEOUT);
        }
        if is_due(endpoint.timers.retransmit) {
            self.retransmission(number, now);
        }
        if self.endpoints.get(&number).is_some_and(|endpoint| is_due(endpoint.timers.keepalive)) {
            self.keepalive(number, now);
        }
        self.reschedule(number);
    }

    /// Retransmits the first segment, or probes a closed window.
    fn retransmission(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        let is_in_flight = endpoint.unacknowledged < endpoint.next;
        let limit = match (endpoint.phase, endpoint.owner) {
            (Phase::Failed(_), _) => return endpoint.timers.retransmit = None,
            (Phase::Connecting, _) => SYN_RETRIES,
            (Phase::Accepting, _) => SYN_ACK_RETRIES,
            (Phase::Open, Owner::Kernel) => ORPHAN_RETRIES,
            (Phase::Open, _) => RETRIES,
        };
        let gives_up_at = match (endpoint.options.user_timeout, endpoint.timers.stalled_since) {
            (Some(limit), Some(since)) if endpoint.is_open() => Some(since + limit),
            _ => None,
        };
        let attempts = if is_in_flight { endpoint.timers.retries } else { endpoint.timers.probes };
        if gives_up_at.map_or(attempts >= limit, |at| at <= now) {
            return self.fail(number, Failure::TimedOut);
        }
        endpoint.timers.retries += 1;
        let next = now + endpoint.round_trip.timeout(endpoint.timers.retries);
        endpoint.timers.retransmit = Some(gives_up_at.map_or(next, |at| next.min(at)));
        if is_in_flight {
            endpoint.recover = endpoint.next;
            self.retransmit(number, now);
        } else if endpoint.next < endpoint.end() {
            endpoint.timers.probes += 1;
            self.probe(number, now);
        } else {
            endpoint.timers.retransmit = None;
        }
    }

    /// Sends a keepalive probe if the connection is idle, and ends the connection if the peer has answered none.
    fn keepalive(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        let Some(keepalive) = endpoint.options.keepalive.filter(|_| endpoint.is_open()) else {
            return endpoint.timers.keepalive = None;
        };
        let silent = now - endpoint.timers.heard;
        if endpoint.unacknowledged < endpoint.end() {
            // The retransmissions show whether the peer is alive.
            endpoint.timers.keepalive = Some(now + keepalive.idle);
        } else if silent < keepalive.idle {
            endpoint.timers.keepalive = Some(endpoint.timers.heard + keepalive.idle);
        } else {
            let probes = endpoint.timers.probes;
            let is_dead = match endpoint.options.user_timeout {
                Some(limit) => silent >= limit && probes > 0,
                None => probes >= keepalive.count,
            };
            if is_dead {
                let segment = Segment { rst: true, ..endpoint.acknowledgement() };
                self.send_segment(number, segment, now);
                return self.fail(number, Failure::TimedOut);
            }
            endpoint.timers.probes += 1;
            endpoint.timers.keepalive = Some(now + keepalive.interval);
            self.probe(number, now);
        }
    }

    /// Sends a segment before the expected number, which the peer acknowledges.
    fn probe(&mut self, number: u64, now: Instant) {
        let Some(endpoint) = self.endpoints.get(&number) else { return };
        let segment = endpoint.acknowledgement();
        self.send_segment(number, Segment { number: segment.number.saturating_sub(1), ..segment }, now);
    }
}
