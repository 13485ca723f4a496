//! Limits DNS packets to four in any one second. While lookups fail, the limit applies to all packets. While lookups
//! succeed, the limit applies only to retransmissions.
//!
//! Crates considered: [`governor`](https://docs.rs/governor) (GCRA) and
//! [`leaky-bucket`](https://docs.rs/leaky-bucket) (token bucket). Neither fits, for three reasons:
//!
//! - Both refill their budget while a burst is being sent. With a burst size of four and a rate of four packets per
//!   second, seven or eight packets can be sent within one second. With a burst size of one, the first A packet and the
//!   first AAAA packet of a lookup would be sent 250 ms apart.
//! - Both either admit and count a packet, or reject the packet and leave their state unchanged. In this module, the
//!   first packet of a query is always sent while lookups succeed. It is counted even above the limit, so that
//!   retransmissions wait.
//! - Neither has priorities. In this module, a retransmission yields to the first packet of another query.

use std::{
    collections::{VecDeque, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use crate::time::{Duration, Instant};

/// Length of the sliding window in which packets are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// Maximum number of packets in the window. The first packets of queries may exceed this number while lookups succeed.
const MAX_PACKETS: usize = 4;
/// Head start of a delayed first packet. Once the window has space for the packet, retransmissions wait this much
/// longer.
const FIRST_PACKET_PRIORITY: Duration = Duration::from_millis(20);
/// Time within which an identical packet counts as a retransmission. No query is retransmitted after a longer time.
const REPEAT_WINDOW: Duration = Duration::from_secs(10);

/// A sliding-window limit on the packets that a resolver sends.
///
/// The first packet of a query waits only while lookups fail. A retransmission always waits for space in the window,
/// and yields to delayed first packets, because a name server that was not queried yet is more likely to respond than a
/// name server that was queried and has not responded.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    /// The packets in the window, oldest first.
    counted: VecDeque<Counted>,
    /// Recent packets, each as a hash of its bytes. The bytes begin with a random 16-bit id, so two queries within
    /// [`REPEAT_WINDOW`] rarely have equal packets. If they do, the second packet counts as a retransmission and waits
    /// while the window is full.
    seen: VecDeque<(Instant, u64)>,
    /// Time at which the most recently delayed first packet may be sent.
    claimed: Option<Instant>,
    /// True if the last reservation was made while lookups fail.
    throttled: bool,
    total: u64,
    /// Send times of all packets.
    #[cfg(test)]
    pub(super) log: Vec<Instant>,
}

/// A packet that counts toward the limit.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// Time at which the packet was sent, or at which its place was reserved.
    at: Instant,
    sent: bool,
}

impl RateLimit {
    /// Reserves a place for the first packet of a query, which the caller sends next. The packet counts from now on
    /// until it is sent, and then from that time: a busy process may need a while to open the socket.
    ///
    /// If `throttled` and the window is full, does not count the packet and returns the time at which the window has
    /// space.
    pub(crate) fn reserve(&mut self, now: Instant, throttled: bool) -> Result<(), Instant> {
        self.expire(now);
        self.throttled = throttled;
        match self.full_until() {
            Some(free_at) if throttled => {
                self.claimed = Some(free_at);
                Err(free_at)
            }
            _ => {
                self.counted.push_back(Counted { at: now, sent: false });
                Ok(())
            }
        }
    }

    /// Returns the time at which the window has space, if it is full now.
    pub(crate) fn free_at(&mut self, now: Instant) -> Option<Instant> {
        self.expire(now);
        self.full_until()
    }

    fn full_until(&self) -> Option<Instant> {
        self.counted.len().checked_sub(MAX_PACKETS).map(|last| self.counted[last].at + WINDOW)
    }

    /// Admits a packet that is about to be sent, or returns the time at which to try again.
    ///
    /// The first packet of a query is admitted, because [`reserve`](Self::reserve) has counted it. If its place has
    /// expired before it is sent, and lookups fail, it waits for space in the window. A retransmission is counted here,
    /// and admitted only if the window has space and no first packet has priority.
    pub(crate) fn admit(&mut self, now: Instant, packet: &[u8]) -> Result<(), Instant> {
        self.expire(now);
        let mut hasher = DefaultHasher::new();
        packet.hash(&mut hasher);
        let hash = hasher.finish();
        if self.seen.iter().any(|(_, seen)| *seen == hash) {
            let yield_until = self.claimed.map(|free_at| free_at + FIRST_PACKET_PRIORITY).filter(|until| *until > now);
            if let Some(free_at) = yield_until.max(self.full_until()) {
                return Err(free_at);
            }
        } else {
            match (self.counted.iter().position(|packet| !packet.sent), self.full_until()) {
                (Some(place), _) => _ = self.counted.remove(place),
                (None, Some(free_at)) if self.throttled => return Err(free_at),
                (None, _) => {}
            }
            self.seen.push_back((now, hash));
        }
        self.counted.push_back(Counted { at: now, sent: true });
        self.total += 1;
        #[cfg(test)]
        self.log.push(now);
        Ok(())
    }

    /// Returns the number of packets admitted so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    fn expire(&mut self, now: Instant) {
        while self.counted.front().is_some_and(|packet| packet.at + WINDOW <= now) {
            self.counted.pop_front();
        }
        while self.seen.front().is_some_and(|(at, _)| *at + REPEAT_WINDOW <= now) {
            self.seen.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_retransmissions_wait_while_lookups_succeed() {
        let (mut rate_limit, now) = (RateLimit::default(), Instant::now());
        for packet in 0..10u8 {
            assert_eq!(rate_limit.reserve(now, false), Ok(()));
            assert_eq!(rate_limit.admit(now, &[packet]), Ok(()));
        }
        assert_eq!(rate_limit.admit(now + Duration::from_millis(333), &[3]), Err(now + WINDOW));
        assert_eq!(rate_limit.admit(now + WINDOW, &[3]), Ok(()));
        assert_eq!(rate_limit.total(), 11);
    }

    #[test]
    fn a_first_packet_counts_from_the_time_at_which_it_is_sent() {
        let (mut rate_limit, now) = (RateLimit::default(), Instant::now());
        let after = |millis| now + Duration::from_millis(millis);
        for _ in 0..4 {
            assert_eq!(rate_limit.reserve(now, true), Ok(()));
        }
        for packet in 0..4u8 {
            assert_eq!(rate_limit.admit(after(300), &[packet]), Ok(()));
        }
        assert_eq!(rate_limit.reserve(after(1000), true), Err(after(1300)));
        assert_eq!(rate_limit.reserve(after(1300), true), Ok(()));
        assert_eq!(rate_limit.admit(after(1300), &[4]), Ok(()));
    }

    #[test]
    fn a_first_packet_waits_if_its_place_has_expired_while_lookups_fail() {
        let (mut rate_limit, now) = (RateLimit::default(), Instant::now());
        let after = |millis| now + Duration::from_millis(millis);
        assert_eq!(rate_limit.reserve(now, true), Ok(()));
        for packet in 0..4u8 {
            assert_eq!(rate_limit.reserve(after(1100), true), Ok(()));
            assert_eq!(rate_limit.admit(after(1100), &[packet]), Ok(()));
        }
        assert_eq!(rate_limit.admit(after(1200), &[4]), Err(after(2100)));
        assert_eq!(rate_limit.admit(after(2100), &[4]), Ok(()));
    }

    #[test]
    fn delayed_first_packet_precedes_a_retransmission() {
        let (mut rate_limit, now) = (RateLimit::default(), Instant::now());
        for packet in 0..4u8 {
            rate_limit.reserve(now, true).unwrap();
            rate_limit.admit(now, &[packet]).unwrap();
        }
        assert_eq!(rate_limit.admit(now, &[0]), Err(now + WINDOW));
        assert_eq!(rate_limit.reserve(now, true), Err(now + WINDOW));
        assert_eq!(rate_limit.admit(now + WINDOW, &[0]), Err(now + WINDOW + FIRST_PACKET_PRIORITY));
        assert_eq!(rate_limit.reserve(now + WINDOW, true), Ok(()));
        assert_eq!(rate_limit.admit(now + WINDOW + FIRST_PACKET_PRIORITY, &[0]), Ok(()));
    }

    proptest! {
        #[test]
        fn sends_at_most_four_packets_per_second_while_lookups_fail(waits in prop::collection::vec(0u64..700, 1..80)) {
            let mut rate_limit = RateLimit::default();
            let mut now = Instant::now();
            let mut sent = Vec::new();
            for (packet, wait) in waits.iter().enumerate() {
                now += Duration::from_millis(*wait);
                if packet % 3 == 2 {
                    while let Err(free_at) = rate_limit.admit(now, &(packet - 1).to_be_bytes()) {
                        prop_assert!(free_at > now);
                        now = free_at;
                    }
                    sent.push(now);
                } else {
                    if let Err(free_at) = rate_limit.reserve(now, true) {
                        prop_assert!(free_at > now);
                        prop_assert_eq!(rate_limit.free_at(now), Some(free_at));
                        now = free_at;
                        prop_assert!(rate_limit.reserve(now, true).is_ok());
                    }
                    prop_assert!(rate_limit.admit(now, &packet.to_be_bytes()).is_ok());
                    sent.push(now);
                }
            }
            for five in sent.windows(MAX_PACKETS + 1) {
                prop_assert!(five[MAX_PACKETS] - five[0] >= WINDOW);
            }
        }
    }
}
