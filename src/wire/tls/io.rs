//! What the driver speaks on: a socket, or TLS on top of one.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// A socket, or what lies on top of one.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// What authentication can be tied to.
    fn channel_binding(&self) -> ChannelBinding;
}

impl Io for TcpStream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl TlsStream for &mut Box<dyn Io + '_> {
    fn channel_binding(&self) -> ChannelBinding {
        (***self).channel_binding()
    }
}

/// Gives the driver, which would begin TLS now, the stream on which that has been done.
pub(in crate::wire) struct Through;

impl<S: TlsStream + Unpin> TlsConnect<S> for Through {
    type Stream = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(stream))
    }
}

/// A stream of somebody else's TLS.
pub(super) struct Foreign<S>(pub(super) S);

impl<S: TlsStream + Send + Unpin> Io for Foreign<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Foreign<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Foreign<S> {
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
