//! Settings, programs and credentials that all servers of a cluster share, and the configuration files generated from
//! them.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use tokio_postgres::{Client, Config, NoTls};
use tracing::debug;

use super::{Account, Error, Programs, certificate::Certificate, command};

/// The superuser, which administers the servers and is also the replication user.
pub(super) const SUPERUSER: &str = "postgres";

/// Timeout for opening the testkit's own connections.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The configuration that all servers of one cluster share.
pub(super) struct ClusterConfig {
    pub(super) programs: Programs,
    pub(super) account: Option<Account>,
    pub(super) directory: PathBuf,
    pub(super) port: u16,
    pub(super) user: String,
    /// The current password of `user`.
    pub(super) password: Mutex<String>,
    pub(super) database: String,
    /// The password of [`SUPERUSER`]: random letters, different for each cluster.
    pub(super) secret: String,
    /// The certificate of every server until [`Server::set_certificate`](super::server::Server::set_certificate).
    pub(super) certificate: Option<Certificate>,
    /// The CA certificates (PEM) that client certificates are verified against.
    pub(super) client_ca: Option<String>,
    /// The lines of `pg_hba.conf` for all users except the superuser. `None`: password authentication from this
    /// machine.
    pub(super) hba: Option<String>,
    /// Parameters for `postgresql.conf`. Written last, so that they override the testkit's parameters.
    pub(super) settings: Vec<(String, String)>,
    /// Environment variables of the servers, each with the Pod's name.
    pub(super) environment: Vec<(String, String, String)>,
}

impl ClusterConfig {
    /// Builds a command for one of PostgreSQL's programs. The program runs in the cluster's directory, so that the
    /// watcher finds and kills its process.
    pub(super) fn program(&self, name: &str) -> Command {
        let mut command = command::program(&self.programs.path(name), self.account);
        command.current_dir(&self.directory);
        command
    }

    /// Connects as the superuser. Dropping the client closes the connection.
    pub(super) async fn connect(&self, address: SocketAddr, database: &str) -> Result<Client, Error> {
        let mut config = Config::new();
        config.host(address.ip().to_string()).port(address.port()).connect_timeout(CONNECT_DEADLINE);
        config.user(SUPERUSER).password(&self.secret).dbname(database).application_name("podpool-testkit");
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, config.connect(NoTls));
        let (client, connection) = match connecting.await {
            Ok(connected) => connected.map_err(|source| Error::sql(format!("connect to {address}"), source))?,
            Err(_) => {
                let waiting_for = format!("a connection to {address}");
                return Err(Error::Timeout { waiting_for, after: CONNECT_DEADLINE, log: String::new() });
            }
        };
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Only log the error, because the client's next statement returns it too.
                debug!(%error, %address, "testkit connection failed");
            }
        });
        Ok(client)
    }

    /// Returns a libpq connection string for connecting to a server as the superuser. Standbys and PostgreSQL's
    /// programs use it.
    pub(super) fn conninfo(&self, address: SocketAddr, application_name: &str) -> String {
        format!(
            "host={} port={} user={SUPERUSER} password={} dbname=postgres application_name={application_name} \
             connect_timeout=5",
            address.ip(),
            address.port(),
            self.secret,
        )
    }

    /// Returns the content of a Pod's `postgresql.conf`. The settings trade durability for speed, because the data is
    /// temporary.
    pub(super) fn postgresql_conf(
        &self,
        name: &str,
        address: SocketAddr,
        hba: &Path,
        primary: Option<&str>,
        tls: &[(&'static str, String)],
    ) -> String {
        let mut conf = String::from("# Written by podpool::testkit at every start and every change of role.\n");
        let mut set = |name: &str, value: &str| {
            // Writing to a `String` cannot fail.
            let _ = writeln!(conf, "{name} = {}", quoted(value));
        };
        set("listen_addresses", &address.ip().to_string());
        set("port", &address.port().to_string());
        set("hba_file", &hba.to_string_lossy());
        set("cluster_name", name);
        set("unix_socket_directories", "");
        set("password_encryption", "scram-sha-256");
        set("max_connections", "100");
        set("wal_level", "replica");
        set("hot_standby", "on");
        set("max_wal_senders", "40");
        set("wal_keep_size", "256MB");
        set("wal_log_hints", "on");
        set("wal_retrieve_retry_interval", "100ms");
        set("recovery_target_timeline", "latest");
        set("shared_buffers", "16MB");
        set("fsync", "off");
        // Keep dynamic shared memory in files in the data directory, because a killed server would leave its segments
        // behind in /dev/shm.
        set("dynamic_shared_memory_type", "mmap");
        set("log_line_prefix", "%m [%p] %q%u@%d ");
        set("lc_messages", "C");
        if let Some(primary) = primary {
            set("primary_conninfo", primary);
        }
        for (name, value) in tls {
            set(name, value);
        }
        for (name, value) in &self.settings {
            set(name, value);
        }
        conf
    }

    /// Returns the content of `pg_hba.conf`.
    pub(super) fn pg_hba(&self) -> String {
        let others = self.hba.as_deref().unwrap_or("host all all 127.0.0.0/8 scram-sha-256");
        format!(
            "host all {SUPERUSER} 127.0.0.0/8 scram-sha-256\n\
             host replication {SUPERUSER} 127.0.0.0/8 scram-sha-256\n\
             {others}\n"
        )
    }
}

/// Quotes a value for `postgresql.conf` or as an SQL literal. Does not escape backslashes.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Quotes an SQL identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Percent-encodes a part of a URL: every byte except the unreserved characters (RFC 3986 section 2.3).
pub(super) fn url_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            // Writing to a `String` cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_quotes_in_sql_and_reserved_characters_in_urls() {
        assert_eq!(quoted("it's"), "'it''s'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(url_encoded("p@ss:w/rd é"), "p%40ss%3Aw%2Frd%20%C3%A9");
    }
}
