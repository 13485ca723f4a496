//! The load of one shared connection: the statements that were sent and have not ended, and how long the server takes
//! for them. Decides whether further statements may be sent, whether the connection is slow, and whether a statement
//! must be cancelled. Each function takes the time as an argument.
//!
//! The server executes the statements of a connection one after the other, in the order of their numbers. The end of a
//! statement therefore shows that all earlier ones have ended too, and the next one *runs* since then.

use std::{collections::VecDeque, time::Duration};

use crate::time::Instant;

/// Multiple of the running 95th percentile after which a statement is slow.
const SLOW_FACTOR: u32 = 4;
/// Minimum of the time after which a statement is slow, unless it is configured: below it, the scheduling of the
/// client's tasks is a larger part of the time than the server.
pub(super) const SLOW_MIN: Duration = Duration::from_millis(5);
/// Time after which a statement that was sent is polled by the supervising task.
const RESCUE_AFTER: Duration = Duration::from_millis(50);
/// Time for which an abandoned statement may run before it is cancelled, like one on a connection from `get`.
const CANCEL_AFTER: Duration = crate::config::Limits::RECYCLE_GRACE;
/// Time after a cancel request after which the next one is sent for the same statement.
const CANCEL_AGAIN_AFTER: Duration = crate::config::Limits::RECYCLE_TIMEOUT;

/// Longest round trip that the time after which a statement is slow takes into account: if all statements so far were
/// slow, the shortest time is not that of a round trip.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(50);
/// Number of statements over which the time of a statement is averaged.
const AVERAGED: u32 = 32;

/// A statement that was sent. `T` is the caller's part of it.
#[derive(Debug)]
struct Sent<T> {
    /// The number of the statement on its connection.
    number: u32,
    at: Instant,
    /// True if its caller does not wait for it any more.
    abandoned: bool,
    item: T,
}

/// The load of one connection.
#[derive(Debug)]
pub(super) struct Load<T> {
    /// The statements that were sent and have not ended, oldest first.
    sent: VecDeque<Sent<T>>,
    /// Number of places that are taken by callers that have not sent their statement yet.
    reserved: usize,
    /// The number of the last statement that was sent. Numbers begin at 1 and wrap around.
    last: u32,
    /// The highest number of a statement that has ended.
    ended: u32,
    /// The time at which that statement ended.
    ended_at: Option<Instant>,
    percentile: Percentile,
    /// The shortest time from the sending of a statement to its end, and a moving average of this time.
    round_trip: Option<(Duration, Duration)>,
    /// The time after which a statement is slow.
    slow_after: Duration,
    /// True if this time is configured.
    is_fixed: bool,
    /// The time of the last cancel request, and the number of requests so far.
    cancelled_at: Option<Instant>,
    cancels: u32,
    /// The statements that are being prepared, oldest first, and the time since which the server prepares the oldest.
    preparing: VecDeque<usize>,
    preparing_since: Option<Instant>,
}

impl<T> Load<T> {
    /// Creates the load of a new connection. `round_trip` is the shortest time of a statement on another connection to
    /// the Pod, if there is one.
    pub(super) fn new(slow_after: Option<Duration>, round_trip: Option<Duration>) -> Self {
        let first = after_pause(round_trip.unwrap_or(ROUND_TRIP_MAX));
        Self {
            sent: VecDeque::new(),
            reserved: 0,
            last: 0,
            ended: 0,
            ended_at: None,
            percentile: Percentile::default(),
            round_trip: round_trip.map(|shortest| (shortest, shortest)),
            slow_after: slow_after.unwrap_or(first),
            is_fixed: slow_after.is_some(),
            cancelled_at: None,
            cancels: 0,
            preparing: VecDeque::new(),
            preparing_since: None,
        }
    }

    /// Records that a caller waits until a statement is prepared. The server may have to wait for a lock on a table for
    /// that. `key` identifies the statement.
    pub(super) fn begin_prepare(&mut self, key: usize, now: Instant) {
        self.preparing.push_back(key);
        self.preparing_since.get_or_insert(now);
    }

    /// Records that a caller does not wait for this statement any more.
    pub(super) fn end_prepare(&mut self, key: usize, now: Instant) {
        if let Some(position) = self.preparing.iter().position(|other| *other == key) {
            self.preparing.remove(position);
        }
        self.preparing_since = (!self.preparing.is_empty()).then_some(now);
    }

    /// Returns true if the server prepares this statement now, as far as this is known. It would wait for the same lock
    /// on another connection.
    pub(super) fn prepares(&self, key: usize, now: Instant) -> bool {
        self.runtime(now) <= self.slow_after() && self.preparing.front() == Some(&key)
    }

    /// Returns the number of statements that were sent and have not ended, plus the number of reserved places.
    pub(super) fn in_flight(&self) -> usize {
        self.sent.len() + self.reserved
    }

    /// Returns true if no statement was sent that has not ended.
    pub(super) fn is_answered(&self) -> bool {
        self.sent.is_empty()
    }

    /// Takes a place. Returns false if `depth` places are taken.
    pub(super) fn reserve(&mut self, depth: usize) -> bool {
        let free = self.in_flight() < depth;
        self.reserved += usize::from(free);
        free
    }

    /// Gives a reserved place up.
    pub(super) fn release(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Uses a reserved place for a statement that is sent now. `item` gets the number of the statement.
    pub(super) fn send(&mut self, now: Instant, item: impl FnOnce(u32) -> T) -> T
    where
        T: Clone,
    {
        self.release();
        self.last = self.last.wrapping_add(1);
        let item = item(self.last);
        self.sent.push_back(Sent { number: self.last, at: now, abandoned: false, item: item.clone() });
        item
    }

    /// Removes and returns the statements that were sent.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        self.sent.drain(..).map(|sent| sent.item).collect()
    }

    /// Returns the number of the last statement that was sent.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    /// Applies that a statement has ended. Returns the caller's part of it, unless this was called for it before.
    pub(super) fn end(&mut self, number: u32, now: Instant) -> Option<T> {
        let position = self.sent.iter().position(|sent| sent.number == number)?;
        if self.running().is_some_and(|running| running.number == number) {
            self.percentile.add(self.runtime(now));
        }
        if is_before(self.ended, number) {
            (self.ended, self.ended_at) = (number, Some(now));
        }
        let sent = self.sent.remove(position)?;
        let took = now.saturating_duration_since(sent.at);
        let (shortest, mean) = self.round_trip.unwrap_or((took, took));
        let shortest = shortest.min(took);
        self.round_trip = Some((shortest, mean - mean / AVERAGED + took / AVERAGED));
        if !self.is_fixed {
            self.slow_after = (self.percentile.value() * SLOW_FACTOR).max(after_pause(shortest));
        }
        Some(sent.item)
    }

    /// Marks a statement as abandoned by its caller.
    pub(super) fn abandon(&mut self, number: u32) {
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.number == number) {
            sent.abandoned = true;
        }
    }

    /// Returns the statement that the server executes now, as far as this is known.
    fn running(&self) -> Option<&Sent<T>> {
        self.sent.iter().find(|sent| is_before(self.ended, sent.number))
    }

    /// Returns the time for which the running statement has run. Zero if none does.
    fn runtime(&self, now: Instant) -> Duration {
        let since = self.running().map(|running| self.ended_at.map_or(running.at, |ended| ended.max(running.at)));
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Returns the time after which a statement is slow.
    pub(super) fn slow_after(&self) -> Duration {
        self.slow_after
    }

    /// Returns true if the running statement is slow, or one that is being prepared.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        let preparing = self.preparing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.runtime(now).max(preparing) > self.slow_after()
    }

    /// Returns the shortest time of a statement.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|(shortest, _)| shortest)
    }

    /// Returns true if the server answers almost as fast as if only one statement was in flight, so that it would
    /// execute more if more were.
    pub(super) fn waits_for_statements(&self) -> bool {
        self.round_trip.is_some_and(|(shortest, mean)| mean < shortest * 2)
    }

    /// Returns the statements that are abandoned, or that were sent some time ago. Their callers may not poll them, and
    /// a response that is not received would block all others.
    pub(super) fn overdue(&self, now: Instant) -> impl Iterator<Item = &T> {
        let after = self.slow_after().min(RESCUE_AFTER);
        let is_overdue = move |sent: &&Sent<T>| sent.abandoned || now.saturating_duration_since(sent.at) > after;
        self.sent.iter().filter(is_overdue).map(|sent| &sent.item)
    }

    /// Returns the statements that wait behind a slow one.
    pub(super) fn blocked(&self, now: Instant) -> impl Iterator<Item = &T> {
        let running = self.running().filter(|_| self.is_slow(now)).map(|running| running.number);
        let is_blocked = move |sent: &&Sent<T>| running.is_some_and(|running| is_before(running, sent.number));
        self.sent.iter().filter(is_blocked).map(|sent| &sent.item)
    }

    /// Returns the running statement if a cancel request must be sent for it: it was abandoned and does not end.
    pub(super) fn must_cancel(&self, now: Instant) -> Option<&T> {
        let abandoned = self.running().filter(|running| running.abandoned)?;
        let after = |since: Instant, time| now.saturating_duration_since(since) >= time;
        let is_first = self.cancelled_at.is_none_or(|at| self.ended_at.is_some_and(|ended| ended > at));
        let is_due = if is_first {
            self.runtime(now) >= CANCEL_AFTER
        } else {
            self.cancelled_at.is_some_and(|at| after(at, CANCEL_AGAIN_AFTER))
        };
        is_due.then_some(&abandoned.item)
    }

    /// Records that a cancel request is sent.
    pub(super) fn cancel(&mut self, now: Instant) {
        self.cancelled_at = Some(now);
        self.cancels = self.cancels.wrapping_add(1);
    }

    /// Returns the number of cancel requests so far.
    pub(super) fn cancels(&self) -> u32 {
        self.cancels
    }
}

/// Returns the minimum of the time after which a statement is slow. After a pause in the responses, the time of a
/// statement includes a round trip.
fn after_pause(round_trip: Duration) -> Duration {
    SLOW_MIN + round_trip.min(ROUND_TRIP_MAX) * 2
}

/// Returns true if a number comes before another. Fewer than 2³¹ statements lie between them.
pub(super) fn is_before(earlier: u32, later: u32) -> bool {
    let distance = later.wrapping_sub(earlier);
    distance != 0 && distance < 1 << 31
}

/// A running estimate of the 95th percentile: each sample moves the estimate by a fraction of itself, up 19 times as
/// far as down, so that it rests where one sample in twenty is larger (stochastic approximation of a quantile).
#[derive(Debug, Default)]
struct Percentile(Option<f64>);

impl Percentile {
    const STEP: f64 = 0.05;
    const RANK: f64 = 0.95;
    /// Lower bound of the estimate, so that it can grow again, in seconds.
    const MIN: f64 = 1e-6;
    /// Upper bound of the first sample, in seconds. A larger one would hide slow statements for a long time.
    const FIRST_MAX: f64 = 0.1;

    fn add(&mut self, sample: Duration) {
        let sample = sample.as_secs_f64();
        let Some(value) = &mut self.0 else {
            self.0 = Some(sample.clamp(Self::MIN, Self::FIRST_MAX));
            return;
        };
        let weight = if sample > *value { Self::RANK } else { Self::RANK - 1.0 };
        *value = (*value * (1.0 + Self::STEP * weight)).max(Self::MIN);
    }

    fn value(&self) -> Duration {
        self.0.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
