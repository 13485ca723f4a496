//! How many connections a client may have: the bound of its pool as a whole, and the arithmetic against its servers.
//!
//! `max_connections` is divided, not shared: each Pod in use has room for its probe, and an equal part of what the
//! probes leave. So a Pod that is added finds room, however busy the others are, and no checkout looks beyond its Pod.
//! What is left of a Pod that goes counts until it is given back: that alone is counted for all Pods together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The bound of one pool.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    /// `max_connections`.
    most: Option<usize>,
    /// Of those, the pool's, without the probes'.
    pooled_most: AtomicUsize,
    /// Pooled connections that are open, or being opened.
    pooled: AtomicUsize,
}

/// How the bound is divided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Division {
    /// Pooled connections of all Pods together.
    pub(crate) pooled: usize,
    /// Of those, each Pod's.
    pub(crate) each: usize,
    /// So many Pods have one more.
    pub(crate) more: usize,
}

impl Division {
    /// Divides `most` among so many Pods, with one probe for each; where another may come to replace one of them, for
    /// that as well. No Pod goes without a connection, for then it would be of no use.
    pub(crate) fn of(most: usize, pods: usize, replaceable: bool) -> Self {
        let pods = pods.max(1);
        let pooled = most.saturating_sub(pods + usize::from(replaceable)).max(pods);
        Self { pooled, each: pooled / pods, more: pooled % pods }
    }
}

/// How many Pods `most` has room for: a probe and a connection for each, and where these are not all there are, a probe
/// for one that is to replace another. `elsewhere` Pods more are used beside these.
pub(crate) fn room(most: usize, pods: usize, elsewhere: usize) -> usize {
    if pods <= most / 2 { pods } else { (most.saturating_sub(1) / 2).saturating_sub(elsewhere) }
}

// Relaxed: these are counts of places; they guard no data.
impl ConnectionLimit {
    pub(crate) fn new(most: Option<usize>) -> Self {
        Self { most, pooled_most: AtomicUsize::new(0), pooled: AtomicUsize::new(0) }
    }

    pub(crate) fn divide(&self, division: Division) {
        self.pooled_most.store(division.pooled, Ordering::Relaxed);
    }

    /// Whether one more may be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.most.is_none() || self.pooled.load(Ordering::Relaxed) < self.pooled_most.load(Ordering::Relaxed)
    }

    /// Counts one more, if it may be opened.
    pub(crate) fn take(&self) -> bool {
        if self.most.is_none() {
            return true;
        }
        let most = self.pooled_most.load(Ordering::Relaxed);
        let more = |pooled| (pooled < most).then_some(pooled + 1);
        self.pooled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one less. Says whether somebody may have waited for that.
    pub(crate) fn free(&self) -> bool {
        if self.most.is_some() {
            self.pooled.fetch_sub(1, Ordering::Relaxed);
        }
        self.most.is_some()
    }
}

/// What clients like this one ask of one Pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// Connections of one client, the probe's counted.
    pub(crate) each: usize,
    /// How many clients there are, if that is known.
    pub(crate) clients: Option<usize>,
    /// How many Pods each of them uses, of how many.
    pub(crate) used: usize,
    pub(crate) pods: usize,
    /// It is the primary, which every client uses that writes.
    pub(crate) everyones: bool,
}

impl Demand {
    /// Why so many slots are too few, if they are.
    pub(crate) fn shortfall(&self, slots: u32) -> Option<String> {
        let &Self { each, clients, used, pods, everyones } = self;
        let (slots, pods) = (slots as usize, pods.max(1));
        let Some(clients) = clients else {
            let text = || format!("one client opens up to {each} connections, its probe's counted, and it has {slots}");
            return (each > slots).then(text);
        };
        let here = if everyones { clients } else { (clients * used.min(pods)).div_ceil(pods) };
        let needed = here.saturating_mul(each);
        let which = match (everyones, here == clients) {
            (true, _) => "all of which use the primary",
            (false, true) => "all of which use it",
            (false, false) => "spread over all Pods",
        };
        let text = || {
            format!(
                "{clients} clients, {which}, open up to {needed} connections to it ({here} times {each}, the probes' \
                 counted), and it has {slots}"
            )
        };
        (needed > slots).then(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_pod_has_a_connection_and_all_together_keep_to_the_bound(
            most in 3..200usize, pods in 1..300usize, elsewhere in 0..3usize
        ) {
            let used = room(most, pods, elsewhere);
            let (all, beside) = (used == pods, if used == pods { 0 } else { elsewhere });
            prop_assume!(all || (most - 1) / 2 >= elsewhere.max(1));
            let Division { pooled, each, more } = Division::of(most, used + beside, !all);
            prop_assert!(each >= 1);
            prop_assert_eq!(each * (used + beside) + more, pooled);
            prop_assert!(pooled + used + beside + usize::from(!all) <= most, "{pooled} and {used} + {beside} probes");
        }
    }

    #[test]
    fn says_what_cannot_fit_and_nothing_of_what_can() {
        let demand = Demand { each: 9, clients: None, used: 3, pods: 3, everyones: false };
        assert_eq!(demand.shortfall(9), None);
        assert_eq!(
            demand.shortfall(8).unwrap(),
            "one client opens up to 9 connections, its probe's counted, and it has 8"
        );
        let many = Demand { clients: Some(500), used: 1, pods: 20, each: 2, ..demand };
        assert_eq!(many.shortfall(90), None);
        assert_eq!(
            Demand { everyones: true, ..many }.shortfall(90).unwrap(),
            "500 clients, all of which use the primary, open up to 1000 connections to it (500 times 2, the probes' \
             counted), and it has 90"
        );
        assert!(Demand { each: 4, ..many }.shortfall(90).unwrap().contains("25 times 4"));
        assert!(Demand { used: 20, ..many }.shortfall(90).unwrap().contains("all of which use it"));
    }

    #[test]
    fn the_whole_is_counted_only_where_it_is_bounded() {
        let free = ConnectionLimit::new(None);
        assert!((0..10).all(|_| free.take() && free.has_room()) && !free.free());
        let bounded = ConnectionLimit::new(Some(7));
        bounded.divide(Division::of(7, 3, false));
        assert!((0..4).all(|_| bounded.has_room() && bounded.take()));
        assert!(!bounded.has_room() && !bounded.take());
        assert!(bounded.free() && bounded.take());
    }
}
