//! Performs a lookup from start to end, and keeps the state between lookups.

use std::{net::SocketAddr, sync::Arc};

use hickory_resolver::proto::rr::{Name, RecordType};
use rand::RngExt as _;

use super::{
    Resolution,
    cluster_ip::SoleAddress,
    error::{ResolveError, ResolveErrorKind, ServerError},
    family::Families,
    hosts_file::HostsFile,
    local_names::LocalNames,
    nameservers::NameServers,
    options::DnsOptions,
    query::{Found, QueryContext},
    rate_limit::RateLimit,
    resolv_conf::{self, ResolvConf},
    search::{Candidate, candidates},
    srv::Targets,
    stats::DnsStats,
    watched_file::WatchedFile,
};
use crate::{
    endpoint::Endpoint,
    error::BoxError,
    sync::{Mutex, lock},
    system::random,
    time::{Duration, Instant},
};

/// Nominal validity of a name's local addresses. The pool limits this validity to its maximum refresh interval.
const LOCAL: Duration = Duration::from_secs(86_400);
/// Timeout of the PTR query that detects a ClusterIP. The lookup that sends this query waits for its response, but not
/// longer than until its own deadline.
const CLUSTER_IP_TIMEOUT: Duration = Duration::from_millis(500);

/// The last good records of one absolute name.
#[derive(Clone, Debug)]
enum Records {
    Addresses(Families),
    Services(Targets),
}

/// The state that is kept from one lookup to the next.
pub(super) struct LookupState {
    options: Arc<DnsOptions>,
    name: Name,
    /// `_port._tcp` if SRV records are queried.
    prefix: Option<Name>,
    rate_limit: Arc<Mutex<RateLimit>>,
    stats: Arc<Mutex<DnsStats>>,
    /// The addresses of the name that need no DNS. `None` if SRV records are queried.
    local: Option<LocalNames>,
    file: WatchedFile<ResolvConf>,
    conf: Arc<ResolvConf>,
    servers: Option<Arc<NameServers>>,
    candidates: Vec<Candidate>,
    /// The index of the candidate with which the next lookup begins. Not 0 if the last lookup reached its timeout after
    /// negative responses for all candidates before this one.
    first_candidate: usize,
    /// The first candidate name for which a lookup found records, and those records. Later lookups query only this
    /// name, even after a negative response or an error.
    selected: Option<(Name, Records)>,
    /// True if the last lookup failed.
    failing: bool,
    warned_of_size: bool,
    sole_address: SoleAddress,
}

impl LookupState {
    pub(super) fn new(
        options: Arc<DnsOptions>,
        name: Name,
        prefix: Option<Name>,
        hosts_file: Arc<HostsFile>,
        rate_limit: Arc<Mutex<RateLimit>>,
        stats: Arc<Mutex<DnsStats>>,
    ) -> Self {
        let needs_servers = options.nameservers.is_empty();
        let file = WatchedFile::new(options.resolv_conf.clone(), resolv_conf::MAX_BYTES, move |bytes: &[u8]| {
            if needs_servers { ResolvConf::parse_with_servers(bytes) } else { Ok(ResolvConf::parse(bytes)) }
        });
        let local = prefix.is_none().then(|| LocalNames::new(options.name.clone(), hosts_file));
        Self {
            options,
            name,
            prefix,
            rate_limit,
            stats,
            local,
            file,
            conf: Arc::default(),
            servers: None,
            candidates: Vec::new(),
            first_candidate: 0,
            selected: None,
            failing: false,
            warned_of_size: false,
            sole_address: SoleAddress::default(),
        }
    }

    /// Performs one lookup.
    pub(super) async fn refresh(&mut self) -> Result<Resolution, ResolveError> {
        let free_at = if self.failing { lock(&self.rate_limit).free_at(Instant::now()) } else { None };
        if let Some(free_at) = free_at {
            // Wait for the rate limit before the lookup's timeout starts, because the wait could use up a short
            // timeout.
            tokio::time::sleep_until(free_at).await;
        }
        let result = self.look_up().await;
        self.failing = result.is_err();
        lock(&self.stats).lookup(Instant::now(), &result);
        result
    }

    async fn look_up(&mut self) -> Result<Resolution, ResolveError> {
        if let Some(resolution) = self.look_up_locally().await {
            return Ok(resolution);
        }
        let servers = self.prepare().await?;
        let cx = self.context(&servers);
        let (name, mut found) = match &mut self.selected {
            // Borrow the records instead of taking them, because taken records would be lost if this future is dropped
            // during the query.
            Some((name, records)) => {
                let found = records.query(name, &cx).await;
                let found = found.map_err(|errors| ResolveError::from_servers(name.to_ascii().into(), errors))?;
                (name.clone(), found)
            }
            None => self.try_candidates(&cx).await?,
        };
        self.warn_of_size(&name, found.left_out);
        self.warn_of_cluster_ip(&name, &found, &cx).await;
        // Sorting is cheap, because only IPv4-mapped addresses from AAAA records can be out of order.
        found.endpoints.sort_unstable();
        found.endpoints.dedup();
        let mut resolution = Resolution::new(found.endpoints, Instant::now() + found.ttl);
        resolution.server = found.server;
        resolution.name = Some(name.to_ascii().into());
        resolution.partial = found.partial;
        Ok(resolution)
    }

    /// Returns the server whose addresses are in the hosts file or reserved for the local host. All of them belong to
    /// one endpoint.
    async fn look_up_locally(&self) -> Option<Resolution> {
        let port = self.options.port;
        let mut addresses = self.local.as_ref()?.addresses().await.into_iter().map(|ip| SocketAddr::new(ip, port));
        let endpoint = Endpoint::new(addresses.next()?).with_alternatives(addresses);
        let mut resolution = Resolution::new(vec![endpoint], Instant::now() + LOCAL);
        resolution.name = Some(self.name.to_ascii().into());
        Some(resolution)
    }

    /// Queries the candidate names in order and selects the first one with records. After a negative response, the next
    /// candidate is queried. Any other error ends the search, because a later candidate must not be used if an earlier
    /// one may exist. All queries together have one deadline.
    async fn try_candidates(&mut self, cx: &QueryContext) -> Result<(Name, Found), ResolveError> {
        let mut all_errors = Vec::new();
        let first = std::mem::take(&mut self.first_candidate);
        for (index, candidate) in self.candidates.iter().enumerate().skip(first) {
            let mut records = match self.prefix {
                Some(_) => Records::Services(Targets::new(self.options.srv_weights)),
                None => Records::Addresses(Families::new()),
            };
            let final_errors = match records.query(&candidate.name, cx).await {
                Ok(found) => match self.is_wildcard(candidate, &found, cx).await {
                    Ok(false) => {
                        self.selected = Some((candidate.name.clone(), records));
                        return Ok((candidate.name.clone(), found));
                    }
                    Ok(true) => continue,
                    Err(errors) => errors,
                },
                Err(errors) if !errors.is_empty() && errors.iter().all(|error| error.kind().is_negative()) => {
                    all_errors.extend(errors);
                    continue;
                }
                Err(errors) => errors,
            };
            if final_errors.iter().any(|error| error.kind() == ResolveErrorKind::Timeout) && index > first {
                self.first_candidate = index;
            }
            all_errors.extend(final_errors);
            break;
        }
        Err(ResolveError::from_servers(self.queried_name(), all_errors))
    }

    /// Returns true if the candidate's search domain has a wildcard record. Such a domain resolves every name, so its
    /// records do not prove that the Service exists. Only domains outside the cluster are checked, by querying a random
    /// name.
    async fn is_wildcard(
        &self,
        candidate: &Candidate,
        found: &Found,
        cx: &QueryContext,
    ) -> Result<bool, Vec<ServerError>> {
        let Some(domain) = &candidate.external_domain else { return Ok(false) };
        let random = format!("podpool-{:016x}", random::rng().random::<u64>());
        let Ok(random) = domain.prepend_label(random) else { return Ok(false) };
        let (name, kind) = match &self.prefix {
            Some(prefix) => (prefix.clone().append_domain(&random).unwrap_or(random), RecordType::SRV),
            None if found.endpoints.iter().any(|pod| pod.address().ip().is_some_and(|ip| ip.is_ipv4())) => {
                (random, RecordType::A)
            }
            None => (random, RecordType::AAAA),
        };
        match cx.servers.query(&name, kind, cx.throttled, cx.deadline).await {
            Ok(_) => {
                tracing::warn!(
                    name = %candidate.name,
                    domain = %domain,
                    "ignoring the response for this name: its search domain resolves every name (wildcard record); if \
                     this name is the Service, configure it with a final dot"
                );
                Ok(true)
            }
            Err(errors) if errors.iter().all(|error| error.kind().is_negative()) => Ok(false),
            Err(errors) => Err(errors),
        }
    }

    /// Reads resolv.conf if the file has changed, updates the name servers and the candidates, and returns the name
    /// servers.
    async fn prepare(&mut self) -> Result<Arc<NameServers>, ResolveError> {
        let configured = !self.options.nameservers.is_empty();
        let absolute = self.name.is_fqdn();
        if !(configured && absolute) {
            match self.file.current().await {
                Ok(conf) => self.conf = conf,
                // The name servers are in the options, so only the search list is missing.
                Err(error) if configured => {
                    tracing::debug!(%error, "cannot read resolv.conf; querying the name without a search list");
                }
                Err(error) => {
                    let path = self.options.resolv_conf.display();
                    let message = format!(
                        "cannot read the addresses of the name servers from {path}; without this file, set \
                         `nameservers`, for example `nameservers=10.96.0.10`"
                    );
                    return Err(self.no_name_server(message, error));
                }
            }
        }
        let wanted = if configured {
            self.options.nameservers.clone()
        } else {
            let port = self.options.nameserver_port;
            self.conf.servers.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
        };
        let servers = match self.servers.take() {
            Some(servers) if servers.addresses().eq(wanted.iter().copied()) => servers,
            _ => match NameServers::new(&wanted, &self.options, &self.rate_limit, &self.stats) {
                Ok(servers) => Arc::new(servers),
                Err(error) => return Err(self.no_name_server("cannot create the DNS clients".into(), error)),
            },
        };
        self.servers = Some(servers.clone());
        let candidates = candidates(&self.name, absolute, self.prefix.as_ref(), &self.conf);
        if candidates != self.candidates {
            let remains = |name: &Name| candidates.iter().any(|candidate| candidate.name == *name);
            self.selected = self.selected.take().filter(|(name, _)| remains(name));
            self.candidates = candidates;
            self.first_candidate = 0;
        }
        Ok(servers)
    }

    fn no_name_server(&self, message: String, error: impl Into<BoxError>) -> ResolveError {
        let name = Some(self.queried_name());
        ResolveError::with_message(ResolveErrorKind::NoNameServer, name, message, Some(error.into()))
    }

    /// Returns the name that is looked up, without a domain of the search list, for errors.
    fn queried_name(&self) -> Arc<str> {
        match &self.prefix {
            Some(prefix) => format!("{prefix}.{}", self.name).into(),
            None => self.name.to_ascii().into(),
        }
    }

    /// Returns the parameters for queries that start now.
    fn context(&self, servers: &Arc<NameServers>) -> QueryContext {
        QueryContext {
            servers: servers.clone(),
            throttled: self.failing,
            deadline: Instant::now() + self.options.timeout,
            port: self.options.port,
        }
    }

    /// Logs a warning if the only address of the name is the Service's ClusterIP. The PTR record for a Pod's address
    /// contains the Pod's name. The PTR record for a ClusterIP contains the Service's name (Kubernetes DNS
    /// specification, 2.3.3 and 2.4.3).
    async fn warn_of_cluster_ip(&mut self, name: &Name, found: &Found, cx: &QueryContext) {
        let after = self.options.cluster_ip_after;
        let sole = if self.prefix.is_none() { self.sole_address.observe(&found.endpoints, after) } else { None };
        let (Some(ip), Some(server)) = (sole, found.server) else { return };
        let within = CLUSTER_IP_TIMEOUT.min(cx.deadline.saturating_duration_since(Instant::now()));
        let answer = cx.servers.query_one(server, &Name::from(ip), RecordType::PTR, within).await;
        if answer.is_some_and(|answer| answer.pointers.contains(name)) {
            tracing::warn!(
                %name,
                %ip,
                "the only address of the name is the Service's ClusterIP, so kube-proxy chooses the Pod for each \
                 connection and the pool cannot distinguish the Pods; make the Service headless (`clusterIP: None`) \
                 or connect to a headless Service with the same selector"
            );
            lock(&self.stats).cluster_ip = Some(ip);
        }
    }

    fn warn_of_size(&mut self, name: &Name, left_out: usize) {
        if left_out > 0 && !self.warned_of_size {
            tracing::warn!(%name, left_out, "too many records in the DNS response; ignoring the excess");
        }
        self.warned_of_size = left_out > 0;
    }
}

impl Records {
    async fn query(&mut self, name: &Name, cx: &QueryContext) -> Result<Found, Vec<ServerError>> {
        match self {
            Self::Addresses(families) => families.query(name, cx).await,
            Self::Services(targets) => targets.query(name, cx).await,
        }
    }
}
