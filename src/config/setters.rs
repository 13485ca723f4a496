//! The setters of [`Config`].

use std::{net::SocketAddr, path::PathBuf};

use super::{Config, Discovery, HostEntry, Limits, PolicyName, RequireAuth, Secret, Security, Ssl, SslMode, Target};

impl Config {
    /// Replaces all hosts with one, for example with one of [`hosts`](Self::hosts) to build a pool for that host only.
    pub fn with_host(mut self, host: HostEntry) -> Self {
        self.hosts = vec![host];
        self
    }

    /// Sets the port of all hosts; a connection string can set one for each. Not used with `discovery=srv`, because
    /// SRV records contain the port. Default: 5432.
    pub fn with_port(mut self, port: u16) -> Self {
        self.hosts.iter_mut().for_each(|host| host.port = port);
        self
    }

    /// Sets the user name. Default: the operating system's user, as in libpq.
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

    /// Sets the database name. Default: the user name, as in libpq.
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
        self.ssl = self.security.apply(ssl);
        self
    }

    /// Sets the authentication methods that a server may request: `require_auth`. Default: see [`RequireAuth`].
    pub fn with_require_auth(mut self, methods: RequireAuth) -> Self {
        self.require_auth = Some(methods);
        self
    }

    /// Sets the minimum protection of connections: `security`. Default: [`Security::Default`].
    pub fn with_security(mut self, security: Security) -> Self {
        (self.security, self.ssl) = (security, security.apply(self.ssl));
        self
    }

    /// Sets the target for checkouts that do not specify one: `target_session_attrs`. Default: [`Target::Any`].
    pub fn with_target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Sets the load-balancing policy. Default: [`PolicyName::LeastCost`].
    pub fn with_policy(mut self, policy: PolicyName) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the source of the Pods' addresses. Default: [`Discovery::Dns`].
    pub fn with_discovery(mut self, discovery: Discovery) -> Self {
        self.discovery = discovery;
        self
    }

    /// Sets whether the weights and priorities of SRV records are used: `srv_weights`. Default: false, except for URLs
    /// that begin with `postgres+srv://`.
    pub fn with_srv_weights(mut self, used: bool) -> Self {
        self.srv_weights = used;
        self
    }

    /// Sets the name servers to query. Default: those in resolv.conf.
    pub fn with_nameservers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.nameservers = servers.into_iter().collect();
        self
    }

    /// Sets this client's identifier, which determines its subset of the Pods: see
    /// [`subset_size`](Limits::subset_size). If each application Pod has one client, use the Pod's name, which
    /// Kubernetes provides as `HOSTNAME`. Default: a random identifier for each pool. Random identifiers spread clients
    /// just as evenly, but only a fixed identifier selects the same subset again after a restart.
    pub fn with_client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// Sets all limits. Default: [`Limits::default`].
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}
