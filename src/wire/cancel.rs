use std::{fmt, io, sync::Arc};

use tokio::{runtime::Handle, time::timeout};

use super::{
    dial::Dialer,
    tls::{Encryption, Through},
};
use crate::{
    endpoint::Endpoint,
    error::{BoxError, Error, Kind, Phase},
};

/// Cancels what runs on one connection, from anywhere: the server is asked over a socket of its own, and over TLS where
/// the connection is.
///
/// The request names the connection, not the statement. If the statement has ended by the time it arrives, it hits
/// whatever runs on the connection then (PostgreSQL manual, "Canceling Requests in Progress").
#[derive(Clone)]
pub struct CancelToken {
    token: tokio_postgres::CancelToken,
    endpoint: Endpoint,
    encrypted: bool,
    dialer: Arc<Dialer>,
    runtime: Handle,
}

impl CancelToken {
    /// A token whose requests run on `runtime`.
    pub(crate) fn new(
        token: tokio_postgres::CancelToken,
        endpoint: Endpoint,
        encrypted: bool,
        dialer: Arc<Dialer>,
        runtime: Handle,
    ) -> Self {
        Self { token, endpoint, encrypted, dialer, runtime }
    }

    /// Asks the server to cancel, and waits until it has passed the request on. Success does not mean that it found
    /// anything to cancel; a cancelled statement ends with SQLSTATE 57014.
    ///
    /// Takes no longer than `connect_timeout` (2 s by default). Cancel-safe: once begun, the request goes on without
    /// its caller.
    ///
    /// # Errors
    ///
    /// [`Kind::Connect`] if the Pod cannot be reached, [`Kind::Tls`] if TLS fails, [`Kind::Timeout`] if it does not take
    /// the request in time, and [`Kind::Shutdown`] if the pool's runtime is gone.
    pub async fn cancel(&self) -> Result<(), Error> {
        match self.runtime.spawn(self.clone().request()).await {
            Ok(result) => result,
            Err(error) => Err(Error::new(Kind::Shutdown, "the pool's runtime is gone").with_source(error)),
        }
    }

    async fn request(self) -> Result<(), Error> {
        let limit = self.dialer.timeout();
        let mut phase = Phase::Tcp;
        let result = timeout(limit, self.stages(&mut phase)).await;
        let (kind, cause) = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(cause)) if phase == Phase::Tls => (Kind::Tls, cause),
            Ok(Err(cause)) => (Kind::Connect, cause),
            Err(_) => (Kind::Timeout, format!("no answer within {limit:?}").into()),
        };
        Err(Error::new(kind, "could not cancel").with_attempts(vec![self.endpoint.attempt(phase, cause)]))
    }

    async fn stages(&self, phase: &mut Phase) -> Result<(), BoxError> {
        let Dialer { socket, tls, .. } = &*self.dialer;
        let socket = socket.connect(self.endpoint.address()).await?;
        // The request holds the connection's secret key: what was encrypted stays encrypted.
        let encryption = if self.encrypted { Encryption::Required } else { Encryption::Plain };
        *phase = Phase::Tls;
        let secured = tls.secure(socket, &self.endpoint, encryption, || {}).await;
        let (mut stream, _) = secured.map_err(|failure| failure.cause)?;
        *phase = Phase::Startup;
        self.token.cancel_query_raw(&mut stream, Through).await?;
        // The server closes when it has passed the request on; before that, it may still hit what comes next.
        match tokio::io::copy(&mut stream, &mut tokio::io::sink()).await {
            // PostgreSQL ends no TLS session in order after a CancelRequest: that it closes is all there is to hear.
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
