//! Validation of a [`Config`]: its values and their combinations.

use super::{AuthMethod, Config, Discovery, Host, HostEntry, Secret, nameservers, ssl::ChannelBinding};
use crate::error::ConfigError;

impl Config {
    /// Checks all values and their combinations, without reading files or using the network.
    ///
    /// # Errors
    ///
    /// Returns an error for the first invalid parameter.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.user.is_empty() {
            let expected = "a user name, got none (the operating system has no user name for this process either)";
            return Err(ConfigError::new("user", expected));
        }
        if self.dbname.as_deref() == Some("") {
            return Err(ConfigError::new("dbname", "a database name, got an empty one"));
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
                let expected = "a value without zero bytes (PostgreSQL strings cannot contain any)";
                return Err(ConfigError::new(name, expected));
            }
        }
        self.check_password_sources()?;
        self.check_hosts()?;
        self.discovery.validate()?;
        nameservers::validate(&self.nameservers)?;
        self.limits.validate()?;
        self.security.check(self)?;
        self.check_auth()?;
        self.ssl.validate()
    }

    /// Checks each host, and rejects parameters about DNS together with hosts that need no lookup.
    fn check_hosts(&self) -> Result<(), ConfigError> {
        self.hosts.iter().try_for_each(HostEntry::validate)?;
        let conflict = |name, host: &HostEntry| {
            let (address, kind) = match (host.address, &host.host) {
                (Some(address), _) => (address.to_string(), "an IP address"),
                (None, Host::Directory(_)) => (host.host.to_string(), "the directory of a Unix socket"),
                (None, _) => (host.host.to_string(), "an IP address"),
            };
            let reason = format!("`{address}` is {kind} and needs no DNS lookup; remove `{name}`");
            Err(ConfigError::conflicting(name, reason))
        };
        let fixed = |host: &&HostEntry| host.fixed().is_some();
        match self.hosts.iter().find(fixed) {
            Some(host) if self.discovery != Discovery::Dns => conflict("discovery", host),
            _ if self.srv_weights && self.discovery == Discovery::Dns => {
                let reason = "only SRV records have weights; remove it, or set `discovery=srv` and `port_name`";
                Err(ConfigError::conflicting("srv_weights", reason))
            }
            Some(host) if !self.nameservers.is_empty() && self.hosts.iter().all(|host| fixed(&host)) => {
                conflict("nameservers", host)
            }
            _ => Ok(()),
        }
    }

    /// Rejects `password` together with `password_file`, because neither takes precedence.
    pub(super) fn check_password_sources(&self) -> Result<(), ConfigError> {
        if self.password.is_some() && self.password_file.is_some() {
            return Err(ConfigError::conflicting("password_file", "`password` is set too; remove one of them"));
        }
        Ok(())
    }

    /// Rejects a `require_auth` with which no login can succeed.
    fn check_auth(&self) -> Result<(), ConfigError> {
        let Some(list) = self.require_auth else { return Ok(()) };
        list.validate()?;
        if self.ssl.channel_binding() == ChannelBinding::Require && !list.allows(AuthMethod::ScramSha256) {
            let expected = "a list that allows `scram-sha-256`, because `channel_binding=require` is set";
            return Err(ConfigError::new("require_auth", expected).got(list.to_string()));
        }
        Ok(())
    }
}
