//! The stream between the driver and the socket (above TLS, where there is any), which reads message headers as they
//! pass and writes what it learns into the connection's record.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    frontend::Frontend,
    record::{Doubt, Record},
    reply::{Replies, Reply},
    witness::{Evidence, Witness},
};
use crate::time::Instant;

/// A socket, or what lies on top of one.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The tap.
pub(crate) struct Tap {
    inner: Box<dyn Io>,
    record: Arc<Record>,
    witness: Witness,
    frontend: Frontend,
    replies: Replies,
    /// Requests written that have not been answered.
    outstanding: u32,
    /// When the oldest of them was written.
    since: Option<Instant>,
    /// The answer that is being read says that the server itself is in trouble.
    failed: bool,
}

impl Tap {
    /// A tap at the start of a connection.
    pub(crate) fn new(inner: Box<dyn Io>, record: Arc<Record>, witness: Witness) -> Self {
        let (frontend, replies) = (Frontend::new(), Replies::new());
        Self { inner, record, witness, frontend, replies, outstanding: 0, since: None, failed: false }
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

    fn read(&mut self, bytes: &[u8]) {
        let Self { record, witness, replies, outstanding, since, failed, .. } = self;
        record.count_heard();
        replies.feed(bytes, |reply| match reply {
            Reply::Ready(status) => {
                *outstanding = outstanding.saturating_sub(1);
                record.set_status(status);
                record.set_outstanding(*outstanding);
                record.set_copying(false);
                record.count_outcome(std::mem::take(failed));
                if let Some(since) = since.take_if(|_| *outstanding == 0) {
                    record.count_answered(since.elapsed());
                }
            }
            Reply::CopyIn => {
                *outstanding = outstanding.saturating_sub(1);
                record.set_outstanding(*outstanding);
                record.set_copying(true);
                // The rest of a COPY takes as long as its data; that is no answer time.
                *since = None;
            }
            Reply::Fatal(sqlstate) => {
                record.set_told();
                witness.testify(Evidence::Fatal(sqlstate));
            }
            Reply::Error(sqlstate) => {
                if &sqlstate == b"25006" {
                    witness.testify(Evidence::WriteRefused);
                }
                match &sqlstate {
                    b"26000" => record.doubt_statements(Doubt::Missing),
                    // Of all that is not supported, only a plan that no longer fits is meant; the rest are rare.
                    b"0A000" => record.doubt_statements(Doubt::Stale),
                    _ => {}
                }
                *failed |= is_servers_fault(sqlstate);
            }
            Reply::Deallocated => record.doubt_statements(Doubt::Stale),
            Reply::HotStandby(standby) => {
                record.set_standby(standby);
                witness.testify(Evidence::Role(record.role()));
            }
            // Of this session alone, which may have set it itself.
            Reply::ReadOnly(read_only) => record.set_read_only(read_only),
        });
    }
}

/// Insufficient resources, system error, configuration file error, internal error (PostgreSQL manual, "PostgreSQL Error
/// Codes"): what the server says of itself, not of the statement.
fn is_servers_fault(sqlstate: [u8; 5]) -> bool {
    [b"53", b"58", b"F0", b"XX"].into_iter().any(|class| sqlstate.starts_with(class))
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.read(&buf.filled()[before..]);
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
