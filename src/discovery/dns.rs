use std::{fmt, future::Future, pin::Pin, sync::Arc};

use hickory_resolver::proto::rr::Name;

use super::{
    Resolution, Resolve,
    error::{ResolveError, ResolveErrorKind},
    hosts_file::HostsFile,
    local_names::is_localhost,
    options::DnsOptions,
    rate_limit::RateLimit,
    refresh::LookupState,
    single_flight::SingleFlight,
    stats::DnsStats,
};
use crate::{
    error::ConfigError,
    sync::{Mutex, lock},
};

/// The expected value of the `port_name` parameter, for error texts.
const PORT_NAME: &str = "the name of the Service's port";

/// A DNS resolver for one Service's Pods. Queries A and AAAA records, or SRV records if
/// [`srv_port_name`](DnsOptions::srv_port_name) is set.
///
/// - A name in the hosts file, and `localhost`, need no DNS. All addresses of such a name are addresses of one server,
///   so they belong to one [`Endpoint`](crate::Endpoint). SRV records are always queried in DNS.
/// - The first lookup appends the domains of the search list to the name, one after another, until a name resolves. A
///   domain with a wildcard record is skipped. Later lookups query only the absolute name that resolved, with one
///   packet per address family.
/// - Name servers are queried in order. If a name server fails, the next one is queried immediately. If a name server
///   does not respond within [`hedge`](DnsOptions::hedge), the next one is queried as well.
/// - A and AAAA records are queried and evaluated separately. An address family whose query fails keeps the addresses
///   of its last successful query. An address family without addresses is queried only in every tenth lookup.
/// - A truncated response is never used. The query is repeated over TCP, and fails if the query over TCP fails.
/// - Addresses that no Pod can have, such as 0.0.0.0, are dropped.
/// - resolv.conf and the hosts file are re-read when they change.
/// - While lookups fail, at most four packets per second are sent.
///
/// Concurrent calls of [`resolve`](Resolve::resolve) share one lookup. A lookup ends within
/// [`timeout`](DnsOptions::timeout), with two exceptions. After a failed lookup, the next lookup may wait up to one
/// second for the packet limit before it starts. A lookup that also checks whether the only address is a ClusterIP
/// takes up to half a second longer. If the first lookup reaches its timeout within the search list, the next one
/// continues with the name that was not answered in time.
pub struct Dns {
    options: Arc<DnsOptions>,
    name: Name,
    prefix: Option<Name>,
    rate_limit: Arc<Mutex<RateLimit>>,
    stats: Arc<Mutex<DnsStats>>,
    single_flight: SingleFlight<Option<Result<Resolution, ResolveError>>>,
    state: StateSlot,
}

impl Dns {
    /// Creates a resolver. Does not access the network or any file.
    ///
    /// # Errors
    ///
    /// Fails if [`srv_port_name`](DnsOptions::srv_port_name) is not a single DNS label.
    pub fn new(options: DnsOptions) -> Result<Self, ConfigError> {
        let hosts_file = Arc::new(HostsFile::new(options.hosts.clone(), [&options.name]));
        Self::with_hosts_file(options, hosts_file)
    }

    /// Creates a resolver that shares the hosts file with others. The file must have been created with this name.
    pub(crate) fn with_hosts_file(options: DnsOptions, hosts_file: Arc<HostsFile>) -> Result<Self, ConfigError> {
        let name = parse("host", &options.name.to_string(), "the name of a headless Service")?;
        let prefix = match &options.srv_port_name {
            None => None,
            Some(port) if port.is_empty() || port.contains('.') => return Err(invalid("port_name", PORT_NAME, port)),
            Some(port) => Some(parse("port_name", &format!("_{port}._tcp"), PORT_NAME)?),
        };
        let (options, rate_limit, stats) = (Arc::new(options), Arc::default(), Arc::default());
        let state = LookupState::new(
            Arc::clone(&options),
            name.clone(),
            prefix.clone(),
            hosts_file,
            Arc::clone(&rate_limit),
            Arc::clone(&stats),
        );
        let state = Arc::new(Mutex::new(Some(state)));
        Ok(Self { options, name, prefix, rate_limit, stats, single_flight: SingleFlight::new(), state })
    }

    /// Returns statistics of the lookups and queries since this resolver was created.
    #[must_use]
    pub fn stats(&self) -> DnsStats {
        let mut stats = lock(&self.stats).clone();
        stats.packets = lock(&self.rate_limit).total();
        stats
    }

    /// Returns the send times of all packets since the last call.
    #[cfg(test)]
    pub(super) fn take_sent(&self) -> Vec<crate::time::Instant> {
        std::mem::take(&mut lock(&self.rate_limit).log)
    }
}

fn parse(parameter: &'static str, text: &str, expected: &'static str) -> Result<Name, ConfigError> {
    Name::from_ascii(text).map_err(|_| invalid(parameter, expected, text))
}

fn invalid(parameter: &'static str, expected: &'static str, text: &str) -> ConfigError {
    ConfigError::new(parameter, expected).got(text)
}

impl Resolve for Dns {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async move {
            let slot = self.state.clone();
            let lookup = move || async move {
                let state = lock(&slot).take();
                let mut guard = StateGuard { state, slot };
                match &mut guard.state {
                    Some(state) => Some(state.refresh().await),
                    None => None,
                }
            };
            self.single_flight.join(lookup).await.flatten().unwrap_or_else(|| {
                let name = Some(self.name.to_ascii().into());
                let message = "lookup aborted: its task panicked or the runtime is shutting down";
                Err(ResolveError::with_message(ResolveErrorKind::Other, name, message, None))
            })
        })
    }

    fn source(&self) -> String {
        if self.prefix.is_none() && is_localhost(&self.options.name) {
            return format!("the local addresses of {}", self.options.name);
        }
        let (kind, name) = match &self.prefix {
            Some(prefix) => ("SRV", format!("{prefix}.{}", self.options.name)),
            None => ("A and AAAA", self.options.name.to_string()),
        };
        let servers: Vec<_> = self.options.nameservers.iter().map(ToString::to_string).collect();
        if servers.is_empty() {
            format!("{kind} records of {name} from the name servers in {}", self.options.resolv_conf.display())
        } else {
            format!("{kind} records of {name} from {}", servers.join(", "))
        }
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A slot that holds the resolver's state between lookups. The slot is empty while a lookup runs, because the lookup
/// takes the state.
type StateSlot = Arc<Mutex<Option<LookupState>>>;

/// A guard that puts the resolver's state back into its slot when a lookup ends or is cancelled.
///
/// Lookups never overlap, so the slot is full when a lookup starts. No lock is held while the lookup runs.
struct StateGuard {
    state: Option<LookupState>,
    slot: StateSlot,
}

impl Drop for StateGuard {
    fn drop(&mut self) {
        *lock(&self.slot) = self.state.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_for_an_invalid_port_name_names_the_parameter() {
        let long = "a".repeat(63);
        for port in ["", "two.labels", "with space", long.as_str()] {
            let mut options = DnsOptions::new("svc".parse().expect("the name is a valid Service name"), 5432);
            options.srv_port_name = Some(port.to_owned());
            let error = Dns::new(options).expect_err("the port name is invalid");
            assert_eq!(error.parameter(), "port_name", "`{port}`: {error}");
        }
    }
}
