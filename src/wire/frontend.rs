//! Reads the headers of what we send (PostgreSQL manual, "Message Formats"): each request that the server will answer
//! with a ReadyForQuery is counted once, however the bytes are cut.

/// Where in the stream of messages we are.
#[derive(Debug)]
pub(super) struct Frontend {
    /// The start-up message alone has no type byte.
    startup: bool,
    header: [u8; 5],
    have: usize,
    /// Bytes of the current body still to come.
    body: usize,
    /// Parse messages so far.
    parsed: u64,
}

impl Frontend {
    /// At the start-up message.
    pub(super) fn new() -> Self {
        Self { startup: true, header: [0; 5], have: 0, body: 0, parsed: 0 }
    }

    /// Takes in bytes that the socket accepted. Gives how many requests ended their header in them.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> u32 {
        let mut requests = 0;
        while !bytes.is_empty() {
            if self.body > 0 {
                let skip = self.body.min(bytes.len());
                self.body -= skip;
                bytes = &bytes[skip..];
                continue;
            }
            let header = match bytes.split_first_chunk::<5>() {
                Some((header, rest)) if self.have == 0 && !self.startup => {
                    bytes = rest;
                    *header
                }
                _ => {
                    if self.have == 0 {
                        self.have = usize::from(self.startup);
                    }
                    let take = (5 - self.have).min(bytes.len());
                    self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                    self.have += take;
                    bytes = &bytes[take..];
                    if self.have < 5 {
                        break;
                    }
                    self.have = 0;
                    self.header
                }
            };
            let [kind, length @ ..] = header;
            // Query, Sync, FunctionCall; the start-up is answered with a ReadyForQuery as well.
            requests += u32::from(self.startup || matches!(kind, b'Q' | b'S' | b'F'));
            self.parsed += u64::from(!self.startup && kind == b'P');
            self.body = (u32::from_be_bytes(length) as usize).saturating_sub(4);
            self.startup = false;
        }
        requests
    }

    /// How many statements the server was asked to prepare so far, named or not.
    pub(super) fn parsed(&self) -> u64 {
        self.parsed
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
        fn counts_requests_however_the_bytes_are_cut(
            messages in prop::collection::vec((prop::sample::select(&b"QSFPBEDCHXdcfp"[..]), 0..40usize), 0..30),
            cuts in prop::collection::vec(1..50usize, 1..200),
        ) {
            let mut bytes = message(0, 10).split_off(1); // the start-up message
            let (mut expected, mut parsed) = (1, 0);
            for (kind, body) in messages {
                expected += u32::from(b"QSF".contains(&kind));
                parsed += u64::from(kind == b'P');
                bytes.extend(message(kind, body));
            }
            let mut frontend = Frontend::new();
            let (mut rest, mut counted) = (&bytes[..], 0);
            for cut in cuts.into_iter().cycle() {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                counted += frontend.feed(head);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!((counted, frontend.parsed()), (expected, parsed));
        }

        #[test]
        fn no_bytes_make_it_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20)) {
            let mut frontend = Frontend::new();
            for chunk in chunks {
                frontend.feed(&chunk);
            }
        }
    }
}
