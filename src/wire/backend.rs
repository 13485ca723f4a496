//! Reads the headers of what the server sends, and the little of the bodies that the pool lives by: the status of
//! ReadyForQuery, severity and SQLSTATE of ErrorResponse, the parameters that tell a server's role, and the tags of the
//! commands after which a prepared statement is gone. What goes beyond its [`bounds`](super::bounds) ends the reading.

use super::bounds::{self, AUTHENTICATION, Allowed, Parameters, Violation};

/// Bytes of a body that are kept to be read. The fields we want stand at the front of an ErrorResponse, and the
/// parameters we want are short. Of a request for authentication all is kept.
const KEPT: usize = 128;

/// Something that the server said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BackendMessage {
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
pub(super) struct BackendReader {
    header: [u8; 5],
    have: usize,
    body: usize,
    kept: Vec<u8>,
    /// Bytes since the last ReadyForQuery.
    answer: usize,
    parameters: Parameters,
}

impl BackendReader {
    /// At the first message.
    pub(super) fn new() -> Self {
        let (kept, parameters) = (Vec::with_capacity(KEPT), Parameters::default());
        Self { header: [0; 5], have: 0, body: 0, kept, answer: 0, parameters }
    }

    /// Takes in bytes that were read, up to the next message that says something. `None` where nothing more is said in
    /// them.
    pub(super) fn next(&mut self, bytes: &mut &[u8], allowed: Allowed) -> Result<Option<BackendMessage>, Violation> {
        while !bytes.is_empty() {
            if let Some((kind, body)) = self.take_whole(bytes, allowed)? {
                if let Some(reply) = self.read(kind, &body[..body.len().min(kept(kind))])? {
                    return Ok(Some(reply));
                }
                continue;
            }
            if self.have < 5 {
                let header = self.take(bytes, 5 - self.have, allowed)?;
                self.header[self.have..self.have + header.len()].copy_from_slice(header);
                self.have += header.len();
                if self.have < 5 {
                    break;
                }
                let [kind, length @ ..] = self.header;
                let length = u32::from_be_bytes(length) as usize;
                bounds::announced(kind, length, allowed)?;
                self.body = length.saturating_sub(4);
                self.kept.clear();
            }
            let body = self.take(bytes, self.body, allowed)?;
            let kind = self.header[0];
            self.kept.extend_from_slice(&body[..body.len().min(kept(kind) - self.kept.len())]);
            self.body -= body.len();
            if self.body == 0 {
                self.have = 0;
                let kept = std::mem::take(&mut self.kept);
                let reply = self.read(kind, &kept);
                self.kept = kept;
                if let Some(reply) = reply? {
                    return Ok(Some(reply));
                }
            }
        }
        Ok(None)
    }

    /// A message that is there from its beginning to its end, as nearly all are, to be read where it stands.
    #[inline]
    fn take_whole<'a>(&mut self, bytes: &mut &'a [u8], allowed: Allowed) -> Result<Option<(u8, &'a [u8])>, Violation> {
        let Some((&[kind, ref length @ ..], rest)) = bytes.split_first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if self.have > 0 {
            return Ok(None);
        }
        let Some((body, rest)) = rest.split_at_checked(length.saturating_sub(4)) else { return Ok(None) };
        *bytes = rest;
        bounds::announced(kind, length, allowed)?;
        self.count(5 + body.len(), allowed)?;
        Ok(Some((kind, body)))
    }

    /// At most so many of the bytes, counted.
    fn take<'a>(&mut self, bytes: &mut &'a [u8], most: usize, allowed: Allowed) -> Result<&'a [u8], Violation> {
        let (taken, rest) = bytes.split_at(most.min(bytes.len()));
        *bytes = rest;
        self.count(taken.len(), allowed)?;
        Ok(taken)
    }

    /// So many bytes more of an answer.
    #[inline]
    fn count(&mut self, bytes: usize, allowed: Allowed) -> Result<(), Violation> {
        self.answer = self.answer.saturating_add(bytes);
        bounds::answered(self.answer, allowed)
    }

    /// What the message that has ended says.
    #[inline]
    fn read(&mut self, kind: u8, body: &[u8]) -> Result<Option<BackendMessage>, Violation> {
        Ok(match kind {
            b'Z' => {
                self.answer = 0;
                body.first().copied().map(BackendMessage::Ready)
            }
            b'C' => matches!(body, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0").then_some(BackendMessage::Deallocated),
            b'G' => Some(BackendMessage::CopyIn),
            b'E' => error(body),
            b'S' => {
                self.parameters.told(body)?;
                parameter(body)
            }
            b'R' => {
                bounds::asked_for(body)?;
                None
            }
            _ => None,
        })
    }
}

/// How much of the body of such a message is read.
fn kept(kind: u8) -> usize {
    match kind {
        b'Z' | b'C' | b'E' | b'S' => KEPT,
        b'R' => AUTHENTICATION,
        _ => 0,
    }
}

/// The fields of an ErrorResponse: a letter, a text, a zero byte. `V` is the severity, never translated.
fn error(body: &[u8]) -> Option<BackendMessage> {
    let (mut severe, mut code) = (false, None);
    for field in body.split(|&byte| byte == 0) {
        match field.split_first() {
            Some((b'V', severity)) => severe = matches!(severity, b"FATAL" | b"PANIC"),
            Some((b'C', sqlstate)) => code = <[u8; 5]>::try_from(sqlstate).ok(),
            _ => {}
        }
    }
    code.map(if severe { BackendMessage::Fatal } else { BackendMessage::Error })
}

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

    const ANY: Allowed = Allowed { trusted: true, asked: true };

    fn feed(replies: &mut BackendReader, mut bytes: &[u8], allowed: Allowed) -> Result<Vec<BackendMessage>, Violation> {
        let mut heard = Vec::new();
        while let Some(reply) = replies.next(&mut bytes, allowed)? {
            heard.push(reply);
        }
        Ok(heard)
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
        let mut fatal = b"SFATAL\0VFATAL\0C57P01\0M".to_vec();
        fatal.extend([b'x'; 500]);
        fatal.extend(b"\0\0");
        bytes.extend(message(b'E', &fatal));
        let replies = vec![
            BackendMessage::HotStandby(true),
            BackendMessage::ReadOnly(false),
            BackendMessage::Ready(b'I'),
            BackendMessage::Deallocated,
            BackendMessage::Deallocated,
            BackendMessage::Error(*b"25006"),
            BackendMessage::Ready(b'E'),
            BackendMessage::CopyIn,
            BackendMessage::Fatal(*b"57P01"),
        ];
        (bytes, replies)
    }

    proptest! {
        #[test]
        fn hears_the_same_however_the_bytes_are_cut(cuts in prop::collection::vec(1..600usize, 1..300)) {
            let (bytes, expected) = conversation();
            let mut replies = BackendReader::new();
            let (mut rest, mut heard) = (&bytes[..], Vec::new());
            for cut in cuts.into_iter().cycle() {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                heard.extend(feed(&mut replies, head, ANY).unwrap());
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(heard, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20)) {
            let mut replies = BackendReader::new();
            for chunk in chunks {
                if feed(&mut replies, &chunk, ANY).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn what_goes_beyond_a_bound_is_refused_by_its_name() {
        let asked = Allowed { trusted: true, asked: true };
        let idle = Allowed { trusted: true, asked: false };
        let strange = Allowed { trusted: false, asked: true };
        let announces = |kind, length: u32| [&[kind][..], &length.to_be_bytes()].concat();
        let sasl = |iterations: &str| message(b'R', format!("\0\0\0\x0br=x,s=eA==,i={iterations}").as_bytes());
        for (bytes, allowed, refused) in [
            (announces(b'D', 1 << 30), asked, None),
            (announces(b'D', (1 << 30) + 1), asked, Some("announces a message `D` of 1073741825 bytes")),
            (announces(b'D', 1 << 20), idle, Some("announces a message `D` of 1048576 bytes")),
            (announces(b'D', 1 << 20), strange, Some("announces a message `D` of 1048576 bytes")),
            (announces(b'C', 1 << 20), asked, Some("announces a message `C` of 1048576 bytes")),
            (announces(0, u32::MAX), asked, Some("announces a message `\\x00` of 4294967295 bytes")),
            (announces(b't', 4 + 2 + 4 * 65_535), asked, None),
            (announces(b'R', 2_001), strange, Some("announces a message `R` of 2001 bytes")),
            (sasl("4096"), strange, None),
            (sasl("100000"), strange, None),
            (sasl("100001"), strange, Some("100001 rounds of SCRAM")),
            (sasl("99999999999999999999"), strange, Some("99999999999999999999 rounds of SCRAM")),
            (message(b'S', &[b'x'; 200]), strange, Some("a parameter's name is longer than 127 bytes")),
        ] {
            let heard = feed(&mut BackendReader::new(), &bytes, allowed);
            match refused {
                None => drop(heard.unwrap()),
                Some(why) => {
                    let violation = heard.unwrap_err().to_string();
                    assert!(violation.contains(why), "{violation}, not: {why}");
                }
            }
        }
    }

    #[test]
    fn an_endless_answer_to_us_is_cut_short_and_to_a_caller_is_not() {
        let row = message(b'D', &[0; 1000]);
        let (mut strange, mut trusted) = (BackendReader::new(), BackendReader::new());
        let mut refused = None;
        for n in 1..1_000 {
            assert!(feed(&mut trusted, &row, ANY).is_ok());
            if feed(&mut strange, &row, Allowed { trusted: false, asked: true }).is_err() {
                refused = refused.or(Some(n * row.len()));
            }
        }
        let refused = refused.unwrap();
        assert!((bounds::ANSWER..bounds::ANSWER + 2 * row.len()).contains(&refused), "{refused}");
    }

    #[test]
    fn parameters_may_change_for_ever_but_not_be_ever_more() {
        let mut replies = BackendReader::new();
        let mut tell = |name: &str| feed(&mut replies, &message(b'S', format!("{name}\0value\0").as_bytes()), ANY);
        for _ in 0..10_000 {
            tell("application_name").unwrap();
        }
        let taken = (0..1_000).take_while(|n| tell(&format!("p{n}")).is_ok()).count();
        assert_eq!(taken, bounds::PARAMETERS - 1);
    }
}
