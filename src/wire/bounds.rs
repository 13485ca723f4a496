//! How much a server may say. The driver takes a message in whole before it looks at it, remembers every parameter that
//! it is told, and does as many rounds of SCRAM as it is told to, so the [`tap`](super::tap) keeps the bounds: what goes
//! beyond one ends the connection, with no more read than the announcement.
//!
//! | what | bound | as in |
//! |---|---|---|
//! | all of start-up, and each answer to a question of the pool's own | [`ANSWER`] | |
//! | one request for authentication | [`AUTHENTICATION`] | libpq (`fe-connect.c`) |
//! | rounds of SCRAM | [`ROUNDS`] | pgjdbc, node-postgres |
//! | one message, unless a caller waits for data | [`SMALL`] | libpq (`fe-connect.c`, `fe-protocol3.c`) |
//! | one message of data to a caller | [`LARGE`] | PostgreSQL's largest allocation (`memutils.h`) |
//! | parameters, and the name of each | [`PARAMETERS`], [`NAME`] | |

use std::{collections::HashSet, error, fmt};

/// Bytes of one answer, up to its ReadyForQuery, on a connection that no caller has had yet.
pub(super) const ANSWER: usize = 256 << 10;
/// Bytes of a request for authentication: libpq's bound.
pub(super) const AUTHENTICATION: usize = 2_000;
/// Rounds of SCRAM: some 50 ms of a processor, during which the thread does nothing else. PostgreSQL's
/// `scram_iterations` is 4096 unless changed.
pub(super) const ROUNDS: u32 = 100_000;
/// Bytes of a message that has no reason to be long: libpq's bound.
pub(super) const SMALL: usize = 30_000;
/// Bytes of a message of data: PostgreSQL's servers build none larger.
pub(super) const LARGE: usize = 1 << 30;
/// Bytes of a ParameterDescription: a count of 16 bits, and four bytes for each.
const DESCRIPTION: usize = 4 + 2 + 4 * 65_535;
/// Bytes of a message that no bound is below.
const LEAST: usize = AUTHENTICATION;
const _: () = assert!(LEAST <= SMALL && LEAST <= LARGE && LEAST <= DESCRIPTION);
/// Parameters that a server may tell. PostgreSQL tells about fifteen.
pub(super) const PARAMETERS: usize = 128;
/// Bytes of a parameter's name.
const NAME: usize = 127;

/// AuthenticationSASLContinue (PostgreSQL manual, "Message Formats").
const SASL_CONTINUE: [u8; 4] = 11u32.to_be_bytes();

/// Whose answers are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// The connection is, or has been, a caller's: what it asked for may be long.
    pub(super) trusted: bool,
    /// Something was asked that has not been answered.
    pub(super) asked: bool,
}

/// A bound that a server went beyond.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Violation {
    Announced { kind: u8, length: usize, most: usize },
    Answer,
    NameLength,
    Parameters,
    Rounds(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server goes beyond its bounds: ")?;
        match self {
            Self::Announced { kind, length, most } => {
                let kind = kind.escape_ascii();
                write!(f, "it announces a message `{kind}` of {length} bytes where at most {most} are expected")
            }
            Self::Answer => write!(f, "an answer is longer than {ANSWER} bytes"),
            Self::NameLength => write!(f, "a parameter's name is longer than {NAME} bytes"),
            Self::Parameters => write!(f, "it tells more than {PARAMETERS} parameters"),
            Self::Rounds(rounds) => write!(f, "it asks for {rounds} rounds of SCRAM, {ROUNDS} are done at most"),
        }
    }
}

impl error::Error for Violation {}

/// A message's header.
#[inline]
pub(super) fn announced(kind: u8, length: usize, allowed: Allowed) -> Result<(), Violation> {
    if length <= LEAST {
        return Ok(());
    }
    let most = match kind {
        b'R' => AUTHENTICATION,
        _ if !allowed.trusted || !allowed.asked => SMALL,
        // CopyData, DataRow, RowDescription, FunctionCallResponse, and what people write.
        b'd' | b'D' | b'T' | b'V' | b'E' | b'N' | b'A' => LARGE,
        b't' => DESCRIPTION,
        _ => SMALL,
    };
    if length > most { Err(Violation::Announced { kind, length, most }) } else { Ok(()) }
}

/// So many bytes of an answer have come.
#[inline]
pub(super) fn answered(bytes: usize, allowed: Allowed) -> Result<(), Violation> {
    if !allowed.trusted && bytes > ANSWER { Err(Violation::Answer) } else { Ok(()) }
}

/// A request for authentication: the rounds stand in SCRAM's server-first-message (RFC 5802, section 5.1).
pub(super) fn asked_for(body: &[u8]) -> Result<(), Violation> {
    let Some(message) = body.strip_prefix(&SASL_CONTINUE) else { return Ok(()) };
    for rounds in message.split(|&byte| byte == b',').filter_map(|attribute| attribute.strip_prefix(b"i=")) {
        let rounds = String::from_utf8_lossy(rounds);
        // What is no number at all is the driver's to refuse.
        let digits = rounds.bytes().all(|byte| byte.is_ascii_digit());
        if digits && rounds.parse().map_or(!rounds.is_empty(), |rounds: u32| rounds > ROUNDS) {
            return Err(Violation::Rounds(rounds.into_owned()));
        }
    }
    Ok(())
}

/// The names of the parameters that were told.
#[derive(Debug, Default)]
pub(super) struct Parameters(HashSet<Box<[u8]>>);

impl Parameters {
    /// A ParameterStatus, as much of it as is kept.
    pub(super) fn told(&mut self, body: &[u8]) -> Result<(), Violation> {
        let name = body.split(|&byte| byte == 0).next().unwrap_or_default();
        if name.len() > NAME {
            return Err(Violation::NameLength);
        }
        if !self.0.contains(name) {
            if self.0.len() == PARAMETERS {
                return Err(Violation::Parameters);
            }
            self.0.insert(name.into());
        }
        Ok(())
    }
}
