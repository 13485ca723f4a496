//! Creates the resolvers that the configuration selects: one for each host.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    config::{Config, Discovery, Host, HostEntry, ssl::VerifiedName},
    discovery::{Dns, DnsOptions, Fixed, Resolution, Resolve, ResolveError},
    endpoint::Endpoint,
    error::ConfigError,
};

/// Returns the resolver of each configured host.
pub(super) fn resolvers(config: &Config) -> Result<Arc<[Arc<dyn Resolve>]>, ConfigError> {
    let hosts = config.hosts();
    let numbered = hosts.iter().zip(0..).map(|(entry, index)| {
        let resolver = resolver(config, entry)?;
        let resolver: Arc<dyn Resolve> = if hosts.len() == 1 { resolver } else { Arc::new(OfHost { resolver, index }) };
        Ok(resolver)
    });
    numbered.collect()
}

fn resolver(config: &Config, entry: &HostEntry) -> Result<Arc<dyn Resolve>, ConfigError> {
    let name = match (entry.host(), entry.fixed()) {
        (Host::Service(name), None) => name,
        (_, address) => return Ok(Arc::new(Fixed::new(address.map(Endpoint::at)))),
    };
    let mut options = DnsOptions::new(name.clone(), entry.port());
    options.nameservers = config.nameservers().to_vec();
    options.timeout = config.limits().dns_timeout;
    options.hedge = config.limits().dns_hedge;
    match config.discovery() {
        Discovery::Srv { port_name } => options.srv_port_name = Some(port_name.clone()),
        Discovery::Dns if *config.ssl().verified_name() == VerifiedName::Pod => {
            let expected = "`service` or a name, because only `discovery=srv` provides the names of the Pods";
            return Err(ConfigError::new("ssl_verify_name", expected).got("pod"));
        }
        Discovery::Dns => {}
    }
    Ok(Arc::new(Dns::new(options)?))
}

/// The resolver of one of several hosts. Marks the endpoints with the host, whose name is used for TLS and for the
/// password file.
#[derive(Debug)]
struct OfHost {
    resolver: Arc<dyn Resolve>,
    index: u16,
}

impl Resolve for OfHost {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async {
            let mut resolution = self.resolver.resolve().await?;
            for endpoint in &mut resolution.endpoints {
                *endpoint = endpoint.with_host_entry(self.index);
            }
            Ok(resolution)
        })
    }

    fn source(&self) -> String {
        self.resolver.source()
    }
}
