//! Reads the headers of what the server sends, and the little of the bodies that the pool lives by: the status of
//! ReadyForQuery, severity and SQLSTATE of ErrorResponse, the parameters that tell a server's role, and the tags of the
//! commands after which a prepared statement is gone.

/// Bytes of a body that are kept to be read. The fields we want stand at the front of an ErrorResponse, and the
/// parameters we want are short.
const KEPT: usize = 128;

/// Something that the server said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reply {
    /// ReadyForQuery, with its status byte.
    Ready(u8),
    /// CopyInResponse: the Sync that went before it will be ignored (PostgreSQL manual, "COPY Operations").
    CopyIn,
    /// ErrorResponse of severity FATAL or PANIC, with its SQLSTATE.
    Fatal([u8; 5]),
    /// ErrorResponse of a lower severity, with its SQLSTATE.
    Error([u8; 5]),
    /// CommandComplete of `DEALLOCATE ALL` or `DISCARD ALL`: the server has forgotten every prepared statement.
    Deallocated,
    /// ParameterStatus `in_hot_standby`.
    HotStandby(bool),
    /// ParameterStatus `default_transaction_read_only`.
    ReadOnly(bool),
}

/// Where in the stream of messages we are.
#[derive(Debug)]
pub(super) struct Replies {
    header: [u8; 5],
    have: usize,
    body: usize,
    kept: [u8; KEPT],
    kept_len: usize,
}

impl Replies {
    /// At the first message.
    pub(super) fn new() -> Self {
        Self { header: [0; 5], have: 0, body: 0, kept: [0; KEPT], kept_len: 0 }
    }

    /// Takes in bytes that were read, and tells what was said in them.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut heard: impl FnMut(Reply)) {
        while !bytes.is_empty() {
            if self.have < 5 {
                let take = (5 - self.have).min(bytes.len());
                self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < 5 {
                    return;
                }
                let [_, length @ ..] = self.header;
                self.body = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.kept_len = 0;
            }
            let take = self.body.min(bytes.len());
            if matches!(self.header[0], b'Z' | b'C' | b'E' | b'S') {
                let keep = take.min(KEPT - self.kept_len);
                self.kept[self.kept_len..self.kept_len + keep].copy_from_slice(&bytes[..keep]);
                self.kept_len += keep;
            }
            self.body -= take;
            bytes = &bytes[take..];
            if self.body == 0 {
                self.have = 0;
                if let Some(reply) = read(self.header[0], &self.kept[..self.kept_len]) {
                    heard(reply);
                }
            }
        }
    }
}

fn read(kind: u8, body: &[u8]) -> Option<Reply> {
    match kind {
        b'Z' => body.first().copied().map(Reply::Ready),
        b'C' => matches!(body, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0").then_some(Reply::Deallocated),
        b'G' => Some(Reply::CopyIn),
        b'E' => error(body),
        b'S' => parameter(body),
        _ => None,
    }
}

/// The fields of an ErrorResponse: a letter, a text, a zero byte. `V` is the severity, never translated.
fn error(body: &[u8]) -> Option<Reply> {
    let (mut severe, mut code) = (false, None);
    for field in body.split(|&byte| byte == 0) {
        match field.split_first() {
            Some((b'V', severity)) => severe = matches!(severity, b"FATAL" | b"PANIC"),
            Some((b'C', sqlstate)) => code = <[u8; 5]>::try_from(sqlstate).ok(),
            _ => {}
        }
    }
    code.map(if severe { Reply::Fatal } else { Reply::Error })
}

fn parameter(body: &[u8]) -> Option<Reply> {
    let mut parts = body.split(|&byte| byte == 0);
    match (parts.next()?, parts.next()?) {
        (b"in_hot_standby", value) => Some(Reply::HotStandby(value == b"on")),
        (b"default_transaction_read_only", value) => Some(Reply::ReadOnly(value == b"on")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend(body);
        message
    }

    fn conversation() -> (Vec<u8>, Vec<Reply>) {
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
        let mut fatal = b"SFATAL\0VFATAL\0C57P01\0M".to_vec();
        fatal.extend([b'x'; 500]);
        fatal.extend(b"\0\0");
        bytes.extend(message(b'E', &fatal));
        let replies = vec![
            Reply::HotStandby(true),
            Reply::ReadOnly(false),
            Reply::Ready(b'I'),
            Reply::Deallocated,
            Reply::Deallocated,
            Reply::Error(*b"25006"),
            Reply::Ready(b'E'),
            Reply::CopyIn,
            Reply::Fatal(*b"57P01"),
        ];
        (bytes, replies)
    }

    proptest! {
        #[test]
        fn hears_the_same_however_the_bytes_are_cut(cuts in prop::collection::vec(1..600usize, 1..300)) {
            let (bytes, expected) = conversation();
            let mut replies = Replies::new();
            let (mut rest, mut heard) = (&bytes[..], Vec::new());
            for cut in cuts.into_iter().cycle() {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                replies.feed(head, |reply| heard.push(reply));
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(heard, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20)) {
            let mut replies = Replies::new();
            for chunk in chunks {
                replies.feed(&chunk, |_| {});
            }
        }
    }
}
