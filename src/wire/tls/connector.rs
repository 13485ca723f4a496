//! Erases the types of TLS connectors, so that podpool's own connector and one that was passed to the builder can be
//! used in the same way.

use std::{future::Future, pin::Pin};

use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::io::{CustomStream, Io};
use crate::{error::BoxError, system::TcpStream};

/// The future of a TLS handshake.
pub(crate) type Handshake = Pin<Box<dyn Future<Output = Result<Box<dyn Io>, BoxError>> + Send>>;

/// A TLS implementation.
pub(crate) trait Connector: Send + Sync {
    /// Starts a handshake on `socket`. `name` is the server's name, for verification and SNI.
    fn handshake(&self, name: &str, socket: TcpStream) -> Handshake;
}

/// A TLS connector that was passed to the pool's builder.
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
            Ok(Box::new(CustomStream(stream)) as Box<dyn Io>)
        })
    }
}
