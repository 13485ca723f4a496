//! Parses the headers of the messages that the driver sends (PostgreSQL manual, "Message Formats"). Counts the requests
//! (the messages that the server answers with a ReadyForQuery), and the statements that the driver prepares and
//! executes. A write may end in the middle of a message.
//!
//! [`backend`](super::backend) parses the messages from the server. Its documentation explains why no existing parser
//! is used.

/// A parser of the driver's messages, which keeps its position in the stream between writes.
#[derive(Debug)]
pub(super) struct FrontendReader {
    /// True until the header of the startup message, the only message without a type byte, has been read.
    startup: bool,
    header: [u8; 5],
    /// Number of bytes of the current header that have been read.
    header_len: usize,
    /// Number of bytes of the current body that have not been read yet.
    body_left: usize,
    /// Number of Parse messages so far.
    parsed: u64,
    /// Number of messages so far that execute a statement.
    executed: u64,
}

impl FrontendReader {
    /// Creates a parser that starts with the startup message of a connection.
    pub(super) fn new() -> Self {
        Self { startup: true, header: [0; 5], header_len: 0, body_left: 0, parsed: 0, executed: 0 }
    }

    /// Parses bytes that the socket has accepted. Returns the number of requests whose header is completed by these
    /// bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> u32 {
        let mut requests = 0;
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let skip = self.body_left.min(bytes.len());
                self.body_left -= skip;
                bytes = &bytes[skip..];
                continue;
            }
            let header = match bytes.split_first_chunk::<5>() {
                Some((header, rest)) if self.header_len == 0 && !self.startup => {
                    bytes = rest;
                    *header
                }
                _ => {
                    if self.header_len == 0 {
                        self.header_len = usize::from(self.startup);
                    }
                    let take = (5 - self.header_len).min(bytes.len());
                    self.header[self.header_len..self.header_len + take].copy_from_slice(&bytes[..take]);
                    self.header_len += take;
                    bytes = &bytes[take..];
                    if self.header_len < 5 {
                        break;
                    }
                    self.header_len = 0;
                    self.header
                }
            };
            let [kind, length @ ..] = header;
            // The server completes Query, Sync, FunctionCall and the startup with a ReadyForQuery.
            requests += u32::from(self.startup || matches!(kind, b'Q' | b'S' | b'F'));
            self.parsed += u64::from(!self.startup && kind == b'P');
            self.body_left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
            // The body of an empty query is one byte, the terminator.
            let executes = matches!(kind, b'E' | b'F') || kind == b'Q' && self.body_left > 1;
            self.executed += u64::from(!self.startup && executes);
            self.startup = false;
        }
        requests
    }

    /// Returns the total number of Parse messages: one for each statement, named or unnamed, that the driver prepares.
    pub(super) fn parsed(&self) -> u64 {
        self.parsed
    }

    /// Returns the total number of messages that execute a statement: Execute, FunctionCall, and Query unless it is
    /// empty.
    pub(super) fn executed(&self) -> u64 {
        self.executed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: usize) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend(u32::try_from(body + 4).unwrap().to_be_bytes());
        message.resize(message.len() + body, b'S');
        message
    }

    proptest! {
        #[test]
        fn counts_the_same_requests_however_the_writes_are_split(
            messages in prop::collection::vec((prop::sample::select(&b"QSFPBEDCHXdcfp"[..]), 0..40usize), 0..30),
            cuts in prop::collection::vec(1..50usize, 1..200),
        ) {
            let mut bytes = message(0, 10).split_off(1); // the startup message
            let (mut expected, mut parsed, mut executed) = (1, 0, 0);
            for (kind, body) in messages {
                expected += u32::from(b"QSF".contains(&kind));
                parsed += u64::from(kind == b'P');
                executed += u64::from(b"EF".contains(&kind) || kind == b'Q' && body > 1);
                bytes.extend(message(kind, body));
            }
            let mut frontend = FrontendReader::new();
            let (mut rest, mut counted) = (&bytes[..], 0);
            for cut in cuts.into_iter().cycle() {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                counted += frontend.feed(head);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!((counted, frontend.parsed(), frontend.executed()), (expected, parsed, executed));
        }

        #[test]
        fn does_not_panic_on_arbitrary_bytes(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20),
        ) {
            let mut frontend = FrontendReader::new();
            for chunk in chunks {
                frontend.feed(&chunk);
            }
        }
    }
}
