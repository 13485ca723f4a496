//! The settings of a server.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::certificate::Certificate;

/// The authentication of the sessions.
#[derive(Clone, Debug, Default)]
pub enum Authentication {
    /// Only users with a password may log in, and prove it with SCRAM-SHA-256 with one iteration.
    Scram(BTreeMap<String, User>),
    /// Every user may log in.
    #[default]
    Trust,
}

/// A database role that may log in.
#[derive(Clone, Default)]
pub struct User {
    /// The password.
    pub password: String,
    /// Maximum number of sessions of the role.
    pub connection_limit: Option<usize>,
    /// True if the role may use the reserved connection slots.
    pub superuser: bool,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { password: _, connection_limit, superuser } = self;
        let mut out = f.debug_struct("User");
        out.field("connection_limit", connection_limit).field("superuser", superuser).finish_non_exhaustive()
    }
}

/// The settings of a server. Changes take effect at the next use of a setting.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The version, such as `17.4`. Versions before 14 do not report `in_hot_standby`.
    pub version: String,
    /// The authentication of the sessions.
    pub authentication: Authentication,
    /// The certificate. Without one, the server refuses to encrypt connections.
    pub certificate: Option<Certificate>,
    /// The databases. Empty if every database exists.
    pub databases: Vec<String>,
    /// Maximum number of sessions.
    pub max_connections: usize,
    /// Connection slots that only superusers may use.
    pub reserved_connections: usize,
    /// True if ordinary roles may read `pg_stat_wal_receiver` (`pg_read_all_stats`).
    pub read_all_stats: bool,
    /// The address at which standbys reach this server, as `pg_stat_wal_receiver` shows it.
    pub host: String,
    /// The port at which the server listens.
    pub port: u16,
    /// Deviation of the server's wall clock, in microseconds.
    pub clock_skew: i64,
    /// Time between the start of the server and the beginning of recovery.
    pub startup: Duration,
    /// Duration of the recovery after a crash or an immediate shutdown.
    pub crash_recovery: Duration,
    /// Duration of a promotion, apart from the replay of the received log.
    pub promotion: Duration,
    /// Duration of the checkpoint of a shutdown.
    pub shutdown_checkpoint: Duration,
    /// Time that each statement takes.
    pub statement: Duration,
    /// Time that a login takes, for example because a backend must be started.
    pub login: Duration,
    /// Time until a record is on the disk.
    pub flush: Duration,
    /// Time between the arrival of a record on a standby and its replay.
    pub replay: Duration,
    /// Time within which a standby must receive a message from its upstream server (`wal_receiver_timeout`), and a
    /// server a message from its standby (`wal_sender_timeout`).
    pub replication_timeout: Duration,
    /// Time after which a standby connects to its upstream server again (`wal_retrieve_retry_interval`).
    pub replication_retry: Duration,
    /// Time between two checkpoints or restartpoints while the log grows.
    pub checkpoint_interval: Duration,
    /// Duration of `pg_rewind`.
    pub rewind: Duration,
    /// Duration of a base backup.
    pub clone: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: "17.4".into(),
            authentication: Authentication::Trust,
            certificate: None,
            databases: Vec::new(),
            max_connections: 100,
            reserved_connections: 3,
            read_all_stats: true,
            host: "127.0.0.1".into(),
            port: 5432,
            clock_skew: 0,
            startup: Duration::from_millis(200),
            crash_recovery: Duration::from_secs(1),
            promotion: Duration::from_millis(100),
            shutdown_checkpoint: Duration::from_millis(100),
            statement: Duration::from_micros(100),
            login: Duration::from_millis(2),
            flush: Duration::from_micros(500),
            replay: Duration::from_millis(1),
            replication_timeout: Duration::from_secs(60),
            replication_retry: Duration::from_secs(5),
            checkpoint_interval: Duration::from_secs(300),
            rewind: Duration::from_secs(2),
            clone: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// Returns the major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        let digits: String = self.version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }
}
