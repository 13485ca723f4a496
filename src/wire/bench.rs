//! A tap without a server, for benchmarks.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::ChannelBinding;

use super::{
    auth::Gate,
    connection_observer::ConnectionObserver,
    record::Record,
    tap::Tap,
    tls::{Io, TlsSession},
};
use crate::config::Security;

/// A stream that accepts all bytes, and from which the same response can be read after each write.
struct Loopback {
    response: Arc<[u8]>,
    readable: bool,
}

impl AsyncRead for Loopback {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !std::mem::take(&mut self.readable) {
            return Poll::Pending;
        }
        buf.put_slice(&self.response);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Loopback {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.readable = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Io for Loopback {
    fn tls(&self) -> Option<TlsSession> {
        None
    }

    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// A tap on a connection that answers each request with the same response.
pub struct StatementTap {
    tap: Tap,
    record: Arc<Record>,
}

impl StatementTap {
    /// Creates a tap. It finds changes of session state if `tracks_session` is true.
    #[must_use]
    pub fn new(tracks_session: bool, response: &[u8]) -> Self {
        let record = Arc::new(Record::default());
        if tracks_session {
            record.track_session_changes();
        }
        record.set_in_service();
        let loopback = Loopback { response: response.into(), readable: false };
        let (observer, gate) = (ConnectionObserver::new(|_| {}), Gate::new(None, Security::Default, None));
        let mut this = Self { tap: Tap::new(Box::new(loopback), record.clone(), observer, gate), record };
        this.send(&[0, 0, 0, 8, 0, 3, 0, 0]); // the startup message
        this
    }

    /// Sends a request and reads the response. Returns true if session state may have changed.
    #[inline(never)]
    pub fn send(&mut self, request: &[u8]) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let written = Pin::new(&mut self.tap).poll_write(&mut cx, request);
        assert!(matches!(written, Poll::Ready(Ok(n)) if n == request.len()));
        let mut buffer = [0; 256];
        let read = Pin::new(&mut self.tap).poll_read(&mut cx, &mut ReadBuf::new(&mut buffer));
        assert!(matches!(read, Poll::Ready(Ok(()))), "the tap rejects the response");
        self.record.session_change().is_some()
    }
}

impl fmt::Debug for StatementTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatementTap").finish_non_exhaustive()
    }
}
