//! One session: login, and the execution of the client's requests.
//!
//! `login` performs the startup. `requests` reads the client's messages and dispatches them to `simple` and `extended`,
//! which execute statements (`execute`, `evaluate`) in a transaction (`transaction`).

mod copy;
mod evaluate;
mod execute;
mod extended;
mod handle;
mod login;
mod parameters;
mod requests;
mod simple;
mod transaction;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    time::Instant,
};

pub(super) use self::handle::{Handle, Interrupt};
use self::{extended::Portal, handle::Registration, parameters::Parameters, transaction::Transaction};
use super::{
    error::Report,
    protocol::Wire,
    server::Server,
    sql::Parsed,
    state::{End, Phase},
};

const CRASH_DETAIL: &str = "The postmaster has commanded this server process to roll back the current transaction and \
                            exit, because another server process exited abnormally and possibly corrupted shared \
                            memory.";

/// A prepared statement.
#[derive(Clone, Debug)]
struct Prepared {
    /// The statement, or `None` if its text is empty.
    parsed: Option<Parsed>,
    /// True if it was prepared with SQL's `PREPARE`.
    from_sql: bool,
}

/// The end of a session.
#[derive(Debug)]
enum Ended {
    /// The stream is broken or closed, or the client has sent Terminate.
    Closed,
    /// The server ends the session with a last message.
    Report(Report),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// A session after its login.
struct Session<'a, S> {
    server: &'a Arc<Server>,
    wire: &'a mut Wire<S>,
    registration: Registration,
    parameters: Parameters,
    transaction: Transaction,
    prepared: BTreeMap<String, Prepared>,
    portals: BTreeMap<String, Portal>,
    channels: BTreeSet<String>,
    tables: BTreeSet<String>,
    /// The commits whose acknowledgement is in the output buffer.
    unsent: Vec<u64>,
    /// True after an error in the extended protocol, until the next Sync.
    skips: bool,
    /// The end of the last statement.
    busy_until: Option<Instant>,
}

impl Server {
    /// Serves one connection until it ends. The stream is dropped at the end; the caller closes the socket with RST if
    /// the host has crashed, else with FIN.
    ///
    /// The caller refuses connections while the phase of the server is [`Phase::Stopped`].
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(self: &Arc<Self>, stream: S, _peer: SocketAddr) {
        let (generation, phase) = {
            let state = self.lock();
            (state.generation, state.phase)
        };
        if phase == Phase::Stopped {
            return;
        }
        let mut wire = Wire::new(stream);
        let ended = select! {
            biased;
            () = self.ended(generation) => self.last_warning().map_or(Ended::Closed, Ended::Report),
            ended = Session::run(self, &mut wire) => ended,
        };
        let report = match &ended {
            Ended::Report(report) => Some(report),
            Ended::Closed => None,
        };
        wire.close(report).await;
    }

    /// Returns the warning that the sessions receive when all processes of the server have ended.
    fn last_warning(&self) -> Option<Report> {
        match self.lock().end {
            End::BackendCrash => {
                let text = "terminating connection because of crash of another server process";
                Some(Report::warning("57P02", text).with_detail(CRASH_DETAIL))
            }
            End::Immediate => {
                Some(Report::warning("57P01", "terminating connection due to immediate shutdown command"))
            }
            End::Silent => None,
        }
    }

    /// Waits until the server does not hang.
    pub(super) async fn unhung(&self) {
        if self.lock().hung {
            self.wait_for(&self.lifecycle, |state| (!state.hung).then_some(())).await;
        }
    }
}
