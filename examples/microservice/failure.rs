use std::{error::Error, time::Duration};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use podpool::{Applied, Kind, tokio_postgres::error::SqlState};
use serde_json::json;

/// Why a request was not done.
pub(crate) enum Failure {
    /// The request itself cannot be done.
    Request { status: StatusCode, error: String },
    /// The database did not do it.
    Database(podpool::Error),
    /// The database did not say anything in time.
    Timeout { limit: Duration, applied: Applied },
    /// A write's id is in the database, and not by this request.
    Duplicate(podpool::Error),
}

impl Failure {
    pub(crate) fn request(status: StatusCode, error: impl Into<String>) -> Self {
        Self::Request { status, error: error.into() }
    }

    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::request(StatusCode::BAD_REQUEST, error)
    }

    /// The same failure of a request that reads: whatever happened, nothing was applied.
    pub(crate) fn of_a_read(self) -> ReadFailure {
        ReadFailure(self)
    }

    fn respond(&self, read: bool) -> Response {
        let (kind, applied, error) = match self {
            Self::Request { status, error } => return (*status, Json(json!({ "error": error }))).into_response(),
            Self::Database(error) => (error.kind(), error.applied(), with_causes(error)),
            Self::Timeout { limit, applied } => (Kind::Timeout, *applied, format!("no answer within {limit:?}")),
            // Not `no`, although this request wrote nothing: `no` promises that the id is not in the database, and it
            // is. Whose row it is, the service cannot know: mostly it is an earlier request's of the same client,
            // whose answer was `unknown` or got lost. It is never an earlier try of this request, because a try whose
            // fate is not known is not repeated. Nor 200, although that row may be the very same: 200 says that this
            // request's insert was committed.
            Self::Duplicate(error) => {
                let error = format!("the id is in the database already, from another request: {}", with_causes(error));
                (Kind::Query, Applied::Unknown, error)
            }
        };
        let kind = if kind == Kind::Config { Kind::Other } else { kind };
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

/// A [`Failure`] of a request that reads.
pub(crate) struct ReadFailure(Failure);

impl IntoResponse for ReadFailure {
    fn into_response(self) -> Response {
        self.0.respond(true)
    }
}

/// Whether the server refused a row because its key was there before.
pub(crate) fn is_duplicate(error: &podpool::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<podpool::tokio_postgres::Error>());
    cause.and_then(|cause| cause.code()) == Some(&SqlState::UNIQUE_VIOLATION)
}

/// An error's text with the texts of its causes.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
