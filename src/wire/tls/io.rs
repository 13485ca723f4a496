//! Defines the streams on which a connection can run: a TCP socket, a TLS session on top of a TCP socket, or a Unix
//! socket.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::session::TlsSession;
use crate::system::{TcpStream, UnixStream};

/// A TCP socket, a TLS session on top of a TCP socket, or a Unix socket.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// Returns the TLS session, or `None` for a stream without TLS.
    fn tls(&self) -> Option<TlsSession>;

    /// Returns the data for channel binding, which ties the authentication to the TLS session.
    fn channel_binding(&self) -> ChannelBinding;
}

impl Io for TcpStream {
    fn tls(&self) -> Option<TlsSession> {
        None
    }

    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl Io for UnixStream {
    fn tls(&self) -> Option<TlsSession> {
        None
    }

    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl TlsStream for &mut Box<dyn Io + '_> {
    fn channel_binding(&self) -> ChannelBinding {
        (***self).channel_binding()
    }
}

/// A `TlsConnect` that returns the stream unchanged, because the TLS handshake is complete before the driver starts.
pub(in crate::wire) struct Established;

impl<S: TlsStream + Unpin> TlsConnect<S> for Established {
    type Stream = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(stream))
    }
}

/// The stream of a connector that was passed to the builder.
pub(super) struct CustomStream<S>(pub(super) S);

impl<S: TlsStream + Send + Unpin> Io for CustomStream<S> {
    fn tls(&self) -> Option<TlsSession> {
        Some(TlsSession { verified: true, version: None, cipher: None, fingerprint: None })
    }

    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CustomStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CustomStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
