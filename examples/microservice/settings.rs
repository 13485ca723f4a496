use std::{env, error::Error, io, io::IsTerminal, net::SocketAddr};

use podpool::Config;
use tracing_subscriber::EnvFilter;

/// What the environment says.
pub(crate) struct Settings {
    pub(crate) database: Config,
    pub(crate) listen: SocketAddr,
    log: EnvFilter,
}

impl Settings {
    pub(crate) fn from_environment() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let url =
            variable("DATABASE_URL")?.ok_or("DATABASE_URL is not set; postgres://user:password@service/database")?;
        // The pool's error names the parameter and never holds a password, so it can be shown.
        let database = url.parse().map_err(|error| format!("DATABASE_URL: {error}"))?;
        let listen = variable("LISTEN_ADDR")?.unwrap_or_else(|| "127.0.0.1:8080".to_owned());
        let listen = listen.parse().map_err(|_| format!("LISTEN_ADDR: `{listen}` is no address and port"))?;
        let filter = variable("RUST_LOG")?.unwrap_or_else(|| "info".to_owned());
        let log = EnvFilter::try_new(filter).map_err(|error| format!("RUST_LOG: {error}"))?;
        Ok(Self { database, listen, log })
    }

    /// Logs to standard error, in colour where somebody looks on.
    pub(crate) fn start_log(&self) {
        let colour = io::stderr().is_terminal();
        tracing_subscriber::fmt().with_env_filter(self.log.clone()).with_ansi(colour).with_writer(io::stderr).init();
    }
}

/// A variable; one that is set to nothing counts as not set.
fn variable(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8")),
    }
}
