//! Judges how a statement on a shared connection has ended, from its number, the driver's error, and the number of
//! statements that the tap has seen on the way to the server.
//!
//! The statements of a shared connection are numbered in the order in which they enter the driver's channel, which is
//! the order in which the driver writes them. Each is one request with one Execute, and no other request contains an
//! Execute that the tap counts. The statement with the number n was therefore written, at least in part, if and only if
//! the tap has counted n of them. The driver assigns the responses in the same order, so an error that the server has
//! sent is about this statement.

use super::load::is_before;
use crate::{
    error::Applied,
    wire::{
        Verdict,
        classify::{DriverError, classify},
    },
};

/// SQLSTATE `query_canceled`.
const QUERY_CANCELED: &str = "57014";

/// The way in which a statement has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// The connection has ended before the statement was written, so the statement has had no effect.
    Unsent,
    /// A cancel request for another statement has ended this one, so it has had no effect.
    Cancelled,
    /// Any other failure.
    Failed(Verdict),
}

/// The facts about a failed statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// The number of the statement.
    pub(super) number: u32,
    /// Number of statements of the connection that the tap has counted.
    pub(super) written: u32,
    /// True if the connection has ended, so that nothing more is written.
    pub(super) ended: bool,
    /// True if a cancel request was sent after the statement.
    pub(super) cancel_sent: bool,
}

/// Judges a failed statement.
pub(super) fn judge(facts: Facts, error: &DriverError) -> Failure {
    judge_verdict(facts, classify(error), error.code().map(|code| code.code()))
}

/// Judges a failed statement by the classification of its error and the SQLSTATE, if the server has sent an error.
fn judge_verdict(facts: Facts, verdict: Verdict, sqlstate: Option<&str>) -> Failure {
    let is_written = !is_before(facts.written, facts.number);
    match sqlstate {
        // A fatal error reaches the request that the driver was writing.
        _ if facts.ended && !is_written => Failure::Unsent,
        Some(QUERY_CANCELED) if facts.cancel_sent && verdict.applied == Applied::No => Failure::Cancelled,
        _ => Failure::Failed(verdict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Class;

    const LOST: Verdict = Verdict { class: Class::Connection, applied: Applied::Unknown };
    const ERROR: Verdict = Verdict { class: Class::Statement, applied: Applied::No };

    fn facts(number: u32, written: u32) -> Facts {
        Facts { number, written, ended: true, cancel_sent: false }
    }

    #[test]
    fn a_lost_statement_is_unsent_only_if_the_tap_has_not_seen_it() {
        for written in 0..=40 {
            for number in 1..=40 {
                let expected = if number <= written { Failure::Failed(LOST) } else { Failure::Unsent };
                assert_eq!(judge_verdict(facts(number, written), LOST, None), expected, "{number} of {written}");
            }
        }
        assert_eq!(judge_verdict(facts(2, u32::MAX), LOST, None), Failure::Unsent, "the numbers wrap around");
        assert_eq!(judge_verdict(facts(u32::MAX, 1), LOST, None), Failure::Failed(LOST));
    }

    #[test]
    fn nothing_is_certain_while_the_connection_can_write() {
        let facts = Facts { ended: false, ..facts(5, 4) };
        assert_eq!(judge_verdict(facts, LOST, None), Failure::Failed(LOST));
    }

    #[test]
    fn an_error_of_the_server_is_about_this_statement() {
        assert_eq!(judge_verdict(facts(5, 5), ERROR, Some("23505")), Failure::Failed(ERROR));
        let fatal = Verdict { class: Class::NotReady, applied: Applied::Unknown };
        assert_eq!(judge_verdict(facts(5, 5), fatal, Some("57P01")), Failure::Failed(fatal));
        assert_eq!(judge_verdict(facts(5, 4), fatal, Some("57P01")), Failure::Unsent, "it was written in part");
    }

    #[test]
    fn a_cancellation_belongs_to_another_statement_only_after_a_cancel_request() {
        assert_eq!(judge_verdict(facts(5, 5), ERROR, Some("57014")), Failure::Failed(ERROR));
        let cancelled = Facts { cancel_sent: true, ..facts(5, 5) };
        assert_eq!(judge_verdict(cancelled, ERROR, Some("57014")), Failure::Cancelled);
        assert_eq!(judge_verdict(cancelled, ERROR, Some("23505")), Failure::Failed(ERROR));
        assert_eq!(judge_verdict(cancelled, LOST, Some("57014")), Failure::Failed(LOST), "a fatal error");
    }
}
