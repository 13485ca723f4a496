use std::{env, error::Error, io, io::IsTerminal, net::SocketAddr};

use podpool::Config;
use tracing_subscriber::EnvFilter;

/// Settings from environment variables.
pub(crate) struct Settings {
    pub(crate) database: Config,
    /// True if `/query` runs on connections that several requests share.
    pub(crate) shared: bool,
    pub(crate) listen: SocketAddr,
    pub(crate) max_requests: u32,
    log: EnvFilter,
}

/// Default of `MAX_REQUESTS`. Far above the number of connections to the database that such a service needs, but low
/// enough that the waiting requests fit into the memory of a small container.
const MAX_REQUESTS: u32 = 1_000;

impl Settings {
    pub(crate) fn from_environment() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let url = variable("DATABASE_URL")?
            .ok_or("DATABASE_URL is not set; expected postgres://user:password@service/database")?;
        let (url, shared) = without_shared(&url)?;
        // The error names the parameter but never contains a password, so it may be printed.
        let database = url.parse().map_err(|error| format!("DATABASE_URL: {error}"))?;
        let listen = variable("LISTEN_ADDR")?.unwrap_or_else(|| "127.0.0.1:8080".to_owned());
        let listen = listen.parse().map_err(|_| format!("LISTEN_ADDR: `{listen}` is not an IP address with a port"))?;
        let max_requests = match variable("MAX_REQUESTS")? {
            Some(text) => text
                .parse()
                .ok()
                .filter(|max| *max > 0)
                .ok_or_else(|| format!("MAX_REQUESTS: expected an integer from 1 to {}, got `{text}`", u32::MAX))?,
            None => MAX_REQUESTS,
        };
        let filter = variable("RUST_LOG")?.unwrap_or_else(|| "info".to_owned());
        let log = EnvFilter::try_new(filter).map_err(|error| format!("RUST_LOG: {error}"))?;
        Ok(Self { database, shared, listen, max_requests, log })
    }

    /// Starts logging to standard error, with colors if it is a terminal.
    pub(crate) fn start_log(&self) {
        let color = io::stderr().is_terminal();
        tracing_subscriber::fmt().with_env_filter(self.log.clone()).with_ansi(color).with_writer(io::stderr).init();
    }
}

/// Removes the service's own parameter `shared` from a URL. Returns the URL for the pool, and true if the parameter is
/// `on`.
fn without_shared(url: &str) -> Result<(String, bool), String> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), false)) };
    let (mut rest, mut shared) = (Vec::new(), false);
    for parameter in query.split('&') {
        match parameter.strip_prefix("shared=") {
            Some("on") => shared = true,
            Some("off") => shared = false,
            Some(value) => return Err(format!("DATABASE_URL: parameter `shared`: expected on or off, got `{value}`")),
            None => rest.push(parameter),
        }
    }
    let query = rest.join("&");
    Ok((if query.is_empty() { base.to_owned() } else { format!("{base}?{query}") }, shared))
}

/// Returns the value of a variable, or `None` if it is not set or empty.
fn variable(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8")),
    }
}
