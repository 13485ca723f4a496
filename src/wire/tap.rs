//! The stream between the driver and the socket (above TLS, where there is any), which reads message headers as they
//! pass and writes what it learns into the connection's record.

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
    bounds::{Allowed, Violation},
    connection_observer::{ConnectionObserver, Evidence},
    frontend::Frontend,
    record::{Doubt, Record},
    tls::Io,
};
use crate::time::Instant;

/// The tap.
pub(crate) struct Tap {
    inner: Box<dyn Io>,
    record: Arc<Record>,
    observer: ConnectionObserver,
    frontend: Frontend,
    replies: BackendReader,
    /// Requests written that have not been answered.
    outstanding: u32,
    /// When the oldest of them was written.
    since: Option<Instant>,
    /// The answer that is being read says that the server itself is in trouble.
    failed: bool,
    /// The server went beyond its bounds; nothing more is read.
    violation: Option<Violation>,
}

impl Tap {
    /// A tap at the start of a connection.
    pub(crate) fn new(inner: Box<dyn Io>, record: Arc<Record>, observer: ConnectionObserver) -> Self {
        let (frontend, replies) = (Frontend::new(), BackendReader::new());
        Self { inner, record, observer, frontend, replies, outstanding: 0, since: None, failed: false, violation: None }
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let requests = self.frontend.feed(bytes);
        for _ in 0..requests {
            self.record.count_sent();
        }
        self.record.set_parsed(self.frontend.parsed());
        if requests > 0 {
            if self.outstanding == 0 {
                self.since = Some(Instant::now());
            }
            self.outstanding += requests;
            self.record.set_outstanding(self.outstanding);
        }
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        self.record.count_read();
        loop {
            let asked = self.outstanding > 0 || self.record.is_copying();
            let allowed = Allowed { trusted: self.record.is_trusted(), asked };
            match self.replies.next(&mut bytes, allowed)? {
                Some(reply) => self.hear(reply),
                None => return Ok(()),
            }
        }
    }

    fn hear(&mut self, reply: BackendMessage) {
        let Self { record, observer, outstanding, since, failed, .. } = self;
        match reply {
            BackendMessage::Ready(status) => {
                *outstanding = outstanding.saturating_sub(1);
                record.set_status(status);
                record.set_outstanding(*outstanding);
                record.set_copying(false);
                record.count_outcome(std::mem::take(failed));
                if let Some(since) = since.take_if(|_| *outstanding == 0) {
                    record.count_answered(since.elapsed());
                }
            }
            BackendMessage::CopyIn => {
                *outstanding = outstanding.saturating_sub(1);
                record.set_outstanding(*outstanding);
                record.set_copying(true);
                // The rest of a COPY takes as long as its data; that is no answer time.
                *since = None;
            }
            BackendMessage::Fatal(sqlstate) => {
                record.set_told();
                observer.report(Evidence::Fatal(sqlstate));
            }
            BackendMessage::Error(sqlstate) => {
                if &sqlstate == b"25006" {
                    observer.report(Evidence::WriteRefused);
                }
                match &sqlstate {
                    b"26000" => record.doubt_statements(Doubt::Missing),
                    // Of all that is not supported, only a plan that no longer fits is meant; the rest are rare.
                    b"0A000" => record.doubt_statements(Doubt::Stale),
                    _ => {}
                }
                *failed |= is_servers_fault(sqlstate);
            }
            BackendMessage::Deallocated => record.doubt_statements(Doubt::Stale),
            BackendMessage::HotStandby(standby) => {
                record.set_standby(standby);
                observer.report(Evidence::Role(record.role()));
            }
            // Of this session alone, which may have set it itself.
            BackendMessage::ReadOnly(read_only) => record.set_read_only(read_only),
        }
    }
}

/// Insufficient resources, system error, configuration file error, internal error (PostgreSQL manual, "PostgreSQL Error
/// Codes"): what the server says of itself, not of the statement.
fn is_servers_fault(sqlstate: [u8; 5]) -> bool {
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
            && let Err(violation) = self.read(&buf.filled()[before..])
        {
            self.violation = Some(violation.clone());
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
        }
        if poll.is_pending() {
            // Read to the end: the driver holds nothing back.
            self.record.set_held(false);
        }
        poll
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.record.set_blocked(poll.is_pending());
        if let Poll::Ready(Ok(n)) = poll {
            self.wrote(&buf[..n]);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.record.set_blocked(poll.is_pending());
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
