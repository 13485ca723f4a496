//! What the pool is told: one Service name, who connects, and the bounds.
//!
//! A [`Config`] is read from a text ([a URL or keywords and values](#the-two-text-forms)), from
//! [libpq's environment variables](#the-environment), from a configuration file by way of serde (feature `serde`), or is
//! built up from [`Config::new`]. All of them know the same parameters.
//!
//! ```
//! use podpool::{Config, Target};
//!
//! # fn main() -> Result<(), podpool::ConfigError> {
//! let config: Config = "postgres://app:s%40fe@postgresql-svc.k8s-training.svc.cluster.local/shop?pool_size=4".parse()?;
//! let same = Config::new("postgresql-svc.k8s-training.svc.cluster.local")?
//!     .with_user("app")
//!     .with_password("s@fe")
//!     .with_dbname("shop")
//!     .with_target(Target::Any);
//! assert_eq!(config.host(), same.host());
//! assert!(!format!("{config:?}").contains("s@fe"));
//! # Ok(())
//! # }
//! ```
//!
#![doc = include_str!("parameters.md")]

#[cfg(feature = "serde")]
mod deserialize;
mod discovery;
mod duration;
mod env;
mod host;
mod keyword_value;
mod lag_fallback;
mod limits;
mod nameservers;
mod parameter;
mod percent;
pub(crate) mod pgpass;
mod policy_name;
mod reset;
mod secret;
mod service_name;
mod setting;
pub mod ssl;
mod target;
mod text;
mod unsupported;
mod url;
mod value;
mod words;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use discovery::Discovery;
pub use host::Host;
pub use lag_fallback::LagFallback;
pub use limits::Limits;
pub use policy_name::PolicyName;
pub use reset::Reset;
pub use secret::Secret;
pub use service_name::ServiceName;
pub use ssl::{Ssl, SslMode};
pub use target::Target;

use crate::error::ConfigError;

/// PostgreSQL's port: IANA's `postgresql`, and libpq's default.
pub const DEFAULT_PORT: u16 = 5432;

/// Everything a pool is told: see the [module](self).
///
/// A text is checked when it is parsed, but for what a setter can still mend: a missing user, and parameters of TLS that
/// contradict each other or that this build cannot do. [`validate`](Config::validate) checks everything; building a pool
/// calls it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    host: Host,
    port: u16,
    user: String,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    passfile: Option<PathBuf>,
    dbname: Option<String>,
    application_name: Option<String>,
    options: Option<String>,
    ssl: Ssl,
    target: Target,
    policy: PolicyName,
    discovery: Discovery,
    nameservers: Vec<SocketAddr>,
    client_id: Option<String>,
    limits: Limits,
}

impl Config {
    /// A configuration with the default of everything but its host: the name of a headless Service, or one IP address.
    ///
    /// # Errors
    ///
    /// When the host is neither.
    pub fn new(host: &str) -> Result<Self, ConfigError> {
        host.parse().map(Self::for_host)
    }

    fn for_host(host: Host) -> Self {
        // Without a user of the system's, `validate` asks for one.
        Self::for_user(host, whoami::username().unwrap_or_default())
    }

    fn for_user(host: Host, user: String) -> Self {
        Self {
            host,
            port: DEFAULT_PORT,
            user,
            password: None,
            password_file: None,
            passfile: None,
            dbname: None,
            application_name: None,
            options: None,
            ssl: Ssl::default(),
            target: Target::default(),
            policy: PolicyName::default(),
            discovery: Discovery::default(),
            nameservers: Vec::new(),
            client_id: None,
            limits: Limits::default(),
        }
    }

    /// Checks what can be checked without a network and without files: ranges and contradictions.
    ///
    /// # Errors
    ///
    /// Names the first parameter that cannot be used, and what was expected of it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.user.is_empty() {
            let expected = "the name of a user: none is given, and the operating system knows none for this process";
            return Err(ConfigError::new("user", expected));
        }
        if self.dbname.as_deref() == Some("") {
            return Err(ConfigError::new("dbname", "the name of a database, or none for that of the user"));
        }
        let texts = [
            ("user", Some(self.user.as_str())),
            ("password", self.password.as_ref().map(Secret::expose)),
            ("dbname", self.dbname.as_deref()),
            ("application_name", self.application_name.as_deref()),
            ("options", self.options.as_deref()),
        ];
        for (name, text) in texts {
            if text.is_some_and(|text| text.contains('\0')) {
                return Err(ConfigError::new(name, "a text without a zero byte, at which PostgreSQL's texts end"));
            }
        }
        self.check_password_sources()?;
        if self.port == 0 {
            return Err(ConfigError::new("port", "a number from 1 to 65535").got("0"));
        }
        if let Host::Address(address) = &self.host {
            let expected = "to be left out: the host is an address, for which nothing is looked up";
            if self.discovery != Discovery::Dns {
                return Err(ConfigError::new("discovery", expected).got(address.to_string()));
            }
            if !self.nameservers.is_empty() {
                return Err(ConfigError::new("nameservers", expected).got(address.to_string()));
            }
        }
        self.discovery.validate()?;
        nameservers::validate(&self.nameservers)?;
        self.limits.validate()?;
        self.ssl.validate()
    }

    /// Refuses two passwords, of which nobody could say which is meant.
    fn check_password_sources(&self) -> Result<(), ConfigError> {
        if self.password.is_some() && self.password_file.is_some() {
            return Err(ConfigError::new("password_file", "to be left out: `password` is given too"));
        }
        Ok(())
    }

    /// Sets the port of every Pod. Default 5432.
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets who connects. Default: the operating system's user, as libpq.
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets the password. Default: none.
    pub fn with_password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Sets the file that holds the password and nothing else, such as a mounted Secret. It is read again for each
    /// connection that is opened. Default: none.
    pub fn with_password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password_file = Some(path.into());
        self
    }

    /// Sets libpq's password file, which is looked up for each connection that is opened where nothing else gives a
    /// password. Default: none; [`from_env`](Self::from_env) and [`parse_with_env`](Self::parse_with_env) name
    /// `PGPASSFILE` or `~/.pgpass`.
    pub fn with_passfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.passfile = Some(path.into());
        self
    }

    /// Sets the database. Default: that of the user's name, as libpq.
    pub fn with_dbname(mut self, dbname: impl Into<String>) -> Self {
        self.dbname = Some(dbname.into());
        self
    }

    /// Sets the `application_name` that `pg_stat_activity` shows. Default: none.
    pub fn with_application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = Some(name.into());
        self
    }

    /// Sets command-line options for the server, such as `-c statement_timeout=5s`. Default: none.
    pub fn with_options(mut self, options: impl Into<String>) -> Self {
        self.options = Some(options.into());
        self
    }

    /// Sets whether and how TLS is used. Default: [`SslMode::Prefer`].
    pub fn with_ssl_mode(mut self, mode: SslMode) -> Self {
        self.ssl = self.ssl.with_mode(mode);
        self
    }

    /// Sets everything about TLS at once. Default: [`Ssl::default`].
    pub fn with_ssl(mut self, ssl: Ssl) -> Self {
        self.ssl = ssl;
        self
    }

    /// Sets which Pods serve a check-out that names no target: `target_session_attrs`. Default: [`Target::Any`].
    pub fn with_target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Sets which policy chooses among the Pods: `policy`. Default: [`PolicyName::LeastCost`].
    pub fn with_policy(mut self, policy: PolicyName) -> Self {
        self.policy = policy;
        self
    }

    /// Sets which records tell the Pods. Default: [`Discovery::Dns`].
    pub fn with_discovery(mut self, discovery: Discovery) -> Self {
        self.discovery = discovery;
        self
    }

    /// Sets the name servers to ask. Default: none, which means those of resolv.conf.
    pub fn with_nameservers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.nameservers = servers.into_iter().collect();
        self
    }

    /// Sets what tells this client from the others, so that each uses other Pods: see
    /// [`subset_size`](Limits::subset_size). The name of the application's own Pod does (Kubernetes sets `HOSTNAME` to
    /// it), if there is one client in each. Default: drawn at random when the pool is built, which spreads clients just
    /// as evenly; a name only makes it known beforehand who uses what.
    pub fn with_client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// Sets every bound at once. Default: [`Limits::default`].
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The name of the headless Service, or one address.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port of every Pod, where no SRV record tells it.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who connects. Empty where none is given and the operating system knows none; [`validate`](Self::validate)
    /// refuses that.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The file that holds the password.
    #[must_use]
    pub fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    /// libpq's password file, for where nothing else gives a password.
    #[must_use]
    pub fn passfile(&self) -> Option<&Path> {
        self.passfile.as_deref()
    }

    /// The database.
    #[must_use]
    pub fn dbname(&self) -> &str {
        self.dbname.as_deref().unwrap_or(&self.user)
    }

    /// The `application_name` that `pg_stat_activity` shows.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// Command-line options for the server.
    #[must_use]
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// Whether and how TLS is used.
    #[must_use]
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl.mode()
    }

    /// Everything about TLS.
    pub fn ssl(&self) -> &Ssl {
        &self.ssl
    }

    /// Which Pods serve a check-out that names no target.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// Which policy chooses among the Pods.
    #[must_use]
    pub fn policy(&self) -> PolicyName {
        self.policy
    }

    /// Which records tell the Pods.
    #[must_use]
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// The name servers to ask; empty for those of resolv.conf.
    #[must_use]
    pub fn nameservers(&self) -> &[SocketAddr] {
        &self.nameservers
    }

    /// What tells this client from the others, unless that is to be drawn at random.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// Every bound.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

#[cfg(test)]
mod tests;
