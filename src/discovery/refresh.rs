//! One lookup from beginning to end, and what is remembered from one to the next.

use std::{net::SocketAddr, sync::Arc};

use hickory_resolver::proto::rr::{Name, RecordType};
use rand::RngExt as _;

use super::{
    Resolution,
    cluster_ip::SoleAddress,
    error::{ResolveError, ResolveErrorKind, ServerError},
    family::Families,
    nameservers::NameServers,
    options::DnsOptions,
    query::{Found, QueryContext},
    rate_limit::RateLimit,
    resolv_conf::{ResolvConf, WatchedFile},
    search::{Candidate, candidates},
    srv::Targets,
    stats::DnsStats,
};
use crate::{
    error::BoxError,
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// How long a question beside the lookup may hold it up.
const ASIDE_TIMEOUT: Duration = Duration::from_millis(500);

/// What is remembered of the name that answered.
#[derive(Clone, Debug)]
enum Memory {
    Addresses(Families),
    Services(Targets),
}

/// What is remembered from one lookup to the next.
pub(super) struct LookupState {
    options: Arc<DnsOptions>,
    name: Name,
    /// `_port._tcp` where SRV records are asked for.
    prefix: Option<Name>,
    rate_limit: Arc<Mutex<RateLimit>>,
    stats: Arc<Mutex<DnsStats>>,
    file: WatchedFile,
    conf: Arc<ResolvConf>,
    servers: Option<Arc<NameServers>>,
    candidates: Vec<Candidate>,
    /// The absolute name that answered first. It is asked alone from then on, whatever it answers.
    winner: Option<(Name, Memory)>,
    failing: bool,
    warned_of_size: bool,
    sole_address: SoleAddress,
}

impl LookupState {
    pub(super) fn new(
        options: Arc<DnsOptions>,
        name: Name,
        prefix: Option<Name>,
        rate_limit: Arc<Mutex<RateLimit>>,
        stats: Arc<Mutex<DnsStats>>,
    ) -> Self {
        let file = WatchedFile::new(options.resolv_conf.clone(), options.nameservers.is_empty());
        Self {
            options,
            name,
            prefix,
            rate_limit,
            stats,
            file,
            conf: Arc::default(),
            servers: None,
            candidates: Vec::new(),
            winner: None,
            failing: false,
            warned_of_size: false,
            sole_address: SoleAddress::default(),
        }
    }

    /// Looks up once.
    pub(super) async fn refresh(&mut self) -> Result<Resolution, ResolveError> {
        let full = if self.failing { lock(&self.rate_limit).room(Instant::now()) } else { None };
        if let Some(room) = full {
            // Before the lookup's own time begins, so that a short one is not spent waiting.
            tokio::time::sleep_until(room).await;
        }
        let result = self.look_up().await;
        self.failing = result.is_err();
        lock(&self.stats).lookup(Instant::now(), &result);
        result
    }

    async fn look_up(&mut self) -> Result<Resolution, ResolveError> {
        let servers = self.prepare().await?;
        let cx = self.ask(&servers);
        let (name, mut found) = match &mut self.winner {
            // In its place all the while: the future may be dropped.
            Some((name, memory)) => {
                let found = memory.ask(name, &cx).await;
                let found = found.map_err(|errors| ResolveError::of_servers(name.to_ascii().into(), errors))?;
                (name.clone(), found)
            }
            None => self.walk(&servers).await?,
        };
        self.warn_of_size(&name, found.left_out);
        self.warn_of_cluster_ip(&name, &found, &servers).await;
        // One pass over what is sorted already, but for an IPv4 address that came as an IPv6 one.
        found.endpoints.sort_unstable();
        found.endpoints.dedup();
        let mut resolution = Resolution::new(found.endpoints, Instant::now() + found.ttl);
        resolution.server = found.server;
        resolution.name = Some(name.to_ascii().into());
        resolution.partial = found.partial;
        Ok(resolution)
    }

    /// Asks the candidates in order. Only a negative answer moves on to the next: after anything else a later name
    /// could answer for an earlier one.
    async fn walk(&mut self, servers: &Arc<NameServers>) -> Result<(Name, Found), ResolveError> {
        let mut denied = Vec::new();
        for candidate in &self.candidates {
            let mut memory = match self.prefix {
                Some(_) => Memory::Services(Targets::default()),
                None => Memory::Addresses(Families::new()),
            };
            let error = match memory.ask(&candidate.name, &self.ask(servers)).await {
                Ok(found) => match self.answers_to_every_name(candidate, &found, servers).await {
                    Ok(false) => {
                        self.winner = Some((candidate.name.clone(), memory));
                        return Ok((candidate.name.clone(), found));
                    }
                    Ok(true) => continue,
                    Err(errors) => errors,
                },
                Err(errors) if !errors.is_empty() && errors.iter().all(|error| error.kind().is_negative()) => {
                    denied.extend(errors);
                    continue;
                }
                Err(errors) => errors,
            };
            denied.extend(error);
            break;
        }
        Err(ResolveError::of_servers(self.name.to_ascii().into(), denied))
    }

    /// Whether the search domain that completed the name answers to any name at all (a wildcard record), so that its
    /// answer says nothing. Asked once, and only of domains outside the cluster.
    async fn answers_to_every_name(
        &self,
        candidate: &Candidate,
        found: &Found,
        servers: &Arc<NameServers>,
    ) -> Result<bool, Vec<ServerError>> {
        let Some(domain) = &candidate.foreign else { return Ok(false) };
        let nobody = format!("podpool-{:016x}", rand::rng().random::<u64>());
        let Ok(nobody) = domain.prepend_label(nobody) else { return Ok(false) };
        let (name, kind) = match &self.prefix {
            Some(prefix) => (prefix.clone().append_domain(&nobody).unwrap_or(nobody), RecordType::SRV),
            None if found.endpoints.iter().any(|pod| pod.address().is_ipv4()) => (nobody, RecordType::A),
            None => (nobody, RecordType::AAAA),
        };
        let cx = self.ask(servers);
        match servers.ask(&name, kind, cx.hold, cx.deadline).await {
            Ok(_) => {
                tracing::warn!(
                    name = %candidate.name,
                    domain = %domain,
                    "the search domain answers to every name, so its answer is not used; give the absolute name, with \
                     its last dot, if it is meant"
                );
                Ok(true)
            }
            Err(errors) if errors.iter().all(|error| error.kind().is_negative()) => Ok(false),
            Err(errors) => Err(errors),
        }
    }

    /// Reads resolv.conf again if it has changed, and takes over what is new in it.
    async fn prepare(&mut self) -> Result<Arc<NameServers>, ResolveError> {
        let given = !self.options.nameservers.is_empty();
        let absolute = self.options.absolute || self.name.is_fqdn();
        if !(given && absolute) {
            match self.file.current().await {
                Ok(conf) => self.conf = conf,
                // With name servers given, the search list is all that is missing: the name is taken as it is.
                Err(error) if given => tracing::debug!(%error, "no search list"),
                Err(error) => {
                    let path = self.options.resolv_conf.display();
                    let message = format!("no name server: {path} cannot be used");
                    return Err(self.no_name_server(message, error));
                }
            }
        }
        let wanted = if given {
            self.options.nameservers.clone()
        } else {
            let port = self.options.nameserver_port;
            self.conf.servers.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
        };
        let servers = match self.servers.take() {
            Some(servers) if servers.addresses().eq(wanted.iter().copied()) => servers,
            _ => match NameServers::new(&wanted, &self.options, &self.rate_limit, &self.stats) {
                Ok(servers) => Arc::new(servers),
                Err(error) => return Err(self.no_name_server("no name server can be asked".into(), error)),
            },
        };
        self.servers = Some(servers.clone());
        let candidates = candidates(&self.name, absolute, self.prefix.as_ref(), &self.conf);
        if candidates != self.candidates {
            let keeps = |name: &Name| candidates.iter().any(|candidate| candidate.name == *name);
            self.winner = self.winner.take().filter(|(name, _)| keeps(name));
            self.candidates = candidates;
        }
        Ok(servers)
    }

    fn no_name_server(&self, message: String, error: impl Into<BoxError>) -> ResolveError {
        let name = Some(self.name.to_ascii().into());
        ResolveError::told(ResolveErrorKind::NoNameServer, name, message, Some(error.into()))
    }

    fn ask(&self, servers: &Arc<NameServers>) -> QueryContext {
        QueryContext {
            servers: servers.clone(),
            hold: self.failing,
            deadline: Instant::now() + self.options.timeout,
            port: self.options.port,
        }
    }

    /// Asks whose address it is that alone never changes. A Pod's belongs to the Pod's name, a ClusterIP to the
    /// Service's own (Kubernetes DNS specification, 2.3.3 and 2.4.3).
    async fn warn_of_cluster_ip(&mut self, name: &Name, found: &Found, servers: &NameServers) {
        let sole = if self.prefix.is_none() { self.sole_address.observe(&found.endpoints) } else { None };
        let (Some(ip), Some(server)) = (sole, found.server) else { return };
        let answer = servers.ask_one(server, &Name::from(ip), RecordType::PTR, ASIDE_TIMEOUT).await;
        if answer.is_some_and(|answer| answer.pointers.contains(name)) {
            tracing::warn!(
                %name,
                %ip,
                "the name has one address, and it is the Service's own: all connections go where the cluster sends \
                 them, and Pods cannot be told apart. Give the Service `clusterIP: None` (a headless Service), or \
                 connect to another Service that has it and the same selector"
            );
            lock(&self.stats).cluster_ip = Some(ip);
        }
    }

    fn warn_of_size(&mut self, name: &Name, left_out: usize) {
        if left_out > 0 && !self.warned_of_size {
            tracing::warn!(%name, left_out, "the answer has too many addresses, the rest is not used");
        }
        self.warned_of_size = left_out > 0;
    }
}

impl Memory {
    async fn ask(&mut self, name: &Name, cx: &QueryContext) -> Result<Found, Vec<ServerError>> {
        match self {
            Self::Addresses(families) => families.ask(name, cx).await,
            Self::Services(targets) => targets.ask(name, cx).await,
        }
    }
}
