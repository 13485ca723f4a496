//! Runs several statements in one round trip: they are sent together on one shared connection.
//!
//! A batch waits for the place of one statement, and its other statements exceed `shared_depth` if no more places are
//! free: a batch that waited for all its places would wait for ever while other callers use each one that becomes free.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use super::{
    attempt::{Attempted, TAKES_NO_MORE, send},
    client::SharedResponse,
    flight::InFlight,
    gate,
    place::Place,
    run::{Call, Times, not_shareable},
};
use crate::{
    endpoint::Endpoint,
    error::{Applied, Error},
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
        let mut times = self.times(first.options);
        for part in calls.chunks(self.shared.limits.shared_depth) {
            let (endpoint, attempted) = match self.send_together(part, times).await {
                Ok((endpoint, attempted)) => (Some(endpoint), attempted),
                Err(error) => {
                    results.push(Err(error));
                    (None, Vec::new())
                }
            };
            let mut attempted = attempted.into_iter();
            let is_reported = usize::from(endpoint.is_none());
            // A statement that had no effect runs again, before those of the next part.
            for call in &part[is_reported..] {
                let first = endpoint.clone().zip(attempted.next());
                results.push(self.run_from(*call, times, first).await);
            }
            if times.limit.is_none() && endpoint.is_some() {
                times.deadline = Instant::now() + self.shared.limits.acquire_timeout;
            }
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
        for (request, end) in requests.into_iter().zip(ends) {
            let request = match request {
                Ok(request) => request,
                Err(attempted) => {
                    *end = attempted;
                    continue;
                }
            };
            if place.used {
                connection.reserve_beyond();
            }
            match send(&connection, request).await {
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
                }
            }
        }
        // The responses arrive in the order of the statements.
        for (in_flight, end) in in_flight {
            *end = self.land(in_flight).await;
        }
    }
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
