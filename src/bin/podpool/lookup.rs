//! Looks up the hosts of a configuration.

use std::collections::BTreeSet;

use podpool::{
    Config, Endpoint,
    config::HostEntry,
    discovery::{Dns, Resolution, Resolve as _, ResolveError, ResolveErrorKind, ServerError},
};
use tokio::time::Instant;

use crate::{
    facts::{Answer, HostFacts, LookupFailure},
    service,
};

/// One host with the Pods behind it.
pub(crate) struct Found {
    pub(crate) facts: HostFacts,
    pub(crate) entry: HostEntry,
    /// The Pods. `None` if the host is a single server that needs no lookup.
    pub(crate) endpoints: Option<Vec<Endpoint>>,
}

/// Looks up one host.
pub(crate) async fn look_up(config: &Config, entry: &HostEntry) -> Found {
    let host = entry.host().to_string();
    let found = |lookup, endpoints| Found { facts: HostFacts { host, lookup }, entry: entry.clone(), endpoints };
    let Some(options) = service::dns_options(config, entry) else { return found(None, None) };
    let dns = match Dns::new(options) {
        Ok(dns) => dns,
        Err(error) => {
            let failure = LookupFailure { kind: ResolveErrorKind::Other, text: error.to_string() };
            return found(Some(Err(failure)), Some(Vec::new()));
        }
    };
    match dns.resolve().await {
        Ok(resolution) => {
            let answer = answer(&dns, &resolution);
            found(Some(Ok(answer)), Some(resolution.endpoints))
        }
        Err(error) => {
            let failure = LookupFailure { kind: error.kind(), text: text(&error) };
            found(Some(Err(failure)), Some(Vec::new()))
        }
    }
}

/// Returns the text of an error with each name server once. The error's own text has a part for each query.
pub(crate) fn text(error: &ResolveError) -> String {
    let servers = error.servers();
    if servers.is_empty() {
        return error.to_string();
    }
    let names: BTreeSet<_> = servers.iter().map(ServerError::name).collect();
    let addresses: BTreeSet<_> = servers.iter().map(|server| server.address().to_string()).collect();
    let causes: BTreeSet<_> = servers.iter().filter_map(|server| Some(server.cause()?.to_string())).collect();
    let join = |texts: Vec<&str>| texts.join(", ");
    let mut text = format!("{}: {}", join(names.into_iter().collect()), error.kind());
    if !causes.is_empty() {
        text.push_str(&format!(": {}", join(causes.iter().map(String::as_str).collect())));
    }
    text.push_str(&format!(" (name server {})", join(addresses.iter().map(String::as_str).collect())));
    text
}

fn answer(dns: &Dns, resolution: &Resolution) -> Answer {
    let name = resolution.name.as_deref().unwrap_or_default().to_owned();
    // The SRV record of a Service that is not headless contains the name of the Service itself (Kubernetes DNS
    // specification, 2.3.2).
    let is_service = |pod: &&Endpoint| pod.host() == Some(&*service_of(&name));
    let of_srv = resolution.endpoints.iter().find(is_service).and_then(|pod| pod.address().ip());
    Answer {
        server: resolution.server,
        pods: resolution.endpoints.len(),
        ttl: resolution.valid_until.saturating_duration_since(Instant::now()),
        cluster_ip: dns.stats().cluster_ip.or(of_srv),
        name,
    }
}

/// Returns the name of the Service in the name of an SRV record, without the final dot.
fn service_of(name: &str) -> String {
    let labels: Vec<_> = name.trim_end_matches('.').split('.').skip_while(|label| label.starts_with('_')).collect();
    labels.join(".").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_follows_the_port_and_the_protocol() {
        assert_eq!(service_of("_pg._tcp.db.Ns.svc.cluster.local."), "db.ns.svc.cluster.local");
        assert_eq!(service_of("db.ns.svc."), "db.ns.svc");
    }
}
