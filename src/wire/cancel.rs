use std::{fmt, io, sync::Arc};

use tokio::{runtime::Handle, time::timeout};

use super::{
    connect::connect_any,
    dial::Dialer,
    tls::{Encryption, Established},
};
use crate::{
    endpoint::Endpoint,
    error::{BoxError, Error, Kind, Phase},
    system::spawn_on,
};

/// A handle that cancels the in-flight statement of one connection. It can be used from any task. The cancel request
/// uses a separate socket, with TLS if the connection uses TLS.
///
/// The request identifies the connection, not the statement. If the statement has ended when the request arrives, the
/// server cancels the statement that is in flight on the connection at that time, if there is one (PostgreSQL manual,
/// "Canceling Requests in Progress").
#[derive(Clone)]
pub struct CancelToken {
    token: tokio_postgres::CancelToken,
    endpoint: Endpoint,
    encrypted: bool,
    dialer: Arc<Dialer>,
    runtime: Handle,
}

impl CancelToken {
    /// Creates a token whose requests run on `runtime`.
    pub(crate) fn new(
        token: tokio_postgres::CancelToken,
        endpoint: Endpoint,
        encrypted: bool,
        dialer: Arc<Dialer>,
        runtime: Handle,
    ) -> Self {
        Self { token, endpoint, encrypted, dialer, runtime }
    }

    /// Sends a cancel request, and waits until the server has forwarded the request to the session. A result of `Ok`
    /// does not mean that a statement was cancelled. A cancelled statement fails with SQLSTATE 57014.
    ///
    /// Takes no longer than `connect_timeout` (2 s by default). Cancel-safe: after the first poll, the request
    /// continues even if this future is dropped.
    ///
    /// # Errors
    ///
    /// [`Kind::Connect`] if the Pod cannot be reached, [`Kind::Tls`] if TLS fails, [`Kind::Timeout`] if the server does
    /// not accept the request in time, and [`Kind::Shutdown`] if the pool's runtime has shut down.
    pub async fn cancel(&self) -> Result<(), Error> {
        match spawn_on(&self.runtime, self.clone().request()).await {
            Ok(result) => result,
            Err(error) => {
                let message = "cannot cancel the statement: the pool's runtime has shut down";
                Err(Error::new(Kind::Shutdown, message).with_source(error))
            }
        }
    }

    /// Sends a cancel request in a task on the pool's runtime.
    pub(crate) fn cancel_in_background(self) {
        let runtime = self.runtime.clone();
        drop(spawn_on(&runtime, self.request()));
    }

    async fn request(self) -> Result<(), Error> {
        let limit = self.dialer.timeout();
        let mut phase = Phase::Tcp;
        let result = timeout(limit, self.stages(&mut phase)).await;
        let (kind, cause) = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(cause)) if phase == Phase::Tls => (Kind::Tls, cause),
            Ok(Err(cause)) => (Kind::Connect, cause),
            Err(_) => (Kind::Timeout, format!("no response within {limit:?}").into()),
        };
        Err(Error::new(kind, "cannot cancel the statement").with_attempts(vec![self.endpoint.attempt(phase, cause)]))
    }

    async fn stages(&self, phase: &mut Phase) -> Result<(), BoxError> {
        let Dialer { socket, tls, .. } = &*self.dialer;
        let (socket, _) = connect_any(&self.endpoint, socket).await?;
        // The request contains the connection's secret key, so it must not be sent in plain text if the connection was
        // encrypted.
        let encryption = if self.encrypted { Encryption::Required } else { Encryption::Plain };
        *phase = Phase::Tls;
        let secured = tls.secure(socket, &self.endpoint, encryption, || {}).await;
        let (mut stream, _) = secured.map_err(|failure| failure.cause)?;
        *phase = Phase::Startup;
        self.token.cancel_query_raw(&mut stream, Established).await?;
        // The server closes the socket after it has forwarded the request. If `cancel` returned earlier, the request
        // could cancel a statement that the caller sends afterwards.
        match tokio::io::copy(&mut stream, &mut tokio::io::sink()).await {
            // PostgreSQL closes the socket without a TLS close_notify, which rustls reports as an unexpected EOF.
            Err(error) if !(self.encrypted && error.kind() == io::ErrorKind::UnexpectedEof) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
