//! The loop that reads the requests of a session.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    time::{sleep, timeout},
};

use super::{Ended, Handle, Interrupt, Session, login, transaction::Transaction};
use crate::postgres::{
    error::{Report, Severity},
    protocol::{Fields, Wire},
    server::Server,
};

/// Time within which a login must end (`authentication_timeout`).
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(60);

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send> Session<'a, S> {
    /// Runs a connection from its startup to its end.
    pub(super) async fn run(server: &'a Arc<Server>, wire: &'a mut Wire<S>) -> Ended {
        let (registration, parameters) = match timeout(AUTHENTICATION_TIMEOUT, login::log_in(server, wire)).await {
            Ok(Ok(login)) => login,
            Ok(Err(ended)) => return ended,
            Err(_) => {
                server.unhung().await;
                return Ended::Closed;
            }
        };
        let mut session = Session {
            server,
            wire,
            registration,
            parameters,
            transaction: Transaction::default(),
            prepared: BTreeMap::new(),
            portals: BTreeMap::new(),
            channels: BTreeSet::new(),
            tables: BTreeSet::new(),
            unsent: Vec::new(),
            skips: false,
            busy_until: None,
        };
        loop {
            if let Err(ended) = session.request().await {
                return ended;
            }
        }
    }

    /// Reads and executes one request.
    async fn request(&mut self) -> Result<(), Ended> {
        let handle = self.registration.handle().clone();
        let message = select! {
            biased;
            interrupt = handle.interrupted() => {
                self.server.unhung().await;
                return match interrupt {
                    // No statement is running.
                    Interrupt::Cancel => Ok(()),
                    Interrupt::Terminate(report) => Err(Ended::Report(report)),
                };
            }
            message = self.wire.message() => message?,
        };
        self.server.unhung().await;
        let Some((kind, body)) = message else {
            return Err(Ended::Closed);
        };
        let fields = Fields(&body);
        let result = match kind {
            b'X' => return Err(Ended::Closed),
            b'S' => return self.sync().await,
            b'H' => return self.flush().await,
            b'Q' => return self.simple(fields).await,
            b'B' | b'C' | b'D' | b'E' | b'P' if self.skips => return Ok(()),
            b'B' => self.bind(fields),
            b'C' => self.close(fields),
            b'D' => self.describe(fields),
            b'E' => self.run_portal(fields).await,
            b'P' => self.parse(fields).await,
            // The rest of a COPY that the server has refused.
            b'c' | b'd' | b'f' => return Ok(()),
            other => Err(Report::protocol(format!("invalid frontend message type {other}"))),
        };
        if let Err(report) = result {
            self.failed(report)?;
            self.skips = true;
        }
        Ok(())
    }

    /// Reports the failure of a request, which ends the session if it is not an ordinary error.
    pub(super) fn failed(&mut self, report: Report) -> Result<(), Ended> {
        if report.code == "0A000" && report.message.starts_with("the simulated server") {
            self.server.event(format!("session {}: {report}", self.registration.handle().pid));
        }
        if report.severity != Severity::Error {
            return Err(Ended::Report(report));
        }
        self.wire.output.report(&report);
        self.fail();
        Ok(())
    }

    /// Ends a sequence of requests: reports changed parameters and the status of the transaction.
    pub(super) async fn ready(&mut self) -> Result<(), Ended> {
        self.parameters.report(self.server, &mut self.wire.output);
        self.wire.output.ready(self.transaction.status());
        self.flush().await
    }

    /// Sends the output, and records the acknowledgements that it contains.
    async fn flush(&mut self) -> Result<(), Ended> {
        let handle = self.registration.handle().clone();
        let terminated = async { while !matches!(handle.interrupted().await, Interrupt::Terminate(_)) {} };
        select! {
            biased;
            result = self.wire.flush() => result?,
            // The client does not read, so a last message cannot be sent either.
            () = terminated => return Err(Ended::Closed),
        }
        self.unsent.drain(..).for_each(|serial| self.server.cluster.history.acknowledged(serial));
        Ok(())
    }

    /// Waits for the time that a statement takes. Fails if the statement is cancelled or the session terminated.
    pub(super) async fn work(&self, duration: Duration) -> Result<(), Report> {
        interruptible(self.registration.handle(), sleep(duration)).await?;
        self.server.unhung().await;
        Ok(())
    }
}

/// Waits for `work`, unless the statement is cancelled or the session terminated.
pub(super) async fn interruptible<T>(session: &Handle, work: impl Future<Output = T>) -> Result<T, Report> {
    select! {
        biased;
        interrupt = session.interrupted() => Err(match interrupt {
            Interrupt::Cancel => Report::error("57014", "canceling statement due to user request"),
            Interrupt::Terminate(report) => report,
        }),
        result = work => Ok(result),
    }
}
