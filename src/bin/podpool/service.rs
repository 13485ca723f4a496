//! The Service that a configuration names: its hosts, their resolvers, and a text without secrets.

use podpool::{
    Config,
    config::{Discovery, Host, HostEntry},
    discovery::DnsOptions,
};

/// Returns the configuration as a URL without the password and without parameters.
pub(crate) fn url(config: &Config) -> String {
    let hosts: Vec<_> = config.hosts().iter().map(|entry| format!("{}:{}", entry.host(), entry.port())).collect();
    format!("postgres://{}@{}/{}", config.user(), hosts.join(","), config.dbname())
}

/// Returns the source of the password.
pub(crate) fn password_source(config: &Config) -> String {
    match (config.password(), config.password_file(), config.passfile()) {
        (Some(_), _, _) => "the URL or PGPASSWORD".to_owned(),
        (None, Some(file), _) => format!("password_file={}", file.display()),
        (None, None, Some(file)) => format!("the password file {}", file.display()),
        (None, None, None) => "nowhere: no password is set".to_owned(),
    }
}

/// Returns the options with which a pool looks up the host. `None` if the host needs no lookup.
pub(crate) fn dns_options(config: &Config, entry: &HostEntry) -> Option<DnsOptions> {
    let (Host::Service(name), None) = (entry.host(), entry.address()) else { return None };
    let mut options = DnsOptions::new(name.clone(), entry.port());
    options.nameservers = config.nameservers().to_vec();
    options.timeout = config.limits().dns_timeout;
    options.hedge = config.limits().dns_hedge;
    options.cluster_ip_after = 1;
    if let Discovery::Srv { port_name } = config.discovery() {
        options.srv_port_name = Some(port_name.clone());
    }
    Some(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_has_no_password() {
        let config: Config = "postgres://app:s3cret@a,b:5433/shop?sslmode=require".parse().unwrap();
        assert_eq!(url(&config), "postgres://app@a:5432,b:5433/shop");
        assert_eq!(password_source(&config), "the URL or PGPASSWORD");
    }

    #[test]
    fn only_names_are_looked_up() {
        let config: Config = "host=svc,10.0.0.1,c hostaddr=,,10.0.0.2 user=app".parse().unwrap();
        let looked_up: Vec<_> = config.hosts().iter().map(|entry| dns_options(&config, entry).is_some()).collect();
        assert_eq!(looked_up, [true, false, false]);
    }
}
