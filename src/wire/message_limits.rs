//! Limits the size and number of the messages that a server may send.
//!
//! The driver buffers each message completely before parsing it, stores every parameter that the server reports, and
//! computes as many SCRAM iterations as the server requests. A faulty or hostile server could therefore exhaust the
//! client's memory or processor. The [`tap`](super::tap) enforces the limits below and ends a connection that exceeds
//! one. An oversized message is rejected when its header is read, before its body is buffered.
//!
//! | limit | constant | source |
//! |---|---|---|
//! | the whole startup, and each response to one of the pool's own queries | [`MAX_RESPONSE`] | |
//! | one authentication message | [`MAX_AUTHENTICATION`] | libpq (`fe-connect.c`) |
//! | SCRAM iterations | [`MAX_SCRAM_ITERATIONS`] | pgjdbc, node-postgres |
//! | one message, if no caller waits for data | [`MAX_SHORT_MESSAGE`] | libpq (`fe-connect.c`, `fe-protocol3.c`) |
//! | one message of data for a caller | [`MAX_DATA_MESSAGE`] | PostgreSQL's largest allocation (`memutils.h`) |
//! | parameters, and the name of each | [`MAX_PARAMETERS`], [`MAX_PARAMETER_NAME`] | |

use std::{error, fmt};

use super::auth::AuthError;

/// Maximum size in bytes of one response, up to its ReadyForQuery, on a connection that is not available to callers
/// yet.
pub(super) const MAX_RESPONSE: usize = 256 << 10;
/// Maximum length of an authentication message in bytes: libpq's limit.
pub(super) const MAX_AUTHENTICATION: usize = 2_000;
/// Maximum number of SCRAM iterations. They take about 50 ms of processor time, and block the thread of the runtime for
/// this time. PostgreSQL's default of `scram_iterations` is 4096.
pub(super) const MAX_SCRAM_ITERATIONS: u32 = 100_000;
/// Maximum length in bytes of a message whose type is normally short: libpq's limit.
pub(super) const MAX_SHORT_MESSAGE: usize = 30_000;
/// Maximum length of a data message in bytes. PostgreSQL servers cannot build a larger one.
pub(super) const MAX_DATA_MESSAGE: usize = 1 << 30;
/// Maximum length of a ParameterDescription: a 16-bit count, and four bytes for each parameter.
const MAX_PARAMETER_DESCRIPTION: usize = 4 + 2 + 4 * 65_535;
/// The smallest limit on message lengths. Shorter messages need no further check.
const MIN_LIMIT: usize = MAX_AUTHENTICATION;
const _: () =
    assert!(MIN_LIMIT <= MAX_SHORT_MESSAGE && MIN_LIMIT <= MAX_DATA_MESSAGE && MIN_LIMIT <= MAX_PARAMETER_DESCRIPTION);
/// Maximum number of parameters that a server may report. PostgreSQL reports about fifteen.
pub(super) const MAX_PARAMETERS: usize = 128;
/// Maximum length of a parameter's name, in bytes.
pub(super) const MAX_PARAMETER_NAME: usize = 127;

/// The type of AuthenticationSASLContinue (PostgreSQL manual, "Message Formats").
const SASL_CONTINUE: [u8; 4] = 11u32.to_be_bytes();

/// The state of a connection, which determines the limits that apply.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionState {
    /// True if the connection is available to callers, whose queries may have large responses.
    pub(super) in_service: bool,
    /// True if a request is outstanding.
    pub(super) awaiting_response: bool,
}

/// A limit that the server exceeded, a message that answers no request, or a refused authentication request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Violation {
    /// An authentication request that the driver must not answer.
    Authentication(AuthError),
    MessageLength {
        kind: u8,
        length: usize,
        limit: usize,
    },
    /// A ReadyForQuery that completes no request. The driver would take it for the response to its next request.
    StrayReady,
    /// A statement on a connection that several callers share has left a transaction open.
    OpenTransaction,
    ParameterNameLength,
    Parameters,
    ResponseLength,
    ScramIterations(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authentication(error) => return error.fmt(f),
            Self::StrayReady => return f.write_str("the server sent a ReadyForQuery that answers no request"),
            Self::OpenTransaction => {
                return f
                    .write_str("a statement has left a transaction open on a connection that several callers share");
            }
            _ => f.write_str("the server exceeded a protocol limit: ")?,
        }
        match self {
            Self::Authentication(_) | Self::OpenTransaction | Self::StrayReady => Ok(()),
            Self::MessageLength { kind, length, limit } => {
                let kind = kind.escape_ascii();
                write!(f, "message `{kind}` of {length} bytes, limit {limit} bytes")
            }
            Self::ParameterNameLength => write!(f, "name of a parameter longer than {MAX_PARAMETER_NAME} bytes"),
            Self::Parameters => write!(f, "more than {MAX_PARAMETERS} parameters"),
            Self::ResponseLength => write!(f, "response longer than {MAX_RESPONSE} bytes"),
            Self::ScramIterations(iterations) => {
                write!(f, "{iterations} SCRAM iterations, limit {MAX_SCRAM_ITERATIONS}")
            }
        }
    }
}

impl error::Error for Violation {}

/// Checks the length that the header of a message of type `kind` declares.
#[inline]
pub(super) fn check_message_length(kind: u8, length: usize, state: ConnectionState) -> Result<(), Violation> {
    if length <= MIN_LIMIT {
        return Ok(());
    }
    let limit = match kind {
        b'R' => MAX_AUTHENTICATION,
        _ if !state.in_service || !state.awaiting_response => MAX_SHORT_MESSAGE,
        // These messages may be long: CopyData, DataRow, RowDescription and FunctionCallResponse contain data, and the
        // texts of ErrorResponse, NoticeResponse and NotificationResponse may come from users.
        b'd' | b'D' | b'T' | b'V' | b'E' | b'N' | b'A' => MAX_DATA_MESSAGE,
        b't' => MAX_PARAMETER_DESCRIPTION,
        _ => MAX_SHORT_MESSAGE,
    };
    if length > limit { Err(Violation::MessageLength { kind, length, limit }) } else { Ok(()) }
}

/// Checks the number of bytes of a response that have arrived so far.
#[inline]
pub(super) fn check_response_length(bytes: usize, state: ConnectionState) -> Result<(), Violation> {
    if !state.in_service && bytes > MAX_RESPONSE { Err(Violation::ResponseLength) } else { Ok(()) }
}

/// Checks the body of an authentication message. The iteration count is part of SCRAM's server-first-message (RFC 5802,
/// section 5.1).
pub(super) fn check_authentication(body: &[u8]) -> Result<(), Violation> {
    let Some(message) = body.strip_prefix(&SASL_CONTINUE) else { return Ok(()) };
    for iterations in message.split(|&byte| byte == b',').filter_map(|attribute| attribute.strip_prefix(b"i=")) {
        let iterations = String::from_utf8_lossy(iterations);
        // Values that are not numbers are skipped, because the driver rejects them.
        let digits = iterations.bytes().all(|byte| byte.is_ascii_digit());
        if digits && iterations.parse().map_or(!iterations.is_empty(), |count: u32| count > MAX_SCRAM_ITERATIONS) {
            return Err(Violation::ScramIterations(iterations.into_owned()));
        }
    }
    Ok(())
}
