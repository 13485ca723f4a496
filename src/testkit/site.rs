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

/// Who administers the servers, and replicates from them.
pub(super) const SUPERUSER: &str = "postgres";

/// How long one connection for the cluster's own use may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What all Pods of one cluster have in common.
pub(super) struct Site {
    pub(super) programs: Programs,
    pub(super) account: Option<Account>,
    pub(super) directory: PathBuf,
    pub(super) port: u16,
    pub(super) user: String,
    /// The user's password as it is now.
    pub(super) password: Mutex<String>,
    pub(super) database: String,
    /// The password of [`SUPERUSER`]: drawn at random for each cluster, of letters and digits.
    pub(super) secret: String,
    /// What a server shows over TLS, unless it has one of its own.
    pub(super) certificate: Option<Certificate>,
    /// Whose client certificates are accepted.
    pub(super) client_ca: Option<String>,
    /// Who may come in, beside the superuser.
    pub(super) hba: Option<String>,
    /// Lines for `postgresql.conf`, the last word over our own.
    pub(super) settings: Vec<(String, String)>,
}

impl Site {
    /// One of PostgreSQL's programs, to be run in the cluster's directory, where the watcher finds it.
    pub(super) fn program(&self, name: &str) -> Command {
        let mut command = command::program(&self.programs.path(name), self.account);
        command.current_dir(&self.directory);
        command
    }

    /// Connects as the superuser. The connection ends with the client.
    pub(super) async fn connect(&self, address: SocketAddr, database: &str) -> Result<Client, Error> {
        let mut config = Config::new();
        config.host(address.ip().to_string()).port(address.port()).connect_timeout(CONNECT_DEADLINE);
        config.user(SUPERUSER).password(&self.secret).dbname(database).application_name("podpool-testkit");
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, config.connect(NoTls));
        let (client, connection) = match connecting.await {
            Ok(connected) => connected.map_err(|source| Error::sql(format!("connect to {address}"), source))?,
            Err(_) => {
                let what = format!("a connection to {address}");
                return Err(Error::Timeout { what, after: CONNECT_DEADLINE, log: String::new() });
            }
        };
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // The client's user sees the same in its next statement.
                debug!(%error, %address, "a direct connection ended");
            }
        });
        Ok(client)
    }

    /// How a standby or a program reaches another Pod as the superuser, in libpq's words.
    pub(super) fn conninfo(&self, address: SocketAddr, application_name: &str) -> String {
        format!(
            "host={} port={} user={SUPERUSER} password={} dbname=postgres application_name={application_name} \
             connect_timeout=5",
            address.ip(),
            address.port(),
            self.secret,
        )
    }

    /// The whole `postgresql.conf` of a Pod. Speed before safety: nobody keeps this data.
    pub(super) fn postgresql_conf(
        &self,
        name: &str,
        address: SocketAddr,
        hba: &Path,
        primary: Option<&str>,
        tls: &[(&'static str, String)],
    ) -> String {
        let mut conf = String::from("# Written by podpool::testkit, again at every start and every change of role.\n");
        let mut set = |name: &str, value: &str| {
            // Writing to a string does not fail.
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
        // Files in the data directory, not in /dev/shm, where a killed server would leave them.
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

    /// Who may come in: everybody of this machine, with a password, unless something else is said.
    pub(super) fn pg_hba(&self) -> String {
        let others = self.hba.as_deref().unwrap_or("host all all 127.0.0.0/8 scram-sha-256");
        format!(
            "host all {SUPERUSER} 127.0.0.0/8 scram-sha-256\n\
             host replication {SUPERUSER} 127.0.0.0/8 scram-sha-256\n\
             {others}\n"
        )
    }
}

/// A value for `postgresql.conf`, or a literal for SQL without backslashes.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A name for SQL.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A part of a URL: everything but letters, digits and `-._~` as `%XX`.
pub(super) fn url_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_would_end_the_quotes() {
        assert_eq!(quoted("it's"), "'it''s'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(url_encoded("p@ss:w/rd é"), "p%40ss%3Aw%2Frd%20%C3%A9");
    }
}
