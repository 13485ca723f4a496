//! The configuration of a pool: the Service name, the login, TLS and the limits.
//!
//! A [`Config`] is parsed from a [URL or a keyword/value string](#connection-strings), read from [libpq's environment
//! variables](#environment-variables), deserialized from a configuration file (feature `serde`), or built with
//! [`Config::new`] and setters. All of these accept the same parameters.
//!
//! ```
//! use podpool::{Config, Target};
//!
//! # fn main() -> Result<(), podpool::ConfigError> {
//! let config: Config =
//!     "postgres://app:s%40fe@postgresql-svc.k8s-training.svc.cluster.local/shop?pool_size=4".parse()?;
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
mod message;
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

/// PostgreSQL's port, as registered with IANA and as in libpq.
pub const DEFAULT_PORT: u16 = 5432;

/// The configuration of a pool: see the [module](self).
///
/// Parsing a text checks every value, except for problems that a setter can still correct: a missing user, and TLS
/// parameters that conflict or that this build does not support. [`validate`](Config::validate) checks everything, and
/// building a pool calls it.
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
    /// Creates a configuration with default values for a host: the name of a headless Service, or one IP address.
    ///
    /// # Errors
    ///
    /// Returns an error if the host is neither.
    pub fn new(host: &str) -> Result<Self, ConfigError> {
        host.parse().map(Self::for_host)
    }

    fn for_host(host: Host) -> Self {
        // If the operating system has no user name for this process, `validate` requires one.
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

    /// Checks ranges and conflicts. Reads no file and does not use the network.
    ///
    /// # Errors
    ///
    /// Returns the first invalid parameter.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.user.is_empty() {
            let expected = "a user name, got none (the operating system has no user name for this process either)";
            return Err(ConfigError::new("user", expected));
        }
        if self.dbname.as_deref() == Some("") {
            return Err(ConfigError::new("dbname", "the name of a database, got an empty name"));
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
                let expected = "a value without a zero byte (PostgreSQL strings cannot contain one)";
                return Err(ConfigError::new(name, expected));
            }
        }
        self.check_password_sources()?;
        if self.port == 0 {
            return Err(ConfigError::new("port", "a number from 1 to 65535").got("0"));
        }
        if let Host::Address(address) = &self.host {
            let conflict = |name| {
                let reason = format!("`{address}` is an IP address and needs no DNS lookup; remove `{name}`");
                Err(ConfigError::conflicting(name, reason))
            };
            if self.discovery != Discovery::Dns {
                return conflict("discovery");
            }
            if !self.nameservers.is_empty() {
                return conflict("nameservers");
            }
        }
        self.discovery.validate()?;
        nameservers::validate(&self.nameservers)?;
        self.limits.validate()?;
        self.ssl.validate()
    }

    /// Rejects a password together with a password file, because neither takes precedence.
    fn check_password_sources(&self) -> Result<(), ConfigError> {
        if self.password.is_some() && self.password_file.is_some() {
            return Err(ConfigError::conflicting("password_file", "`password` is set too; remove one of them"));
        }
        Ok(())
    }

    /// Sets the port of every Pod. Default 5432.
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the user. Default: the operating system's user, as in libpq.
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets the password. Default: none.
    pub fn with_password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Sets the path of a file that contains only the password, such as a mounted Secret. The file is read for each new
    /// connection. Default: none.
    pub fn with_password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password_file = Some(path.into());
        self
    }

    /// Sets the path of libpq's password file, which is read for each new connection if there is no other password.
    /// Default: none; [`from_env`](Self::from_env) and [`parse_with_env`](Self::parse_with_env) use `PGPASSFILE` or
    /// `~/.pgpass`.
    pub fn with_passfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.passfile = Some(path.into());
        self
    }

    /// Sets the database. Default: the name of the user, as in libpq.
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

    /// Sets the TLS mode. Default: [`SslMode::Prefer`].
    pub fn with_ssl_mode(mut self, mode: SslMode) -> Self {
        self.ssl = self.ssl.with_mode(mode);
        self
    }

    /// Sets all TLS parameters. Default: [`Ssl::default`].
    pub fn with_ssl(mut self, ssl: Ssl) -> Self {
        self.ssl = ssl;
        self
    }

    /// Sets the target of checkouts that specify none: `target_session_attrs`. Default: [`Target::Any`].
    pub fn with_target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Sets the load-balancing policy. Default: [`PolicyName::LeastCost`].
    pub fn with_policy(mut self, policy: PolicyName) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the DNS records that list the Pods. Default: [`Discovery::Dns`].
    pub fn with_discovery(mut self, discovery: Discovery) -> Self {
        self.discovery = discovery;
        self
    }

    /// Sets the name servers. Default: those of resolv.conf.
    pub fn with_nameservers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.nameservers = servers.into_iter().collect();
        self
    }

    /// Sets the identifier of this client, which determines the Pods that it uses: see
    /// [`subset_size`](Limits::subset_size). If each application Pod has one client, use the Pod's name, which
    /// Kubernetes sets as `HOSTNAME`. Default: a random identifier for each pool, which spreads clients as evenly. With
    /// a fixed identifier, the selection is the same after a restart.
    pub fn with_client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// Sets all limits. Default: [`Limits::default`].
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the name of the headless Service, or one IP address.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the port of every Pod without an SRV record.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the user. Empty if none is set and the operating system has no user name for this process, which
    /// [`validate`](Self::validate) rejects.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the password.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Returns the path of the file that contains the password.
    #[must_use]
    pub fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    /// Returns the path of libpq's password file.
    #[must_use]
    pub fn passfile(&self) -> Option<&Path> {
        self.passfile.as_deref()
    }

    /// Returns the database.
    #[must_use]
    pub fn dbname(&self) -> &str {
        self.dbname.as_deref().unwrap_or(&self.user)
    }

    /// Returns the `application_name` that `pg_stat_activity` shows.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// Returns the command-line options for the server.
    #[must_use]
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// Returns the TLS mode.
    #[must_use]
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl.mode()
    }

    /// Returns all TLS parameters.
    pub fn ssl(&self) -> &Ssl {
        &self.ssl
    }

    /// Returns the target of checkouts that specify none.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// Returns the load-balancing policy.
    #[must_use]
    pub fn policy(&self) -> PolicyName {
        self.policy
    }

    /// Returns the DNS records that list the Pods.
    #[must_use]
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Returns the name servers. Empty for those of resolv.conf.
    #[must_use]
    pub fn nameservers(&self) -> &[SocketAddr] {
        &self.nameservers
    }

    /// Returns the identifier of this client. `None` for a random one.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// Returns all limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

#[cfg(test)]
mod tests;
