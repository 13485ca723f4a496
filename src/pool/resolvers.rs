//! Creates the resolvers that the configuration selects: one for each host.

use std::sync::Arc;

use crate::{
    config::{Config, Discovery, Host, HostEntry, ssl::VerifiedName},
    discovery::{Dns, DnsOptions, Fixed, HostsFile, Resolve},
    endpoint::Endpoint,
    error::ConfigError,
    system::platform,
};

/// Returns the resolver of each configured host.
pub(super) fn resolvers(config: &Config) -> Result<Arc<[Arc<dyn Resolve>]>, ConfigError> {
    let names = config.hosts().iter().filter_map(|entry| match entry.host() {
        Host::Service(name) => Some(name),
        _ => None,
    });
    let hosts_file = Arc::new(HostsFile::new(platform::hosts_file(), names));
    config.hosts().iter().map(|entry| resolver(config, entry, &hosts_file)).collect()
}

fn resolver(config: &Config, entry: &HostEntry, hosts_file: &Arc<HostsFile>) -> Result<Arc<dyn Resolve>, ConfigError> {
    let name = match (entry.host(), entry.fixed()) {
        (Host::Service(name), None) => name,
        (_, address) => return Ok(Arc::new(Fixed::new(address.map(Endpoint::at)))),
    };
    let mut options = DnsOptions::new(name.clone(), entry.port());
    options.nameservers = config.nameservers().to_vec();
    options.timeout = config.limits().dns_timeout;
    options.hedge = config.limits().dns_hedge;
    options.srv_weights = config.srv_weights();
    match config.discovery() {
        Discovery::Srv { port_name } => options.srv_port_name = Some(port_name.clone()),
        Discovery::Dns if *config.ssl().verified_name() == VerifiedName::Pod => {
            let expected = "`service` or a name, because only `discovery=srv` provides the names of the Pods";
            return Err(ConfigError::new("ssl_verify_name", expected).got("pod"));
        }
        Discovery::Dns => {}
    }
    Ok(Arc::new(Dns::with_hosts_file(options, hosts_file.clone())?))
}
