//! The configuration of a pool: Service name, login, TLS and limits.
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
//! # One server without DNS
//!
//! A pool for a single server needs no name server and no Kubernetes. `localhost`, an IP address, a name in the hosts
//! file and a Unix socket are hosts like any other, and no parameter is needed besides the usual ones:
//!
//! ```
//! use podpool::Config;
//!
//! # fn main() -> Result<(), podpool::ConfigError> {
//! let local: Config = "postgres://app@localhost/shop".parse()?;
//! let address: Config = "postgres://app@10.0.0.1:5433/shop".parse()?;
//! let socket: Config = "host=/var/run/postgresql user=app dbname=shop".parse()?;
//! let built = Config::new("/var/run/postgresql")?.with_port(5433).with_user("app").with_dbname("shop");
//! # for config in [local, address, socket, built] {
//! config.validate()?;
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The pool then has one endpoint. Everything else is as with several Pods: the probes, the deadlines, the reset of
//! sessions, the retries, and [`Pool::status`](crate::Pool::status). A checkout for a role that the server does not
//! have, such as [`Target::Standby`], fails. If the server has not been healthy for `acquire_timeout`, checkouts fail
//! immediately, and succeed again after the first probe that passes.
//!
//! [`AbsentPods`]: AbsentPods
//! [`ChannelBinding`]: ssl::ChannelBinding
//! [`Config::from_env`]: Config::from_env
//! [`Config::parse_with_env`]: Config::parse_with_env
//! [`Discovery`]: Discovery
//! [`docs/parameters.md`]: crate::guide::parameters
//! [`LagFallback`]: LagFallback
//! [`Limits`]: Limits
//! [`PolicyName`]: PolicyName
//! [`Pool::connect`]: crate::Pool::connect
//! [`RequireAuth`]: RequireAuth
//! [`Reset`]: Reset
//! [`Security`]: Security
//! [`SslCertMode`]: ssl::SslCertMode
//! [`SslMode`]: ssl::SslMode
//! [`SslNegotiation`]: ssl::SslNegotiation
//! [`str::parse`]: str::parse
//! [`Target`]: Target
//! [`TlsVersion`]: ssl::TlsVersion
//! [`VerifiedName`]: ssl::VerifiedName
//! [credentials provider]: crate::ProvideCredentials
//!
#![doc = include_str!("parameters.md")]

mod absent_pods;
mod auth_method;
mod checkout;
#[cfg(feature = "serde")]
mod deserialize;
mod discovery;
mod duration;
mod env;
mod host;
mod host_entry;
mod keyword_value;
mod known;
mod lag_fallback;
mod limits;
mod message;
mod nameservers;
mod parameter;
mod percent;
pub(crate) mod pgpass;
mod policy_name;
mod require_auth;
mod reset;
mod secret;
mod security;
mod service_name;
mod setters;
mod setting;
pub mod ssl;
mod target;
mod text;
mod url;
mod validate;
mod value;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use absent_pods::AbsentPods;
pub use auth_method::AuthMethod;
pub use checkout::Checkout;
pub use discovery::Discovery;
pub use host::Host;
pub use host_entry::HostEntry;
pub use lag_fallback::LagFallback;
pub use limits::Limits;
pub use policy_name::PolicyName;
pub use require_auth::RequireAuth;
pub use reset::Reset;
pub use secret::Secret;
pub use security::Security;
pub use service_name::ServiceName;
pub use ssl::{Ssl, SslMode};
pub use target::Target;

use crate::error::ConfigError;

/// PostgreSQL's default port, which is registered with IANA.
pub const DEFAULT_PORT: u16 = 5432;

/// The configuration of a pool, described in the [module](self).
///
/// Parsing rejects invalid values. Problems that a setter can still correct, such as a missing user or conflicting TLS
/// parameters, are reported by [`validate`](Config::validate), which is called when a pool is built.
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    /// At least one.
    hosts: Vec<HostEntry>,
    user: String,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    passfile: Option<PathBuf>,
    dbname: Option<String>,
    application_name: Option<String>,
    options: Option<String>,
    ssl: Ssl,
    require_auth: Option<RequireAuth>,
    security: Security,
    target: Target,
    policy: PolicyName,
    discovery: Discovery,
    srv_weights: bool,
    nameservers: Vec<SocketAddr>,
    client_id: Option<String>,
    limits: Limits,
}

impl Config {
    /// Creates a configuration with default values. `host` is the name of a headless Service, one IP address, the
    /// directory of a Unix socket, or a comma-separated list of them.
    ///
    /// # Errors
    ///
    /// Returns an error if `host` is none of these.
    pub fn new(host: &str) -> Result<Self, ConfigError> {
        host_entry::parse(host, "", "").map(Self::for_hosts)
    }

    fn for_hosts(hosts: Vec<HostEntry>) -> Self {
        // The user is empty if the operating system has no user name for this process. `validate` rejects that.
        Self::for_user(hosts, whoami::username().unwrap_or_default())
    }

    fn for_user(hosts: Vec<HostEntry>, user: String) -> Self {
        Self {
            hosts,
            user,
            password: None,
            password_file: None,
            passfile: None,
            dbname: None,
            application_name: None,
            options: None,
            ssl: Ssl::default(),
            require_auth: None,
            security: Security::default(),
            target: Target::default(),
            policy: PolicyName::default(),
            discovery: Discovery::default(),
            srv_weights: false,
            nameservers: Vec::new(),
            client_id: None,
            limits: Limits::default(),
        }
    }

    /// Returns all hosts: usually one, the name of a headless Service.
    #[must_use]
    pub fn hosts(&self) -> &[HostEntry] {
        &self.hosts
    }

    /// Returns the first of the [hosts](Self::hosts): the name of the headless Service, or the IP address.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.hosts[0].host
    }

    /// Returns the port of the first of the [hosts](Self::hosts). Not used with `discovery=srv`, because SRV records
    /// contain the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.hosts[0].port
    }

    /// Returns the user name. Empty if none is set and the operating system has none for this process;
    /// [`validate`](Self::validate) rejects an empty name.
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

    /// Returns the database name, which is the user name by default.
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

    /// Returns the authentication methods that a server may request, if `require_auth` is set.
    #[must_use]
    pub fn require_auth(&self) -> Option<RequireAuth> {
        self.require_auth
    }

    /// Returns the minimum protection of connections.
    #[must_use]
    pub fn security(&self) -> Security {
        self.security
    }

    /// Returns the target for checkouts that do not specify one.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// Returns the load-balancing policy.
    #[must_use]
    pub fn policy(&self) -> PolicyName {
        self.policy
    }

    /// Returns the source of the Pods' addresses.
    #[must_use]
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Returns true if the weights and priorities of SRV records are used (RFC 2782). The weights are scaled so that
    /// the largest one of each priority is 100, and multiply the share of a Pod. A Pod with a higher priority number is
    /// used only while no healthy Pod with a lower one serves the target.
    #[must_use]
    pub fn srv_weights(&self) -> bool {
        self.srv_weights
    }

    /// Returns the name servers to query. If empty, those in resolv.conf are queried.
    #[must_use]
    pub fn nameservers(&self) -> &[SocketAddr] {
        &self.nameservers
    }

    /// Returns this client's identifier. `None` if each pool uses a random one.
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
