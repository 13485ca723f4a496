//! Runs several statements in one round trip: they are sent together on one shared connection.
//!
//! A batch waits for the place of one statement, and its other statements exceed `shared_depth` if no more places are
//! free: a batch that waited for all its places would wait for ever while other callers use each one that becomes free.
//!
//! A statement is sent only after all earlier ones. If one cannot be sent, for example because another caller's
//! statement on the connection is slow, it and the later ones wait until the earlier ones have ended, and are sent
//! together again.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use super::{
    attempt::{Attempted, TAKES_NO_MORE, send},
    client::SharedResponse,
    connection::Request,
    flight::InFlight,
    gate,
    place::Place,
    run::{Call, Times, not_shareable},
};
use crate::{
    endpoint::Endpoint,
    error::{Applied, Error, Kind},
    pool::inner::Inner,
    time::Instant,
};

impl Inner {
    /// Runs several statements with the same options in their order, at most `shared_depth` in one round trip. Returns
    /// an error without running any if one of them is not accepted.
    pub(super) async fn run_shared_batch(
        self: &Arc<Self>,
        calls: &[Call<'_>],
    ) -> Result<Vec<Result<SharedResponse, Error>>, Error> {
        for (index, call) in calls.iter().enumerate() {
            let refused = |refusal| not_shareable(format!("statement {} of the batch: {refusal}", index + 1));
            gate::check(call.text).map_err(refused)?;
        }
        let mut results = Vec::with_capacity(calls.len());
        let Some(first) = calls.first() else { return Ok(results) };
        let acquire_timeout = self.shared.limits.acquire_timeout;
        let mut times = self.times(first.options);
        let mut rest = calls;
        while !rest.is_empty() {
            if times.limit.is_some_and(|limit| Instant::now() >= limit) {
                results.extend(rest.iter().map(|_| Err(never_sent(times))));
                break;
            }
            let part = &rest[..rest.len().min(self.shared.limits.shared_depth)];
            let (endpoint, ends) = match self.send_together(part, times).await {
                Ok(sent) => sent,
                Err(error) => {
                    results.push(Err(error));
                    rest = &rest[1..];
                    continue;
                }
            };
            let now = Instant::now();
            // From the first one that was not sent on, they are sent together again. If the time for this has passed,
            // the first one fails.
            let sent = ends.iter().position(|end| matches!(end, Attempted::Unsent(_))).unwrap_or(ends.len());
            let ended = if now < times.deadline { sent } else { sent.max(1) };
            if sent > 0 && times.limit.is_none() {
                times.deadline = now + acquire_timeout;
            }
            // A statement that had no effect runs again, before those that were not sent.
            for (call, end) in part.iter().zip(ends).take(ended) {
                let times = Times { is_fixed: true, ..times };
                results.push(self.run_from(*call, times, Some((endpoint.clone(), end))).await);
            }
            rest = &rest[ended..];
        }
        Ok(results)
    }

    /// Sends statements together on one connection. Returns its Pod and how each of them has ended.
    async fn send_together(
        self: &Arc<Self>,
        calls: &[Call<'_>],
        times: Times,
    ) -> Result<(Endpoint, Vec<Attempted>), Error> {
        let place = self.reserve(calls[0].requirement(), times.deadline, Instant::now()).await?;
        let endpoint = place.pod.endpoint.clone();
        // The ends if the deadline of the call passed now.
        let mut ends: Vec<_> = calls.iter().map(|_| Attempted::TimedOut(Applied::No)).collect();
        self.until(times.limit, self.send_all(place, calls, times.deadline, &mut ends)).await;
        Ok((endpoint, ends))
    }

    /// Sends statements on the connection of a place, and waits for their ends.
    async fn send_all(
        self: &Arc<Self>,
        mut place: Place,
        calls: &[Call<'_>],
        deadline: Instant,
        ends: &mut [Attempted],
    ) {
        let connection = place.connection.clone();
        if place.needs_ping && self.ping(&place, deadline).await.is_err() {
            ends.fill_with(|| Attempted::Unsent(TAKES_NO_MORE.into()));
            return;
        }
        let requests = join(calls.iter().map(|call| self.request(&place, *call, deadline))).await;
        let mut in_flight = Vec::with_capacity(calls.len());
        let mut ends = ends.iter_mut();
        for (request, end) in requests.into_iter().zip(&mut ends) {
            let request = match request {
                Ok(request) => request,
                Err(attempted) => {
                    *end = attempted;
                    if let Attempted::Unsent(_) = end {
                        break; // the later ones must not run before it
                    }
                    continue;
                }
            };
            if place.used {
                connection.reserve_beyond();
            }
            // One that waits behind a slow one of its own batch stays there.
            match send(&connection, Request { repeatable: false, ..request }).await {
                Some(flight) => {
                    place.used = true;
                    *end = Attempted::TimedOut(Applied::Unknown);
                    in_flight.push((InFlight::new(flight, place.of_another()), end));
                }
                None => {
                    *end = Attempted::Unsent(TAKES_NO_MORE.into());
                    if place.used {
                        connection.release();
                    }
                    break;
                }
            }
        }
        ends.for_each(|end| *end = Attempted::Unsent(TAKES_NO_MORE.into()));
        // The responses arrive in the order of the statements.
        for (in_flight, end) in in_flight {
            *end = self.land(in_flight).await;
        }
    }
}

/// Returns the error of a statement that was not sent before the deadline of the call.
fn never_sent(times: Times) -> Error {
    Error::new(Kind::Timeout, "the statement was not sent before the deadline of the call")
        .with_applied(Applied::No)
        .with_elapsed(times.started.elapsed())
}

/// Polls several futures until all have ended, and returns their results.
async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    poll_fn(|cx| {
        for (future, result) in &mut running {
            if let Some(running) = future
                && let Poll::Ready(output) = Pin::as_mut(running).poll(cx)
            {
                (*future, *result) = (None, Some(output));
            }
        }
        if running.iter().all(|(future, _)| future.is_none()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}
