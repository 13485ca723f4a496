//! Parses the headers of the messages that the driver sends (PostgreSQL manual, "Message Formats"). Counts the requests
//! (the messages that the server answers with a ReadyForQuery), and the statements that the driver prepares and
//! executes. Keeps the kind of each outstanding request, and, if that is required, finds the statements that may change
//! session state. A write may end in the middle of a message.
//!
//! [`backend`](super::backend) parses the messages from the server. Its documentation explains why no existing parser
//! is used.

use std::collections::VecDeque;

use super::{
    operations::{OperationObserver, Operations},
    record::{Record, SessionChange},
    session_statements::SessionStatements,
    session_text::TextEffect,
    type_lookup::TypeLookups,
};

/// The kind of a request, which determines the response that the tap expects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RequestKind {
    /// A request to which the server sends at least one message before its ReadyForQuery.
    Ordinary,
    /// A Sync with no other message since the previous request. The response is a bare ReadyForQuery.
    Sync,
    /// The Sync after a CopyDone or CopyFail.
    CopyEnd,
    /// The execution of a statement with which the driver looks up a type.
    TypeLookup,
    /// The execution of `SET LOCAL` or `SET TRANSACTION`, and of nothing else.
    LocalSet,
}

/// Maximum number of bytes of a message body that are kept for parsing. The driver's type look-ups are shorter.
const KEPT: usize = 512;

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
    /// The start of the current body, kept until the body is complete. `None` if the body needs no parsing.
    kept: Option<Vec<u8>>,
    /// Number of Parse messages so far.
    parsed: u64,
    /// Number of statements so far that were sent to be executed, except for type look-ups.
    executed: u32,
    lookups: TypeLookups,
    /// The statements that may change session state. `None` if they need not be found.
    session: Option<SessionStatements>,
    /// True if the messages since the last request bind a type look-up.
    binds_lookup: bool,
    /// True if the messages since the last request bind or execute any other statement.
    binds_other: bool,
    /// Number of requests so far.
    requests: u64,
    /// Number of requests that the server has completed.
    completed: u64,
    /// The outstanding requests that are not of the ordinary kind, with their numbers, in order.
    special: VecDeque<(u64, RequestKind)>,
    /// Number of outstanding requests of the kind `CopyEnd`.
    copy_ends: u32,
    /// The kind of the next Sync.
    next_sync: RequestKind,
    /// True once the driver has sent Terminate.
    terminated: bool,
    /// The start times of the callers' requests.
    pub(super) operations: Operations,
}

impl FrontendReader {
    /// Creates a parser that starts with the startup message of a connection. If `tracks_session` is true, it finds the
    /// statements that may change session state.
    pub(super) fn new(tracks_session: bool) -> Self {
        Self {
            startup: true,
            header: [0; 5],
            header_len: 0,
            body_left: 0,
            kept: None,
            parsed: 0,
            executed: 0,
            lookups: TypeLookups::default(),
            session: tracks_session.then(SessionStatements::new),
            binds_lookup: false,
            binds_other: false,
            requests: 0,
            completed: 0,
            special: VecDeque::new(),
            copy_ends: 0,
            next_sync: RequestKind::Sync,
            terminated: false,
            operations: Operations::default(),
        }
    }

    /// Sets the receiver of the durations of the callers' requests.
    pub(super) fn observed_by(mut self, observer: OperationObserver) -> Self {
        self.operations.observe(observer);
        self
    }

    /// Applies that the current user of the connection writes the next bytes: a caller or the pool.
    #[inline]
    pub(super) fn set_user(&mut self, record: &Record) {
        self.operations.set_counts(|| record.is_used_by_caller());
    }

    /// Returns the change of session state that was observed since the last call.
    #[inline]
    pub(super) fn take_session_change(&mut self) -> Option<SessionChange> {
        self.session.as_mut().and_then(SessionStatements::take_change)
    }

    /// Applies that the request that was completed last has prepared no statement.
    pub(super) fn forget_refused_statements(&mut self) {
        if let Some(session) = &mut self.session {
            session.forget(self.completed);
        }
    }

    /// Parses bytes that the socket has accepted. Returns the number of requests whose header is completed by these
    /// bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> u32 {
        let before = self.requests;
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let (part, rest) = bytes.split_at(self.body_left.min(bytes.len()));
                self.body_left -= part.len();
                bytes = rest;
                if let Some(kept) = &mut self.kept {
                    kept.extend_from_slice(&part[..part.len().min(KEPT - kept.len())]);
                    if let Some(session) = &mut self.session {
                        session.add_part(self.header[0], part);
                    }
                    if self.body_left == 0 {
                        let body = self.kept.take().unwrap_or_default();
                        self.parse(self.header[0], &body);
                        if let Some(session) = &mut self.session {
                            session.end_parts(self.header[0], &body, self.requests + 1);
                        }
                    }
                }
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
            self.observe(kind);
            self.body_left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
            if !self.startup && self.needs_body(kind) {
                match bytes.get(..self.body_left) {
                    Some(body) => {
                        self.parse(kind, &body[..body.len().min(KEPT)]);
                        self.apply_to_session(kind, body);
                    }
                    None => (self.header, self.kept) = (header, Some(Vec::new())),
                }
            }
            self.startup = false;
        }
        u32::try_from(self.requests - before).unwrap_or(u32::MAX)
    }

    #[inline]
    fn needs_body(&self, kind: u8) -> bool {
        kind == b'P'
            || kind == b'B' && !self.lookups.is_empty()
            || self.session.as_ref().is_some_and(|session| session.needs_body(kind))
    }

    fn apply_to_session(&mut self, kind: u8, body: &[u8]) {
        if let Some(session) = &mut self.session
            && session.apply(kind, body, self.requests + 1) == TextEffect::LocalSet
        {
            self.special.push_back((self.requests, RequestKind::LocalSet));
        }
    }

    /// Applies the header of a message.
    #[inline]
    fn observe(&mut self, kind: u8) {
        // The server completes Query, Sync, FunctionCall and the startup with a ReadyForQuery.
        match kind {
            _ if self.startup => self.requests += 1,
            b'Q' | b'F' => {
                if let Some(session) = self.session.as_mut().filter(|_| kind == b'F') {
                    session.call_function();
                }
                self.executed = self.executed.wrapping_add(1);
                self.end_request();
            }
            b'S' => {
                let local_sets = self.session.as_mut().is_some_and(SessionStatements::end_request);
                let kind = match self.next_sync {
                    RequestKind::Ordinary if self.binds_only_lookups() => RequestKind::TypeLookup,
                    RequestKind::Ordinary if local_sets => RequestKind::LocalSet,
                    kind => kind,
                };
                self.end_request();
                if kind != RequestKind::Ordinary {
                    self.copy_ends += u32::from(kind == RequestKind::CopyEnd);
                    self.special.push_back((self.requests, kind));
                }
            }
            b'X' => self.terminated = true,
            b'c' | b'f' => self.next_sync = RequestKind::CopyEnd,
            // Parse, Bind, Describe, Execute and Close: the server responds before the next ReadyForQuery.
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                self.parsed += u64::from(kind == b'P');
                self.next_sync = RequestKind::Ordinary;
                match (kind, &mut self.session) {
                    (b'B', Some(session)) => session.bind_other(),
                    (b'E', Some(session)) => session.execute(),
                    _ => {}
                }
                match kind {
                    b'B' => self.binds_other |= self.lookups.is_empty(),
                    b'E' if !self.binds_only_lookups() => {
                        self.binds_other = true;
                        self.executed = self.executed.wrapping_add(1);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn end_request(&mut self) {
        self.requests += 1;
        self.operations.written(self.requests, self.executed);
        (self.next_sync, self.binds_lookup, self.binds_other) = (RequestKind::Sync, false, false);
    }

    fn binds_only_lookups(&self) -> bool {
        self.binds_lookup && !self.binds_other
    }

    /// Parses the body of a Parse or Bind message, to find type look-ups. `body` is at most [`KEPT`] bytes long.
    fn parse(&mut self, kind: u8, body: &[u8]) {
        if !matches!(kind, b'P' | b'B') {
            return;
        }
        let mut texts = body.split(|&byte| byte == 0);
        let (Some(first), Some(second)) = (texts.next(), texts.next()) else {
            self.binds_other = true;
            return;
        };
        if kind == b'P' {
            self.lookups.prepared(first, second);
        } else if self.lookups.contains(second) {
            self.binds_lookup = true;
        } else {
            self.binds_other = true;
        }
    }

    /// Forgets the names of the driver's type look-ups, because the server has deallocated them.
    pub(super) fn forget_lookups(&mut self) {
        self.lookups = TypeLookups::default();
    }

    /// Returns the number of statements that were sent to be executed, except for type look-ups.
    pub(super) fn executed(&self) -> u32 {
        self.executed
    }

    /// Completes the oldest outstanding request and returns its kind. Returns `None` if no request is outstanding.
    #[inline]
    pub(super) fn complete(&mut self) -> Option<RequestKind> {
        if self.completed == self.requests {
            return None;
        }
        self.completed += 1;
        match self.special.front() {
            Some(&(number, kind)) if number == self.completed => {
                self.special.pop_front();
                self.copy_ends -= u32::from(kind == RequestKind::CopyEnd);
                Some(kind)
            }
            _ => Some(RequestKind::Ordinary),
        }
    }

    /// Applies the ReadyForQuery of the request that was completed last.
    #[inline]
    pub(super) fn end_operation(&mut self) {
        self.operations.completed(self.completed);
    }

    /// Completes the oldest outstanding request, which has begun a COPY from the client.
    pub(super) fn begin_copy(&mut self) {
        self.complete();
        self.operations.copies(self.completed);
    }

    /// Returns true if the oldest outstanding request executes `SET LOCAL` or `SET TRANSACTION`, and nothing else.
    pub(super) fn awaits_local_set(&self) -> bool {
        self.special.front() == Some(&(self.completed + 1, RequestKind::LocalSet))
    }

    /// Returns true once the driver has sent Terminate.
    #[inline]
    pub(super) fn is_terminated(&self) -> bool {
        self.terminated
    }

    /// Returns the number of requests that the server has not completed.
    #[inline]
    pub(super) fn outstanding(&self) -> u32 {
        u32::try_from(self.requests - self.completed).unwrap_or(u32::MAX)
    }

    /// Returns true if a request of the kind [`CopyEnd`](RequestKind::CopyEnd) is outstanding.
    #[inline]
    pub(super) fn awaits_copy_end(&self) -> bool {
        self.copy_ends > 0
    }

    /// Returns the total number of Parse messages: one for each statement, named or unnamed, that the driver prepares.
    pub(super) fn parsed(&self) -> u64 {
        self.parsed
    }
}

#[cfg(test)]
mod tests;
