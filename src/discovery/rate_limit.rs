//! How many packets go out.

use std::{
    collections::{VecDeque, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use crate::time::{Duration, Instant};

/// The span that packets are counted over.
const WINDOW: Duration = Duration::from_secs(1);
/// How many packets may go out within it while lookups fail; repeats never exceed it.
const PACKETS: usize = 4;
/// For how long after there is room the first packets that waited for it go before repeats.
const FIRST: Duration = Duration::from_millis(20);
/// How long a packet is remembered, to tell a repeat of it: longer than any lookup repeats itself.
const REMEMBER: Duration = Duration::from_secs(10);

/// Keeps lookups that fail, and packets that are repeated because no answer came, at four packets a second.
///
/// The first packet of a question waits for room only while lookups fail. A repeat always does, and lets first packets
/// go before it: a server not asked yet is a better hope than one that is silent.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    /// When packets went out, the oldest first.
    sent: VecDeque<Instant>,
    /// Packets that went out, by a hash of their bytes, which begin with a random number: one of 65,536, so that of two
    /// lookups within [`REMEMBER`] one can be taken for a repeat. Where there is no room, it waits then.
    seen: VecDeque<(Instant, u64)>,
    /// When the first packets that wait will have room.
    claimed: Option<Instant>,
    total: u64,
}

impl RateLimit {
    /// Takes the place of a question's first packet, which goes out now. Where `hold`, only if there is room; else when
    /// there will be.
    pub(crate) fn reserve(&mut self, now: Instant, hold: bool) -> Result<(), Instant> {
        self.forget(now);
        match self.full() {
            Some(room) if hold => {
                self.claimed = Some(room);
                Err(room)
            }
            _ => {
                self.sent.push_back(now);
                Ok(())
            }
        }
    }

    /// When there will be room, if there is none now.
    pub(crate) fn room(&mut self, now: Instant) -> Option<Instant> {
        self.forget(now);
        self.full()
    }

    fn full(&self) -> Option<Instant> {
        self.sent.len().checked_sub(PACKETS).map(|last| self.sent[last] + WINDOW)
    }

    /// Whether this packet may be sent now: always the first time (it was reserved), again if there is room. Else when
    /// there will be.
    pub(crate) fn admit(&mut self, now: Instant, packet: &[u8]) -> Result<(), Instant> {
        self.forget(now);
        let mut hasher = DefaultHasher::new();
        packet.hash(&mut hasher);
        let hash = hasher.finish();
        if self.seen.iter().any(|(_, seen)| *seen == hash) {
            let claimed = self.claimed.map(|room| room + FIRST).filter(|until| *until > now);
            if let Some(room) = claimed.max(self.full()) {
                return Err(room);
            }
            self.sent.push_back(now);
        } else {
            self.seen.push_back((now, hash));
        }
        self.total += 1;
        Ok(())
    }

    /// How many packets went out since the beginning.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    fn forget(&mut self, now: Instant) {
        while self.sent.front().is_some_and(|sent| *sent + WINDOW <= now) {
            self.sent.pop_front();
        }
        while self.seen.front().is_some_and(|(at, _)| *at + REMEMBER <= now) {
            self.seen.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_repeat_waits_for_room_and_a_first_packet_never_does_while_lookups_succeed() {
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
    fn a_first_packet_that_waits_goes_before_a_repeat() {
        let (mut rate_limit, now) = (RateLimit::default(), Instant::now());
        for packet in 0..4u8 {
            rate_limit.reserve(now, true).unwrap();
            rate_limit.admit(now, &[packet]).unwrap();
        }
        assert_eq!(rate_limit.admit(now, &[0]), Err(now + WINDOW));
        assert_eq!(rate_limit.reserve(now, true), Err(now + WINDOW));
        assert_eq!(rate_limit.admit(now + WINDOW, &[0]), Err(now + WINDOW + FIRST));
        assert_eq!(rate_limit.reserve(now + WINDOW, true), Ok(()));
        assert_eq!(rate_limit.admit(now + WINDOW + FIRST, &[0]), Ok(()));
    }

    proptest! {
        #[test]
        fn while_lookups_fail_no_second_has_more_than_four(waits in prop::collection::vec(0u64..700, 1..80)) {
            let mut rate_limit = RateLimit::default();
            let mut now = Instant::now();
            let mut sent = Vec::new();
            for (packet, wait) in waits.iter().enumerate() {
                now += Duration::from_millis(*wait);
                if packet % 3 == 2 {
                    while let Err(room) = rate_limit.admit(now, &(packet - 1).to_be_bytes()) {
                        prop_assert!(room > now);
                        now = room;
                    }
                    sent.push(now);
                } else {
                    if let Err(room) = rate_limit.reserve(now, true) {
                        prop_assert!(room > now);
                        prop_assert_eq!(rate_limit.room(now), Some(room));
                        now = room;
                        prop_assert!(rate_limit.reserve(now, true).is_ok());
                    }
                    prop_assert!(rate_limit.admit(now, &packet.to_be_bytes()).is_ok());
                    sent.push(now);
                }
            }
            for five in sent.windows(PACKETS + 1) {
                prop_assert!(five[PACKETS] - five[0] >= WINDOW);
            }
        }
    }
}
