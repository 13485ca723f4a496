//! Whoever does the handshake, without its type.

use std::{future::Future, pin::Pin};

use tokio::net::TcpStream;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::io::{Foreign, Io};
use crate::error::BoxError;

/// A handshake under way.
pub(crate) type Handshake = Pin<Box<dyn Future<Output = Result<Box<dyn Io>, BoxError>> + Send>>;

/// Does handshakes.
pub(crate) trait Connector: Send + Sync {
    /// Begins a handshake with the server of that name.
    fn handshake(&self, name: &str, socket: TcpStream) -> Handshake;
}

/// A user's.
pub(super) struct Custom<M>(pub(super) M);

impl<M> Connector for Custom<M>
where
    M: MakeTlsConnect<TcpStream> + Clone + Send + Sync,
    M::Stream: Send + 'static,
    M::TlsConnect: Send + 'static,
    <M::TlsConnect as TlsConnect<TcpStream>>::Future: Send + 'static,
{
    fn handshake(&self, name: &str, socket: TcpStream) -> Handshake {
        let connect = self.0.clone().make_tls_connect(name).map_err(Into::into);
        Box::pin(async move {
            let stream = connect?.connect(socket).await.map_err(Into::into)?;
            Ok(Box::new(Foreign(stream)) as Box<dyn Io>)
        })
    }
}
