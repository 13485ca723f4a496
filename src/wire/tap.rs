//! Defines the tap: the stream between the driver and the socket, or between the driver and TLS. The tap parses the
//! messages in both directions, updates the [`Record`] of the connection (its observed state), and reports evidence
//! about the Pod's health and role to the observer.
//!
//! # Refused COPY
//!
//! The driver sends a COPY from the client as Bind, Execute, Sync, and ends it with CopyDone or CopyFail and a second
//! Sync. While the server copies, it ignores the first Sync. If the server refuses the COPY, it answers both, but the
//! driver expects a single ReadyForQuery and would take the second one for the response to its next request
//! ([rust-postgres issue 789](https://github.com/sfackler/rust-postgres/issues/789)). The tap therefore removes the
//! second ReadyForQuery from the stream.

mod write;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::{
    auth::Gate,
    backend::{BackendMessage, BackendReader},
    classify::{has_unknown_outcome, is_server_fault},
    connection_observer::{ConnectionObserver, Evidence},
    frontend::{FrontendReader, RequestKind},
    message_limits::{ConnectionState, Violation},
    outcome::WorkMark,
    record::{IDLE, Record, SessionChange, StaleStatements},
    tls::Io,
};
use crate::time::Instant;

/// A stream that observes the protocol messages it transfers.
pub(crate) struct Tap {
    inner: Box<dyn Io>,
    record: Arc<Record>,
    observer: ConnectionObserver,
    frontend: FrontendReader,
    backend: BackendReader,
    /// Checks the authentication requests before the driver receives them.
    gate: Gate,
    /// Bytes that were read while the end of a COPY was outstanding, and that the driver has not received.
    held: Vec<u8>,
    /// Number of bytes at the start of `held` that the driver can receive. The others may be the start of a
    /// ReadyForQuery that must be removed.
    passable: usize,
    /// Time at which the first of the outstanding requests was sent. `None` if no request is outstanding, or during a
    /// COPY.
    first_request_at: Option<Instant>,
    /// Number of executed statements when the last request was completed.
    executed: u32,
    /// True if the current response contains an error that is a fault of the server.
    failed: bool,
    /// Number of statements and errors after which something may be committed.
    committed: u32,
    /// True if the server itself has reported that it is a standby.
    in_hot_standby: bool,
    /// True if an ErrorResponse was received after the last ReadyForQuery. If the connection ends now, the server has
    /// announced it.
    error_received: bool,
    /// True if a FATAL error was received, or a COPY failed after it had begun. Every later read returns the end of the
    /// stream: some poolers keep the connection open after a FATAL error.
    fatal_received: bool,
    /// The violation of the protocol by the server. Every later read fails with this violation.
    violation: Option<Violation>,
}

impl Tap {
    /// Creates a tap for a connection on which nothing has been sent yet.
    pub(super) fn new(inner: Box<dyn Io>, record: Arc<Record>, observer: ConnectionObserver, gate: Gate) -> Self {
        let frontend = FrontendReader::new(record.tracks_session_changes()).observed_by(observer.operations());
        Self {
            inner,
            record,
            observer,
            frontend,
            backend: BackendReader::new(),
            gate,
            held: Vec::new(),
            passable: 0,
            first_request_at: None,
            executed: 0,
            failed: false,
            committed: 0,
            in_hot_standby: false,
            error_received: false,
            fatal_received: false,
            violation: None,
        }
    }

    fn observe_write(&mut self, bytes: &[u8]) {
        self.frontend.set_user(&self.record);
        let requests = self.frontend.feed(bytes);
        for _ in 0..requests {
            self.record.count_sent();
        }
        self.record.set_parsed(self.frontend.parsed());
        if let Some(change) = self.frontend.take_session_change() {
            self.record.add_session_change(change);
        }
        if self.frontend.is_terminated() {
            self.record.set_terminated();
        }
        self.record.outcome.set_work(WorkMark::new(self.frontend.executed(), self.committed));
        if requests > 0 {
            let outstanding = self.frontend.outstanding();
            if outstanding == requests {
                self.first_request_at = Some(Instant::now());
            }
            self.record.set_outstanding(outstanding);
        }
    }

    fn observe_read(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        self.record.count_read();
        while let Some(message) = self.backend.next(&mut bytes, self.state())? {
            self.observe_message(message)?;
        }
        Ok(())
    }

    /// Like [`observe_read`](Self::observe_read), but adds the bytes to `held`, and removes each ReadyForQuery that
    /// follows a refused COPY.
    fn observe_held(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        self.record.count_read();
        loop {
            let before = bytes;
            let message = self.backend.next(&mut bytes, self.state())?;
            self.held.extend_from_slice(&before[..before.len() - bytes.len()]);
            let Some(message) = message else { break };
            if self.observe_message(message)? == Action::Remove {
                self.held.truncate(self.held.len().saturating_sub(READY_LEN));
            }
        }
        let unfinished = if self.frontend.awaits_copy_end() { self.backend.unfinished_ready() } else { 0 };
        self.passable = self.held.len().saturating_sub(unfinished);
        Ok(())
    }

    fn state(&self) -> ConnectionState {
        ConnectionState {
            in_service: self.record.is_in_service(),
            awaiting_response: self.frontend.outstanding() > 0 || self.record.is_copying(),
        }
    }

    fn observe_message(&mut self, message: BackendMessage) -> Result<Action, Violation> {
        let Self { record, observer, frontend, backend, first_request_at, executed, failed, error_received, .. } = self;
        if let Some(error) = backend.take_error() {
            frontend.operations.failed(error.sqlstate);
            record.outcome.set_last_error(error);
        }
        match message {
            BackendMessage::Ready(status) => {
                let (response, kind) = (backend.take_response(), frontend.complete());
                let bare = !response.has_messages;
                let refused_copy = kind == Some(RequestKind::CopyEnd) && !record.is_copying();
                let may_be_bare = matches!(kind, Some(RequestKind::Sync | RequestKind::CopyEnd));
                if bare && !may_be_bare || refused_copy && !bare {
                    return Err(Violation::StrayReady); // the request stays outstanding in the record
                }
                frontend.end_operation();
                let outstanding = frontend.outstanding();
                record.set_outstanding(outstanding);
                let sent_at = first_request_at.take_if(|_| outstanding == 0);
                if refused_copy {
                    if outstanding == 0 {
                        *executed = frontend.executed();
                    }
                    return Ok(Action::Remove);
                }
                if record.is_copying() && *error_received {
                    // The COPY failed after it had begun. Depending on whether the server had read the first Sync by
                    // then, it sends one more ReadyForQuery or not, so the session must not be used any more.
                    self.fatal_received = true;
                }
                if std::mem::take(error_received) && !response.has_parsed {
                    frontend.forget_refused_statements();
                }
                if kind != Some(RequestKind::TypeLookup) {
                    let commits = response.commits(status == IDLE, self.in_hot_standby);
                    if commits > 0 {
                        self.committed = self.committed.wrapping_add(commits);
                        record.outcome.set_work(WorkMark::new(frontend.executed(), self.committed));
                    }
                }
                backend.parameters().compare(record);
                record.set_status(status);
                if status != IDLE && record.is_pipelined() {
                    self.fatal_received = true; // the session is to blame, not the Pod
                    return Err(Violation::OpenTransaction); // the driver gets neither this response nor later ones
                }
                record.set_copying(false);
                record.count_outcome(std::mem::take(failed));
                if outstanding == 0 {
                    let before = std::mem::replace(executed, frontend.executed());
                    if let Some(sent_at) = sent_at {
                        record.count_answered(sent_at.elapsed(), *executed != before);
                    }
                } else if record.is_pipelined() {
                    record.count_pipelined();
                }
            }
            BackendMessage::CopyIn => {
                frontend.begin_copy();
                record.set_outstanding(frontend.outstanding());
                record.set_copying(true);
                // The duration of a COPY depends on the client's data, so it does not measure the server's latency.
                *first_request_at = None;
            }
            BackendMessage::Fatal(sqlstate) => {
                self.fatal_received = true;
                observer.report(Evidence::Fatal(sqlstate));
            }
            // The end of a pooler's session is no evidence: a pooler that shuts down refuses new connections.
            BackendMessage::PoolerFatal(_) => self.fatal_received = true,
            BackendMessage::Error(sqlstate) => {
                *error_received = true;
                if has_unknown_outcome(&sqlstate) {
                    self.committed = self.committed.wrapping_add(1);
                    record.outcome.set_work(WorkMark::new(frontend.executed(), self.committed));
                }
                if &sqlstate == b"25006" {
                    observer.report(Evidence::WriteRefused);
                }
                match &sqlstate {
                    b"26000" => record.set_stale_statements(StaleStatements::Missing),
                    // 0A000 means a stale cached plan or any other unsupported feature. The other cases are rare, so
                    // they are treated like a stale plan too.
                    b"0A000" => record.set_stale_statements(StaleStatements::Outdated),
                    _ => {}
                }
                *failed |= is_server_fault(sqlstate);
            }
            BackendMessage::Deallocated => {
                frontend.forget_lookups();
                record.set_deallocated();
            }
            BackendMessage::UndoneSession => record.undo_session_state(),
            BackendMessage::Set if frontend.awaits_local_set() => {}
            BackendMessage::Listens => record.listens(observer),
            BackendMessage::Set | BackendMessage::ChangedSession => record.add_session_change(SessionChange::Command),
            BackendMessage::HotStandby(standby) => {
                self.in_hot_standby = standby;
                record.set_reported_standby(standby);
                observer.report(Evidence::Role(record.role()));
            }
            BackendMessage::Authentication(request) => {
                self.gate.check(request).map_err(Violation::Authentication)?;
            }
            // This change is not reported to the observer, because the session itself may have changed the parameter.
            BackendMessage::ReadOnly(read_only) => record.set_read_only(read_only),
            BackendMessage::ProcessId(id) => record.set_process_id(id),
        }
        Ok(Action::Pass)
    }

    /// Reads into `held` until the driver can receive bytes from it, or until it is empty and the end of a COPY is no
    /// longer outstanding. Returns true at the end of the stream.
    fn fill_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.passable == 0 && self.must_hold() {
            let mut bytes = [0; HELD_READ];
            let mut bytes = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut bytes))?;
            if bytes.filled().is_empty() {
                self.passable = self.held.len();
                self.lose();
                return Poll::Ready(Ok(true));
            }
            self.observe_held(bytes.filled()).map_err(|violation| self.fail(violation))?;
        }
        Poll::Ready(Ok(false))
    }

    /// Returns true if reads must go through `held`.
    #[inline]
    fn must_hold(&self) -> bool {
        self.frontend.awaits_copy_end() || !self.held.is_empty()
    }

    /// Reads for the driver and observes the bytes.
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.must_hold() {
            let ended = ready!(self.fill_held(cx))?;
            if self.passable > 0 || ended {
                let length = self.passable.min(buf.remaining());
                buf.put_slice(&self.held[..length]);
                self.held.drain(..length);
                self.passable -= length;
                return Poll::Ready(Ok(()));
            }
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.observe_read(&buf.filled()[before..]).map_err(|violation| self.fail(violation))?;
        } else if buf.remaining() > 0 {
            self.lose();
        }
        Poll::Ready(Ok(()))
    }

    /// Marks the connection as lost after the end of the stream, unless the server has announced it.
    fn lose(&self) {
        if !self.error_received && !self.fatal_received {
            self.record.set_lost();
        }
    }

    /// Marks the connection as lost after a failed read or write, unless the server has ended the session.
    fn fail_io(&self) {
        if !self.fatal_received {
            self.record.set_lost();
        }
    }

    /// Makes every later read fail with the violation, and returns it as an I/O error.
    fn fail(&mut self, violation: Violation) -> io::Error {
        self.violation = Some(violation.clone());
        io::Error::new(io::ErrorKind::InvalidData, violation)
    }
}

/// Length of a ReadyForQuery.
const READY_LEN: usize = 6;

/// Maximum number of bytes of one read while the end of a COPY is outstanding.
const HELD_READ: usize = 1024;

/// The action that a message requires from the tap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Action {
    /// Pass the message to the driver.
    Pass,
    /// Remove the message from the stream.
    Remove,
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(violation) = &self.violation {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation.clone())));
        }
        if self.fatal_received && self.passable == 0 {
            return Poll::Ready(Ok(()));
        }
        let poll = self.read(cx, buf);
        match &poll {
            // The driver has drained the socket, so the driver holds no response that its caller has not received.
            Poll::Pending => self.record.set_undelivered(false),
            Poll::Ready(Err(_)) => self.fail_io(),
            Poll::Ready(Ok(())) => {}
        }
        poll
    }
}

impl TlsStream for Tap {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}
