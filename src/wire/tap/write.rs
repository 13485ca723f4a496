//! The direction from the driver to the server.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

use super::Tap;

/// Maximum length of a TLS record.
const TLS_RECORD: usize = 1 << 14;

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.gate.awaits_mechanism() {
            self.gate.observe_response(buf);
        }
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.record.set_write_blocked(poll.is_pending());
        match &poll {
            Poll::Ready(Ok(n)) => self.observe_write(&buf[..*n]),
            Poll::Ready(Err(_)) => {
                // A TLS session may have sent all records but the last.
                if buf.len() > TLS_RECORD {
                    self.observe_write(buf);
                }
                self.fail_io();
            }
            Poll::Pending => {}
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.record.set_write_blocked(poll.is_pending());
        if matches!(poll, Poll::Ready(Err(_))) {
            self.fail_io();
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
