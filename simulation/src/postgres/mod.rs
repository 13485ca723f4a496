//! A model of PostgreSQL servers: the protocol towards the client, and replication, promotion, shutdown and recovery
//! behind it.
//!
//! A [`Cluster`] contains the servers of one database with their network and the authoritative [`History`] of commits
//! and reads. A [`Server`] has a disk (log, timelines, settings) and a process. [`Server::serve`] executes sessions.
//! The log contains one record for each commit. A standby receives the records from its upstream server over
//! [`Links`], writes them to its disk, confirms them, and replays them. Everything happens in the time of tokio's
//! clock.

mod certificate;
mod cluster;
mod commit;
mod error;
mod history;
mod links;
mod log;
mod lsn;
mod process;
mod protocol;
mod rejoin;
mod replication;
mod scram;
mod server;
mod session;
mod settings;
mod sql;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    certificate::{AUTHORITY, Certificate},
    cluster::{Cluster, Observer},
    error::{Report, Severity},
    history::{Arrival, Confirmation, History, Read, Write},
    links::{Links, Perfect},
    log::{Content, Log, Record, Switch},
    lsn::{Lsn, Timeline},
    process::Shutdown,
    rejoin::RejoinError,
    server::{Server, Status},
    settings::{Authentication, Settings, User},
    state::{Phase, Synchronous},
};
