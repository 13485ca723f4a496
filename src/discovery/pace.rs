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
/// How long a packet is remembered, to tell a repeat of it: longer than any lookup repeats itself.
const REMEMBER: Duration = Duration::from_secs(10);

/// Keeps lookups that fail, and packets that are repeated because no answer came, at four packets a second.
///
/// The first packet of a question waits for room only while lookups fail, a repeat always does.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When packets went out or will, sorted.
    sent: VecDeque<Instant>,
    /// Packets that went out, by a hash of their bytes, which begin with a random number.
    seen: VecDeque<(Instant, u64)>,
    total: u64,
}

impl Pace {
    /// When the first packet of a question may go out: now, or, where `hold`, as soon as there is room.
    pub(crate) fn reserve(&mut self, now: Instant, hold: bool) -> Instant {
        self.forget(now);
        let full = self.sent.len().checked_sub(PACKETS).map(|last| self.sent[last] + WINDOW);
        let at = if hold { full.map_or(now, |room| room.max(now)) } else { now };
        let place = self.sent.partition_point(|sent| *sent <= at);
        self.sent.insert(place, at);
        at
    }

    /// Whether this packet may be sent now: always the first time (it was reserved), again if there is room. Else when
    /// there will be.
    pub(crate) fn admit(&mut self, now: Instant, packet: &[u8]) -> Result<(), Instant> {
        self.forget(now);
        let mut hasher = DefaultHasher::new();
        packet.hash(&mut hasher);
        let hash = hasher.finish();
        if self.seen.iter().any(|(_, seen)| *seen == hash) {
            if let Some(last) = self.sent.len().checked_sub(PACKETS) {
                return Err(self.sent[last] + WINDOW);
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
        let (mut pace, now) = (Pace::default(), Instant::now());
        for packet in 0..10u8 {
            assert_eq!(pace.reserve(now, false), now);
            assert_eq!(pace.admit(now, &[packet]), Ok(()));
        }
        assert_eq!(pace.admit(now + Duration::from_millis(333), &[3]), Err(now + WINDOW));
        assert_eq!(pace.admit(now + WINDOW, &[3]), Ok(()));
        assert_eq!(pace.total(), 11);
    }

    proptest! {
        #[test]
        fn while_lookups_fail_no_second_has_more_than_four(waits in prop::collection::vec(0u64..700, 1..80)) {
            let mut pace = Pace::default();
            let mut now = Instant::now();
            let mut sent = Vec::new();
            for (packet, wait) in waits.iter().enumerate() {
                now += Duration::from_millis(*wait);
                if packet % 3 == 2 {
                    if let Err(room) = pace.admit(now, &(packet - 1).to_be_bytes()) {
                        prop_assert!(room > now);
                        now = room;
                        prop_assert!(pace.admit(now, &(packet - 1).to_be_bytes()).is_ok());
                    }
                    sent.push(now);
                } else {
                    let at = pace.reserve(now, true);
                    prop_assert!(at >= now);
                    // Whoever reserves waits until then.
                    now = at;
                    prop_assert!(pace.admit(now, &packet.to_be_bytes()).is_ok());
                    sent.push(now);
                }
            }
            for five in sent.windows(PACKETS + 1) {
                prop_assert!(five[PACKETS] - five[0] >= WINDOW);
            }
        }
    }
}
