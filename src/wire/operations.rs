//! Measures the durations of the callers' requests that execute a statement, from the write to the ReadyForQuery. In
//! builds without the feature `otel`, the module `operations_noop` replaces this module.
//!
//! Requests can be pipelined, so the start times form a queue. Each has the number of its request, because not every
//! request is measured: prepare, close and a bare Sync execute nothing, and the pool's own statements do not count.

use std::{collections::VecDeque, fmt, sync::Arc};

use crate::time::{Duration, Instant};

/// A completed request of a caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) took: Duration,
    /// `None` if the request has succeeded.
    pub(crate) failure: Option<Failure>,
}

/// The reason why a request has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The connection ended without an error from the server.
    Lost,
    /// The server sent an error with this SQLSTATE.
    Server([u8; 5]),
}

/// A callback that receives the completed requests of one connection. The callback must neither block nor panic.
#[derive(Clone, Default)]
pub(crate) struct OperationObserver(Option<Arc<dyn Fn(Operation) + Send + Sync>>);

impl OperationObserver {
    pub(crate) fn new(report: impl Fn(Operation) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(report)))
    }
}

impl fmt::Debug for OperationObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OperationObserver").field(&self.0.is_some()).finish()
    }
}

/// The outstanding requests of one connection that are measured.
#[derive(Debug, Default)]
pub(super) struct Operations {
    observer: OperationObserver,
    /// True if the requests that are written now are those of a caller.
    counts: bool,
    /// Number of executed statements when the last request ended.
    executed: u32,
    /// The number and the start time of each outstanding request, in order.
    started: VecDeque<(u64, Instant)>,
    /// Start time of the COPY from the client that is in progress. The request that began it has no ReadyForQuery.
    copy: Option<Instant>,
    /// The SQLSTATE of the last error since the last ReadyForQuery.
    error: Option<[u8; 5]>,
}

impl Operations {
    /// Begins to measure the requests.
    pub(super) fn observe(&mut self, observer: OperationObserver) {
        self.observer = observer;
    }

    /// Sets whether the requests that are written from now on are those of a caller.
    #[inline]
    pub(super) fn set_counts(&mut self, counts: impl FnOnce() -> bool) {
        if self.observer.0.is_some() {
            self.counts = counts();
        }
    }

    /// Applies that the request with this number was written. `executed` is the number of executed statements up to its
    /// end.
    #[inline]
    pub(super) fn written(&mut self, number: u64, executed: u32) {
        let executes = std::mem::replace(&mut self.executed, executed) != executed;
        if executes && self.counts {
            self.started.push_back((number, Instant::now()));
        }
    }

    /// Applies that the request with this number has begun a COPY from the client, which ends with a later request.
    pub(super) fn copies(&mut self, number: u64) {
        self.copy = self.take(number);
    }

    /// Applies an error of the server.
    pub(super) fn failed(&mut self, sqlstate: [u8; 5]) {
        self.error = Some(sqlstate);
    }

    /// Applies the ReadyForQuery of the request with this number.
    #[inline]
    pub(super) fn completed(&mut self, number: u64) {
        let failure = self.error.take().map(Failure::Server);
        if let Some(started) = self.take(number).or_else(|| self.copy.take()) {
            self.report(started, failure);
        }
    }

    fn take(&mut self, number: u64) -> Option<Instant> {
        if self.started.front().is_none_or(|(front, _)| *front != number) {
            return None;
        }
        self.started.pop_front().map(|(_, started)| started)
    }

    fn report(&self, started: Instant, failure: Option<Failure>) {
        if let Some(report) = &self.observer.0 {
            report(Operation { took: started.elapsed(), failure });
        }
    }
}

impl Drop for Operations {
    /// Reports the requests whose response will not arrive. An error that the server has sent, such as the FATAL error
    /// that ended the session, is that of the oldest one.
    fn drop(&mut self) {
        let mut failure = self.error.take().map_or(Failure::Lost, Failure::Server);
        let started =
            self.copy.take().into_iter().chain(std::mem::take(&mut self.started).into_iter().map(|(_, at)| at));
        for started in started {
            self.report(started, Some(std::mem::replace(&mut failure, Failure::Lost)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Mutex, lock};

    type Seen = Arc<Mutex<Vec<Option<Failure>>>>;

    fn operations() -> (Operations, Seen) {
        let seen = Seen::default();
        let mut operations = Operations::default();
        operations.observe({
            let seen = seen.clone();
            OperationObserver::new(move |operation| lock(&seen).push(operation.failure))
        });
        operations.set_counts(|| true);
        (operations, seen)
    }

    #[tokio::test(start_paused = true)]
    async fn each_pipelined_request_is_measured_from_its_own_start() {
        let durations = Arc::new(Mutex::new(Vec::new()));
        let mut operations = Operations::default();
        operations.observe({
            let durations = durations.clone();
            OperationObserver::new(move |operation| lock(&durations).push(operation.took.as_secs()))
        });
        operations.set_counts(|| true);
        let second = Duration::from_secs(1);
        operations.written(1, 1);
        tokio::time::advance(second).await;
        operations.written(2, 1); // executes nothing
        operations.written(3, 2);
        tokio::time::advance(second).await;
        operations.completed(1);
        operations.completed(2);
        tokio::time::advance(second).await;
        operations.completed(3);
        assert_eq!(*lock(&durations), [2, 2]);
    }

    #[test]
    fn an_error_belongs_to_the_request_that_is_completed_next() {
        let (mut operations, seen) = operations();
        operations.written(1, 0); // a prepare that fails
        operations.written(2, 1);
        operations.written(3, 2);
        operations.failed(*b"42601");
        operations.completed(1);
        operations.failed(*b"22012");
        operations.completed(2);
        operations.completed(3);
        assert_eq!(*lock(&seen), [Some(Failure::Server(*b"22012")), None]);
    }

    #[test]
    fn the_pools_own_statements_are_not_measured() {
        let (mut operations, seen) = operations();
        operations.set_counts(|| false);
        operations.written(1, 1);
        operations.set_counts(|| true);
        operations.written(2, 2);
        operations.completed(1);
        assert!(lock(&seen).is_empty());
        operations.completed(2);
        assert_eq!(*lock(&seen), [None]);
    }

    #[test]
    fn a_copy_is_measured_until_its_end() {
        let (mut operations, seen) = operations();
        operations.written(1, 1);
        operations.copies(1);
        operations.written(2, 1);
        assert!(lock(&seen).is_empty());
        operations.completed(2);
        assert_eq!(*lock(&seen), [None]);
    }

    #[test]
    fn requests_without_a_response_have_failed() {
        let (mut operations, seen) = operations();
        operations.written(1, 1);
        operations.written(2, 2);
        operations.failed(*b"57P01");
        drop(operations);
        assert_eq!(*lock(&seen), [Some(Failure::Server(*b"57P01")), Some(Failure::Lost)]);
    }
}
