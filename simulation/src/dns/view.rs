//! What one name server knows of the API server: a copy that follows with a delay, and stops following while the API
//! server is away.

use std::{collections::VecDeque, ops::RangeInclusive, time::Duration};

use tokio::time::Instant;

use super::store::Store;
use crate::{kubernetes::Change, random::uniform};

/// Time from a write of an EndpointSlice to the first answer that shows it, as recorded.
pub(super) const FOLLOWS: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(120);
/// The first pause between two attempts to reach an API server that is away. It doubles up to [`LAST_PAUSE`], and is
/// lengthened by a random part of itself.
const FIRST_PAUSE: Duration = Duration::from_millis(800);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// A delayed copy of the Services and EndpointSlices.
pub(super) struct View {
    /// What the API server has.
    actual: Store,
    /// What the name server knows.
    known: Store,
    /// Changes on their way, in order, each with the time at which it is known.
    pending: VecDeque<(Instant, Change)>,
    /// Whether the API server answers.
    available: bool,
    /// The next attempt to list, while there is no watch.
    retry: Option<Retry>,
    /// When the last change became known. None before the first list.
    changed: Option<Instant>,
    random: fastrand::Rng,
}

struct Retry {
    at: Instant,
    pause: Duration,
}

impl View {
    /// Creates the view of a name server that starts at `now`: it lists what `actual` has as soon as it can.
    pub(super) fn start(now: Instant, actual: Store, available: bool, mut random: fastrand::Rng) -> Self {
        let at = now + uniform(&mut random, &FOLLOWS);
        Self {
            actual,
            known: Store::default(),
            pending: VecDeque::new(),
            available,
            retry: Some(Retry { at, pause: FIRST_PAUSE }),
            changed: None,
            random,
        }
    }

    /// Takes a change that the API server makes at `now`.
    pub(super) fn observe(&mut self, now: Instant, change: Change) {
        self.advance(now);
        self.actual.apply(change.clone());
        if self.available && self.retry.is_none() {
            let known = now + uniform(&mut self.random, &FOLLOWS);
            let last = self.pending.back().map_or(known, |(last, _)| *last);
            self.pending.push_back((known.max(last), change));
        }
    }

    /// Takes that the API server goes away or comes back at `now`.
    pub(super) fn set_available(&mut self, now: Instant, available: bool) {
        self.advance(now);
        if self.available && !available && self.retry.is_none() {
            self.retry = Some(Retry { at: now, pause: FIRST_PAUSE });
        }
        self.available = available;
    }

    /// Applies what is known at `now`.
    pub(super) fn advance(&mut self, now: Instant) {
        while self.pending.front().is_some_and(|(at, _)| *at <= now) {
            let (at, change) = self.pending.pop_front().expect("there is one");
            self.known.apply(change);
            self.changed = Some(at);
        }
        while let Some(retry) = self.retry.as_mut().filter(|retry| retry.at <= now) {
            if self.available {
                self.known = self.actual.clone();
                self.changed = Some(retry.at);
                self.pending.clear();
                self.retry = None;
            } else {
                retry.at += retry.pause.mul_f64(1.0 + self.random.f64());
                retry.pause = (retry.pause * 2).min(LAST_PAUSE);
            }
        }
    }

    /// Returns what is known, and since when: `None` before the first list.
    pub(super) fn known(&self) -> Option<(&Store, Instant)> {
        self.changed.map(|changed| (&self.known, changed))
    }

    /// Returns what the API server has, for a name server that starts.
    pub(super) fn actual(&self) -> &Store {
        &self.actual
    }
}
