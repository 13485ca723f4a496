use std::{error::Error, time::Duration};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use podpool::{Applied, Kind, tokio_postgres::error::SqlState};
use serde_json::json;

use crate::text::{for_clients, is_from_server};

/// Value of the `Retry-After` header of a request that was rejected because of too many requests, in seconds.
const RETRY_AFTER: u32 = 1;

/// The reason for a failed request.
pub(crate) enum Failure {
    /// The request is invalid.
    Request { status: StatusCode, error: String },
    /// The pool or the database reported an error.
    Database(podpool::Error),
    /// The database did not respond within the time limit.
    Timeout { limit: Duration, applied: Applied },
    /// The service is processing the maximum number of requests.
    Overload { max: u32 },
    /// A row with the id of the write already exists, and this request did not insert it.
    Duplicate(podpool::Error),
}

impl Failure {
    pub(crate) fn request(status: StatusCode, error: impl Into<String>) -> Self {
        Self::Request { status, error: error.into() }
    }

    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::request(StatusCode::BAD_REQUEST, error)
    }

    /// Converts this failure to the failure of a read. A failed read is always reported as not applied.
    pub(crate) fn into_read(self) -> ReadFailure {
        ReadFailure(self)
    }

    fn respond(&self, read: bool) -> Response {
        if let Self::Database(error) | Self::Duplicate(error) = self
            && is_from_server(error)
        {
            // The server's message, DETAIL and HINT, which the response omits. `?` escapes line breaks.
            tracing::warn!(error = ?format!("{error:#}"), "a server rejected a request");
        }
        let (kind, applied, error) = match self {
            Self::Request { status, error } => return (*status, Json(json!({ "error": error }))).into_response(),
            Self::Database(error) => (error.kind(), error.applied(), for_clients(error)),
            Self::Timeout { limit, applied } => {
                (Kind::Timeout, *applied, format!("the database did not respond within {limit:?}"))
            }
            Self::Overload { max } => {
                let error = format!("this service is processing {max} requests, which is its limit; try again later");
                let body = json!({ "error": error, "kind": Kind::Other.as_str(), "applied": Applied::No.as_str() });
                let headers = [(header::RETRY_AFTER, RETRY_AFTER.to_string())];
                return (StatusCode::SERVICE_UNAVAILABLE, headers, Json(body)).into_response();
            }
            // This request wrote nothing, but `applied` is not `no`, because `no` promises that the id is not in the
            // database. Usually, the row is from an earlier request of the same client, whose response was lost or
            // reported `unknown`. The row is never from an earlier attempt of this request, because an attempt with an
            // unknown outcome is not retried. The status is not 200, because 200 promises that this request's insert
            // was committed.
            Self::Duplicate(error) => {
                let error = format!("another request has already inserted this id: {}", for_clients(error));
                (Kind::Query, Applied::Unknown, error)
            }
        };
        let kind = match kind {
            Kind::Config => Kind::Other,
            Kind::Connecting => Kind::Connect,
            kind => kind,
        };
        let applied = if read { Applied::No } else { applied };
        let body = json!({ "error": error, "kind": kind.as_str(), "applied": applied.as_str() });
        (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.respond(false)
    }
}

/// A [`Failure`] of a read.
pub(crate) struct ReadFailure(Failure);

impl IntoResponse for ReadFailure {
    fn into_response(self) -> Response {
        self.0.respond(true)
    }
}

/// Returns true if the server rejected the new row because a row with the same key already exists.
pub(crate) fn is_duplicate(error: &podpool::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<podpool::tokio_postgres::Error>());
    cause.and_then(|cause| cause.code()) == Some(&SqlState::UNIQUE_VIOLATION)
}
