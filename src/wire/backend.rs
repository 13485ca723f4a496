//! Parses the messages that the server sends: every header, and only those parts of the bodies that the pool needs.
//! These parts are the status of ReadyForQuery, the severity and SQLSTATE of ErrorResponse, the parameters that show a
//! server's role, and the tags of commands that deallocate prepared statements. A message that exceeds a
//! [limit](super::message_limits) ends the parsing with an error. [`frontend`](super::frontend) parses the messages to
//! the server.
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

use super::message_limits::{
    ConnectionState, MAX_AUTHENTICATION, ParameterNames, Violation, check_authentication, check_message_length,
    check_response_length,
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
    /// ParameterStatus of `in_hot_standby`.
    HotStandby(bool),
    /// ParameterStatus of `default_transaction_read_only`.
    ReadOnly(bool),
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
    /// True if the server has sent no message since the last ReadyForQuery, except for asynchronous ones.
    bare: bool,
    parameters: ParameterNames,
}

impl BackendReader {
    /// Creates a parser that starts with the first message of a connection.
    pub(super) fn new() -> Self {
        let (kept, parameters) = (Vec::with_capacity(KEPT), ParameterNames::default());
        Self { header: [0; 5], header_len: 0, body_left: 0, kept, response_len: 0, bare: true, parameters }
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

    /// Returns true if the response that has just ended consists of its ReadyForQuery only, and begins a new response.
    #[inline]
    pub(super) fn take_bare(&mut self) -> bool {
        std::mem::replace(&mut self.bare, true)
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
        self.bare &= matches!(kind, b'Z' | b'N' | b'A' | b'S');
        Ok(match kind {
            b'Z' => {
                self.response_len = 0;
                body.first().copied().map(BackendMessage::Ready)
            }
            b'C' => matches!(body, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0").then_some(BackendMessage::Deallocated),
            b'G' => Some(BackendMessage::CopyIn),
            b'E' => error(body),
            b'S' => {
                self.parameters.add(body)?;
                parameter(body)
            }
            b'R' => {
                check_authentication(body)?;
                None
            }
            _ => None,
        })
    }
}

/// Returns how many bytes at the start of the body are kept for parsing in a message of type `kind`.
fn kept(kind: u8) -> usize {
    match kind {
        b'Z' | b'C' | b'E' | b'S' => KEPT,
        b'R' => MAX_AUTHENTICATION,
        _ => 0,
    }
}

/// Parses the fields of an ErrorResponse: each consists of a letter, a text and a zero byte. `V` is the severity, which
/// is never translated, and which poolers leave out; `S` is the severity in the server's language; `C` is the SQLSTATE.
fn error(body: &[u8]) -> Option<BackendMessage> {
    let (mut untranslated, mut translated, mut code) = (None, None, None);
    for field in body.split(|&byte| byte == 0) {
        match field.split_first() {
            Some((b'V', severity)) => untranslated = Some(is_fatal(severity)),
            Some((b'S', severity)) => translated = Some(is_fatal(severity)),
            Some((b'C', sqlstate)) => code = <[u8; 5]>::try_from(sqlstate).ok(),
            _ => {}
        }
    }
    let kind = match (untranslated, translated) {
        (Some(true), _) => BackendMessage::Fatal,
        (None, Some(true)) => BackendMessage::PoolerFatal,
        _ => BackendMessage::Error,
    };
    code.map(kind)
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::message_limits::{MAX_PARAMETERS, MAX_RESPONSE};

    const STARTING: ConnectionState = ConnectionState { in_service: false, awaiting_response: true };
    const IN_USE: ConnectionState = ConnectionState { in_service: true, awaiting_response: true };
    const IDLE: ConnectionState = ConnectionState { in_service: true, awaiting_response: false };

    fn read_all(
        reader: &mut BackendReader,
        mut bytes: &[u8],
        state: ConnectionState,
    ) -> Result<Vec<BackendMessage>, Violation> {
        let mut messages = Vec::new();
        while let Some(message) = reader.next(&mut bytes, state)? {
            messages.push(message);
        }
        Ok(messages)
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend(body);
        message
    }

    fn conversation() -> (Vec<u8>, Vec<BackendMessage>) {
        let mut bytes = Vec::new();
        bytes.extend(message(b'R', &0u32.to_be_bytes()));
        bytes.extend(message(b'S', b"in_hot_standby\0on\0"));
        bytes.extend(message(b'S', b"server_version\x0015.18\0"));
        bytes.extend(message(b'S', b"default_transaction_read_only\0off\0"));
        bytes.extend(message(b'Z', b"I"));
        bytes.extend(message(b'1', b""));
        bytes.extend(message(b'C', b"DEALLOCATE\0"));
        bytes.extend(message(b'C', b"DISCARD ALL\0"));
        bytes.extend(message(b'C', b"DEALLOCATE ALL\0"));
        bytes.extend(message(b'D', &[b'Z'; 3000]));
        bytes.extend(message(b'E', b"SERROR\0VERROR\0C25006\0Mcannot execute INSERT\0\0"));
        bytes.extend(message(b'Z', b"E"));
        bytes.extend(message(b'G', b"\0\0\0"));
        bytes.extend(message(b'E', b"SFATAL\0C08P01\0Mquery_wait_timeout\0\0"));
        bytes.extend(message(b'E', b"SFATAL\0VERROR\0C42501\0Mdenied\0\0"));
        let mut fatal = b"SFATAL\0VFATAL\0C57P01\0M".to_vec();
        fatal.extend([b'x'; 500]);
        fatal.extend(b"\0\0");
        bytes.extend(message(b'E', &fatal));
        let messages = vec![
            BackendMessage::HotStandby(true),
            BackendMessage::ReadOnly(false),
            BackendMessage::Ready(b'I'),
            BackendMessage::Deallocated,
            BackendMessage::Deallocated,
            BackendMessage::Error(*b"25006"),
            BackendMessage::Ready(b'E'),
            BackendMessage::CopyIn,
            BackendMessage::PoolerFatal(*b"08P01"),
            BackendMessage::Error(*b"42501"),
            BackendMessage::Fatal(*b"57P01"),
        ];
        (bytes, messages)
    }

    proptest! {
        #[test]
        fn parses_the_same_messages_however_the_reads_are_split(cuts in prop::collection::vec(1..600usize, 1..300)) {
            let (bytes, expected) = conversation();
            let mut reader = BackendReader::new();
            let (mut rest, mut messages) = (&bytes[..], Vec::new());
            for cut in cuts.into_iter().cycle() {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                messages.extend(read_all(&mut reader, head, IN_USE).unwrap());
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(messages, expected);
        }

        #[test]
        fn does_not_panic_on_arbitrary_bytes(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20),
        ) {
            let mut reader = BackendReader::new();
            for chunk in chunks {
                if read_all(&mut reader, &chunk, IN_USE).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn errors_name_the_exceeded_limit() {
        let header = |kind, length: u32| [&[kind][..], &length.to_be_bytes()].concat();
        let sasl = |iterations: &str| message(b'R', format!("\0\0\0\x0br=x,s=eA==,i={iterations}").as_bytes());
        for (bytes, state, expected) in [
            (header(b'D', 1 << 30), IN_USE, None),
            (header(b'D', (1 << 30) + 1), IN_USE, Some("message `D` of 1073741825 bytes, limit 1073741824")),
            (header(b'D', 1 << 20), IDLE, Some("message `D` of 1048576 bytes, limit 30000")),
            (header(b'D', 1 << 20), STARTING, Some("message `D` of 1048576 bytes, limit 30000")),
            (header(b'C', 1 << 20), IN_USE, Some("message `C` of 1048576 bytes, limit 30000")),
            (header(0, u32::MAX), IN_USE, Some("message `\\x00` of 4294967295 bytes, limit 30000")),
            (header(b't', 4 + 2 + 4 * 65_535), IN_USE, None),
            (header(b'R', 2_001), STARTING, Some("message `R` of 2001 bytes, limit 2000")),
            (sasl("4096"), STARTING, None),
            (sasl("100000"), STARTING, None),
            (sasl("100001"), STARTING, Some("100001 SCRAM iterations, limit 100000")),
            (sasl("99999999999999999999"), STARTING, Some("99999999999999999999 SCRAM iterations")),
            (message(b'S', &[b'x'; 200]), STARTING, Some("name of a parameter longer than 127 bytes")),
        ] {
            let result = read_all(&mut BackendReader::new(), &bytes, state);
            match expected {
                None => drop(result.unwrap()),
                Some(expected) => {
                    let violation = result.unwrap_err().to_string();
                    assert!(violation.contains(expected), "expected {expected}, got {violation}");
                }
            }
        }
    }

    #[test]
    fn limits_the_response_length_only_before_service() {
        let row = message(b'D', &[0; 1000]);
        let (mut starting, mut in_use) = (BackendReader::new(), BackendReader::new());
        let mut rejected_at = None;
        for n in 1..1_000 {
            assert!(read_all(&mut in_use, &row, IN_USE).is_ok());
            if read_all(&mut starting, &row, STARTING).is_err() {
                rejected_at = rejected_at.or(Some(n * row.len()));
            }
        }
        let rejected_at = rejected_at.unwrap();
        assert!((MAX_RESPONSE..MAX_RESPONSE + 2 * row.len()).contains(&rejected_at), "{rejected_at}");
    }

    #[test]
    fn limits_the_number_of_parameters_but_not_of_their_changes() {
        let mut reader = BackendReader::new();
        let mut report = |name: &str| {
            let status = message(b'S', format!("{name}\0value\0").as_bytes());
            read_all(&mut reader, &status, IN_USE)
        };
        for _ in 0..10_000 {
            report("application_name").unwrap();
        }
        let accepted = (0..1_000).take_while(|n| report(&format!("p{n}")).is_ok()).count();
        assert_eq!(accepted, MAX_PARAMETERS - 1);
    }
}
