use std::{fmt, net::SocketAddr, sync::Arc};

use tokio::{runtime::Handle, time::timeout};
use tokio_postgres::NoTls;

use super::dial::Dialer;
use crate::error::{Attempt, BoxError, Error, Kind, Phase};

/// Cancels what runs on one connection, from anywhere: the server is asked over a socket of its own.
///
/// The request names the connection, not the statement. If the statement has ended by the time it arrives, it hits
/// whatever runs on the connection then (PostgreSQL manual, "Canceling Requests in Progress").
#[derive(Clone)]
pub struct CancelToken {
    token: tokio_postgres::CancelToken,
    address: SocketAddr,
    dialer: Arc<Dialer>,
    runtime: Handle,
}

impl CancelToken {
    /// A token whose requests run on `runtime`.
    pub(crate) fn new(
        token: tokio_postgres::CancelToken,
        address: SocketAddr,
        dialer: Arc<Dialer>,
        runtime: Handle,
    ) -> Self {
        Self { token, address, dialer, runtime }
    }

    /// Asks the server to cancel, and waits until it has passed the request on. Success does not mean that it found
    /// anything to cancel; a cancelled statement ends with SQLSTATE 57014.
    ///
    /// Takes no longer than `connect_timeout` (2 s by default). Cancel-safe: once begun, the request goes on without
    /// its caller.
    ///
    /// # Errors
    ///
    /// [`Kind::Connect`] if the Pod cannot be reached, [`Kind::Timeout`] if it does not take the request in time, and
    /// [`Kind::Shutdown`] if the pool's runtime is gone.
    pub async fn cancel(&self) -> Result<(), Error> {
        match self.runtime.spawn(self.clone().request()).await {
            Ok(result) => result,
            Err(error) => Err(Error::new(Kind::Shutdown, "the pool's runtime is gone").with_source(error)),
        }
    }

    async fn request(self) -> Result<(), Error> {
        let limit = self.dialer.timeout();
        let stages = async {
            let mut socket = self.dialer.socket(self.address).await.map_err(BoxError::from)?;
            self.token.cancel_query_raw(&mut socket, NoTls).await.map_err(BoxError::from)?;
            // The server closes when it has passed the request on; before that, it may still hit what comes next.
            tokio::io::copy(&mut socket, &mut tokio::io::sink()).await.map(drop).map_err(BoxError::from)
        };
        match timeout(limit, stages).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => Err(Error::new(Kind::Connect, "could not cancel").with_attempts(vec![Attempt::new(
                None,
                self.address,
                Phase::Tcp,
                cause,
            )])),
            Err(_) => {
                let cause = format!("no answer within {limit:?}");
                Err(Error::new(Kind::Timeout, "could not cancel").with_attempts(vec![Attempt::new(
                    None,
                    self.address,
                    Phase::Tcp,
                    cause,
                )]))
            }
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("address", &self.address).finish_non_exhaustive()
    }
}
