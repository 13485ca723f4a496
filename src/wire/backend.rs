//! Parses the messages that the server sends: every header, and only those parts of the bodies that the pool needs.
//! These parts are the status of ReadyForQuery, the severity and SQLSTATE of ErrorResponse, the parameters that show a
//! server's role, and the tags of commands that deallocate prepared statements or change session state. A message that
//! exceeds a [limit](super::message_limits) ends the parsing with an error. [`frontend`](super::frontend) parses the
//! messages to the server.
//!
//! # Crates considered
//!
//! tokio-postgres, the driver, reads and parses every message itself. This parser only observes the bytes in the
//! driver's buffer: it leaves them there, handles reads that end in the middle of a message, and does not allocate per
//! message. Two crates were considered, and neither fits:
//!
//! * `postgres-protocol`, which tokio-postgres uses: `backend::Message::parse` splits whole messages off an owned
//!   `BytesMut`. With this crate, all bytes would have to be copied and each message buffered completely. Its
//!   `frontend` module only encodes messages.
//! * `pgwire` has the same disadvantages: it consumes complete messages from a `BytesMut` and decodes them into owned
//!   values.

use super::{
    auth::AuthRequest,
    message_limits::{
        ConnectionState, MAX_AUTHENTICATION, Violation, check_authentication, check_message_length,
        check_response_length,
    },
    outcome::ReceivedError,
    reported_parameters::ReportedParameters,
};

/// Maximum number of bytes of a message body that are kept for parsing. This is enough: an ErrorResponse starts with
/// the severity and the SQLSTATE, and the parameters that the pool reads are short. Authentication messages are kept in
/// full.
const KEPT: usize = 128;

/// A message from the server to which the pool reacts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BackendMessage {
    /// ReadyForQuery, with its status byte.
    Ready(u8),
    /// CopyInResponse. The server ignores a Sync that was sent before the COPY began (PostgreSQL manual, "COPY
    /// Operations").
    CopyIn,
    /// ErrorResponse of severity FATAL or PANIC, with its SQLSTATE.
    Fatal([u8; 5]),
    /// Like `Fatal`, but without the field `V`, which every PostgreSQL server sends: the error comes from a connection
    /// pooler.
    PoolerFatal([u8; 5]),
    /// ErrorResponse of a lower severity, with its SQLSTATE.
    Error([u8; 5]),
    /// CommandComplete of `DEALLOCATE ALL` or `DISCARD ALL`: the session has no prepared statements any more.
    Deallocated,
    /// CommandComplete of `SET`, which may be a `SET LOCAL`.
    Set,
    /// CommandComplete of another statement that may have changed session state.
    ChangedSession,
    /// CommandComplete of `LISTEN`.
    Listens,
    /// CommandComplete of a statement that only undoes session state.
    UndoneSession,
    /// ParameterStatus of `in_hot_standby`.
    HotStandby(bool),
    /// BackendKeyData, with the process ID.
    ProcessId(u32),
    /// ParameterStatus of `default_transaction_read_only`.
    ReadOnly(bool),
    /// An Authentication message.
    Authentication(AuthRequest),
}

/// The messages of a response that show whether something may have been committed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Response {
    /// True if the server has sent a message before the ReadyForQuery, except for asynchronous ones.
    pub(super) has_messages: bool,
    /// True if the server has prepared a statement (ParseComplete).
    pub(super) has_parsed: bool,
    /// Number of CommandCompletes of statements that commit a transaction, or prepare it for a commit.
    pub(super) commits: u32,
    /// Number of CommandCompletes of `SELECT`.
    pub(super) selects: u32,
    /// Number of CommandCompletes of all other statements, except for `ROLLBACK`.
    pub(super) others: u32,
}

impl Response {
    /// Returns the number of statements after which something may be committed. `idle` is true if no transaction is
    /// open at the end of the response. `standby` is true if the server is in recovery at the end of the response, so
    /// that it was during all of it.
    pub(super) fn commits(self, idle: bool, standby: bool) -> u32 {
        let selects = if standby { 0 } else { self.selects };
        self.commits.saturating_add(if idle { self.others.saturating_add(selects) } else { 0 })
    }

    /// Counts a CommandComplete.
    fn complete(&mut self, tag: &[u8]) {
        match tag {
            b"ROLLBACK\0" => {}
            b"COMMIT\0" | b"COMMIT PREPARED\0" | b"PREPARE TRANSACTION\0" => self.commits += 1,
            tag if tag.starts_with(b"SELECT") => self.selects += 1,
            _ => self.others += 1,
        }
    }
}

/// A parser of the server's messages, which keeps its position in the stream between reads.
#[derive(Debug)]
pub(super) struct BackendReader {
    header: [u8; 5],
    /// Number of bytes of the current header that have been received; 5 while the body is being received.
    header_len: usize,
    /// Number of bytes of the current body that have not been received yet.
    body_left: usize,
    /// The start of the current body, kept until the body is complete.
    kept: Vec<u8>,
    /// Number of bytes received since the last ReadyForQuery.
    response_len: usize,
    response: Response,
    /// The last ErrorResponse.
    error: Option<ReceivedError>,
    parameters: ReportedParameters,
}

impl BackendReader {
    /// Creates a parser that starts with the first message of a connection.
    pub(super) fn new() -> Self {
        let (kept, parameters) = (Vec::with_capacity(KEPT), ReportedParameters::default());
        let response = Response::default();
        Self { header: [0; 5], header_len: 0, body_left: 0, kept, response_len: 0, response, error: None, parameters }
    }

    /// Consumes bytes up to and including the next message to which the pool reacts, and returns that message. Returns
    /// `None` after consuming all bytes if they contain no such message.
    pub(super) fn next(
        &mut self,
        bytes: &mut &[u8],
        state: ConnectionState,
    ) -> Result<Option<BackendMessage>, Violation> {
        while !bytes.is_empty() {
            if let Some((kind, body)) = self.take_whole(bytes, state)? {
                if let Some(message) = self.parse(kind, &body[..body.len().min(kept(kind))])? {
                    return Ok(Some(message));
                }
                continue;
            }
            if self.header_len < 5 {
                let header = self.take(bytes, 5 - self.header_len, state)?;
                self.header[self.header_len..self.header_len + header.len()].copy_from_slice(header);
                self.header_len += header.len();
                if self.header_len < 5 {
                    break;
                }
                let [kind, length @ ..] = self.header;
                let length = u32::from_be_bytes(length) as usize;
                check_message_length(kind, length, state)?;
                self.body_left = length.saturating_sub(4);
                self.kept.clear();
            }
            let body = self.take(bytes, self.body_left, state)?;
            let kind = self.header[0];
            self.kept.extend_from_slice(&body[..body.len().min(kept(kind) - self.kept.len())]);
            self.body_left -= body.len();
            if self.body_left == 0 {
                self.header_len = 0;
                let kept = std::mem::take(&mut self.kept);
                let message = self.parse(kind, &kept);
                self.kept = kept;
                if let Some(message) = message? {
                    return Ok(Some(message));
                }
            }
        }
        Ok(None)
    }

    /// Takes the next message if `bytes` contains the whole message, which is the usual case. The caller parses the
    /// body in place, without a copy.
    #[inline]
    fn take_whole<'a>(
        &mut self,
        bytes: &mut &'a [u8],
        state: ConnectionState,
    ) -> Result<Option<(u8, &'a [u8])>, Violation> {
        let Some((&[kind, ref length @ ..], rest)) = bytes.split_first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if self.header_len > 0 {
            return Ok(None);
        }
        let Some((body, rest)) = rest.split_at_checked(length.saturating_sub(4)) else { return Ok(None) };
        *bytes = rest;
        check_message_length(kind, length, state)?;
        self.count(5 + body.len(), state)?;
        Ok(Some((kind, body)))
    }

    /// Takes up to `max` bytes and adds them to the length of the current response.
    fn take<'a>(&mut self, bytes: &mut &'a [u8], max: usize, state: ConnectionState) -> Result<&'a [u8], Violation> {
        let (taken, rest) = bytes.split_at(max.min(bytes.len()));
        *bytes = rest;
        self.count(taken.len(), state)?;
        Ok(taken)
    }

    /// Adds `bytes` to the length of the current response and checks that the length does not exceed its limit.
    #[inline]
    fn count(&mut self, bytes: usize, state: ConnectionState) -> Result<(), Violation> {
        self.response_len = self.response_len.saturating_add(bytes);
        check_response_length(self.response_len, state)
    }

    /// Returns the messages of the response that has just ended, and begins a new response.
    #[inline]
    pub(super) fn take_response(&mut self) -> Response {
        std::mem::take(&mut self.response)
    }

    /// Returns the parameters that the server has reported.
    #[inline]
    pub(super) fn parameters(&mut self) -> &mut ReportedParameters {
        &mut self.parameters
    }

    /// Returns the last ErrorResponse.
    pub(super) fn take_error(&mut self) -> Option<ReceivedError> {
        self.error.take()
    }

    /// Returns the number of received bytes of an unfinished message that may be a ReadyForQuery.
    pub(super) fn unfinished_ready(&self) -> usize {
        match self.header_len {
            5 if self.header[0] != b'Z' => 0,
            len => len,
        }
    }

    /// Parses a complete message. `body` is at most [`kept`] bytes long.
    #[inline]
    fn parse(&mut self, kind: u8, body: &[u8]) -> Result<Option<BackendMessage>, Violation> {
        // NoticeResponse, NotificationResponse and ParameterStatus can arrive at any time.
        self.response.has_messages |= !matches!(kind, b'Z' | b'N' | b'A' | b'S');
        Ok(match kind {
            b'Z' => {
                self.response_len = 0;
                body.first().copied().map(BackendMessage::Ready)
            }
            b'C' => {
                self.response.complete(body);
                command(body)
            }
            b'1' => {
                self.response.has_parsed = true;
                None
            }
            // FunctionCallResponse, and PortalSuspended: the statement may have had effects.
            b'V' | b's' => {
                self.response.others += 1;
                None
            }
            b'G' => Some(BackendMessage::CopyIn),
            b'E' => {
                let (message, received) = error(body).unzip();
                self.error = received;
                message
            }
            b'S' => {
                self.parameters.add(body)?;
                parameter(body)
            }
            b'K' => body.first_chunk().map(|id| BackendMessage::ProcessId(u32::from_be_bytes(*id))),
            b'R' => {
                check_authentication(body)?;
                AuthRequest::parse(body).map(BackendMessage::Authentication)
            }
            _ => None,
        })
    }
}

/// Parses the tag of a CommandComplete. A `DO` or `CALL` can execute any other statement.
#[inline]
fn command(tag: &[u8]) -> Option<BackendMessage> {
    match tag {
        b"DEALLOCATE ALL\0" | b"DISCARD ALL\0" => Some(BackendMessage::Deallocated),
        b"SET\0" => Some(BackendMessage::Set),
        b"LISTEN\0" => Some(BackendMessage::Listens),
        b"RESET\0" | b"PREPARE\0" | b"DECLARE CURSOR\0" | b"LOAD\0" | b"DO\0" | b"CALL\0" => {
            Some(BackendMessage::ChangedSession)
        }
        b"DEALLOCATE\0" | b"DISCARD SEQUENCES\0" | b"DISCARD TEMP\0" | b"UNLISTEN\0" => {
            Some(BackendMessage::UndoneSession)
        }
        _ => None,
    }
}

/// Returns how many bytes at the start of the body are kept for parsing in a message of type `kind`.
fn kept(kind: u8) -> usize {
    match kind {
        b'Z' | b'C' | b'E' | b'S' | b'K' => KEPT,
        b'R' => MAX_AUTHENTICATION,
        _ => 0,
    }
}

/// Parses the fields of an ErrorResponse: each consists of a letter, a text and a zero byte. `V` is the severity, which
/// is never translated, and which poolers leave out; `S` is the severity in the server's language; `C` is the SQLSTATE.
fn error(body: &[u8]) -> Option<(BackendMessage, ReceivedError)> {
    let (mut untranslated, mut translated, mut code, mut text) = (None, None, None, Vec::new());
    for field in body.split(|&byte| byte == 0) {
        match field.split_first() {
            Some((b'V', severity)) => untranslated = Some(is_fatal(severity)),
            Some((b'S', severity)) => translated = Some(is_fatal(severity)),
            Some((b'C', sqlstate)) => code = <[u8; 5]>::try_from(sqlstate).ok(),
            Some((b'M', message)) => text = message.to_vec(),
            _ => {}
        }
    }
    let kind = match (untranslated, translated) {
        (Some(true), _) => BackendMessage::Fatal,
        (None, Some(true)) => BackendMessage::PoolerFatal,
        _ => BackendMessage::Error,
    };
    code.map(|sqlstate| (kind(sqlstate), ReceivedError { sqlstate, message: text }))
}

fn is_fatal(severity: &[u8]) -> bool {
    matches!(severity, b"FATAL" | b"PANIC")
}

/// Parses a ParameterStatus: a name and a value, each terminated by a zero byte.
fn parameter(body: &[u8]) -> Option<BackendMessage> {
    let mut parts = body.split(|&byte| byte == 0);
    match (parts.next()?, parts.next()?) {
        (b"in_hot_standby", value) => Some(BackendMessage::HotStandby(value == b"on")),
        (b"default_transaction_read_only", value) => Some(BackendMessage::ReadOnly(value == b"on")),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
