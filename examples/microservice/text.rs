//! Texts of errors, for clients and for the log.

use std::{error::Error, iter::successors};

use podpool::{Attempt, tokio_postgres::error::DbError};

/// Returns the message of an error, followed by the messages of its sources. For the log: messages of a server can
/// contain data, such as the values of the row that it rejected.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns the text of an error for clients. It contains no text from a server: if a server reported the failure, only
/// its SQLSTATE.
pub(crate) fn for_clients(error: &podpool::Error) -> String {
    let mut text = error.message().to_owned();
    if let Some(elapsed) = error.elapsed() {
        text = format!("{text} after {elapsed:.1?}");
    }
    if !error.attempts().is_empty() {
        let attempts: Vec<_> = error.attempts().iter().map(attempt).collect();
        text = format!("{text}: {}", attempts.join("; "));
    }
    if let Some(source) = error.source() {
        text = format!("{text}: {}", summary(source));
    }
    text
}

/// Returns true if the text for clients omits a server's message.
pub(crate) fn is_from_server(error: &podpool::Error) -> bool {
    let attempts = error.attempts().iter().filter_map(Attempt::cause).map(|cause| cause as &(dyn Error + 'static));
    error.source().into_iter().chain(attempts).any(|cause| server_error(cause).is_some())
}

/// Returns the first line of a text. A server's DETAIL and HINT are on further lines.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn attempt(attempt: &Attempt) -> String {
    let text = attempt.to_string();
    let Some(cause) = attempt.cause() else { return text };
    // The text of an attempt ends with its cause.
    match text.strip_suffix(&*with_causes(cause)) {
        Some(text) => format!("{text}{}", summary(cause)),
        None => first_line(&text).to_owned(),
    }
}

fn summary(cause: &(dyn Error + 'static)) -> String {
    match server_error(cause) {
        Some(error) => format!("the server reported SQLSTATE {}", error.code().code()),
        None => first_line(&with_causes(cause)).to_owned(),
    }
}

/// Returns the message of a server in an error or its sources.
fn server_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a DbError> {
    causes(error).find_map(|cause| cause.downcast_ref::<DbError>())
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}
