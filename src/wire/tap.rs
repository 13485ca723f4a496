//! Defines the tap: the stream between the driver and the socket, or between the driver and TLS. The tap parses the
//! messages in both directions, updates the [`Record`] of the connection (its observed state), and reports evidence
//! about the Pod's health and role to the observer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::{
    backend::{BackendMessage, BackendReader},
    connection_observer::{ConnectionObserver, Evidence},
    frontend::FrontendReader,
    message_limits::{ConnectionState, Violation},
    record::{Record, StaleStatements},
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
    /// Number of requests that were written and that the server has not completed.
    outstanding: u32,
    /// Time at which the first of the outstanding requests was sent. `None` if no request is outstanding, or during a
    /// COPY.
    first_request_at: Option<Instant>,
    /// True if the current response contains an error that is a fault of the server.
    failed: bool,
    /// The limit that the server exceeded. Every later read fails with this violation.
    violation: Option<Violation>,
}

impl Tap {
    /// Creates a tap for a connection on which nothing has been sent yet.
    pub(crate) fn new(inner: Box<dyn Io>, record: Arc<Record>, observer: ConnectionObserver) -> Self {
        Self {
            inner,
            record,
            observer,
            frontend: FrontendReader::new(),
            backend: BackendReader::new(),
            outstanding: 0,
            first_request_at: None,
            failed: false,
            violation: None,
        }
    }

    fn observe_write(&mut self, bytes: &[u8]) {
        let requests = self.frontend.feed(bytes);
        for _ in 0..requests {
            self.record.count_sent();
        }
        self.record.set_parsed(self.frontend.parsed());
        if requests > 0 {
            if self.outstanding == 0 {
                self.first_request_at = Some(Instant::now());
            }
            self.outstanding += requests;
            self.record.set_outstanding(self.outstanding);
        }
    }

    fn observe_read(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        self.record.count_read();
        loop {
            let state = ConnectionState {
                in_service: self.record.is_in_service(),
                awaiting_response: self.outstanding > 0 || self.record.is_copying(),
            };
            match self.backend.next(&mut bytes, state)? {
                Some(message) => self.observe_message(message),
                None => return Ok(()),
            }
        }
    }

    fn observe_message(&mut self, message: BackendMessage) {
        let Self { record, observer, outstanding, first_request_at, failed, .. } = self;
        match message {
            BackendMessage::Ready(status) => {
                *outstanding = outstanding.saturating_sub(1);
                record.set_status(status);
                record.set_outstanding(*outstanding);
                record.set_copying(false);
                record.count_outcome(std::mem::take(failed));
                if let Some(sent_at) = first_request_at.take_if(|_| *outstanding == 0) {
                    record.count_answered(sent_at.elapsed());
                }
            }
            BackendMessage::CopyIn => {
                *outstanding = outstanding.saturating_sub(1);
                record.set_outstanding(*outstanding);
                record.set_copying(true);
                // The duration of a COPY depends on the client's data, so it does not measure the server's latency.
                *first_request_at = None;
            }
            BackendMessage::Fatal(sqlstate) => {
                record.set_fatal_received();
                observer.report(Evidence::Fatal(sqlstate));
            }
            BackendMessage::Error(sqlstate) => {
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
            BackendMessage::Deallocated => record.set_stale_statements(StaleStatements::Outdated),
            BackendMessage::HotStandby(standby) => {
                record.set_reported_standby(standby);
                observer.report(Evidence::Role(record.role()));
            }
            // This change is not reported to the observer, because the session itself may have changed the parameter.
            BackendMessage::ReadOnly(read_only) => record.set_read_only(read_only),
        }
    }
}

/// Returns true if an error comes from the state of the server, not from the statement: insufficient resources, system
/// error, configuration file error, or internal error (PostgreSQL manual, "PostgreSQL Error Codes").
fn is_server_fault(sqlstate: [u8; 5]) -> bool {
    [b"53", b"58", b"F0", b"XX"].into_iter().any(|class| sqlstate.starts_with(class))
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(violation) = &self.violation {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation.clone())));
        }
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before
            && let Err(violation) = self.observe_read(&buf.filled()[before..])
        {
            self.violation = Some(violation.clone());
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
        }
        if poll.is_pending() {
            // The driver has drained the socket, so the driver holds no response that its caller has not received.
            self.record.set_undelivered(false);
        }
        poll
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.record.set_write_blocked(poll.is_pending());
        if let Poll::Ready(Ok(n)) = poll {
            self.observe_write(&buf[..n]);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.record.set_write_blocked(poll.is_pending());
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl TlsStream for Tap {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}
