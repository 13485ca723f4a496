//! Limits the number of concurrent requests.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;

use crate::{app::App, failure::Failure};

/// A limit on the number of requests that use the database at the same time. Further requests are rejected immediately,
/// so that a client that sends more than the database can serve does not exhaust the memory of this process.
pub(crate) struct Limit {
    max: u32,
    free: Semaphore,
}

impl Limit {
    pub(crate) fn new(max: u32) -> Self {
        Self { max, free: Semaphore::new(usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS)) }
    }
}

/// Rejects the request if the limit is reached. The permit is released when the response is complete, or when the
/// client disconnects.
pub(crate) async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    match app.limit.free.try_acquire() {
        Ok(_permit) => next.run(request).await,
        Err(_) => Failure::Overload { max: app.limit.max }.into_response(),
    }
}
