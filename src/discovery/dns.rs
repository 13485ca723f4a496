use std::{fmt, future::Future, net::IpAddr, pin::Pin, sync::Arc};

use hickory_resolver::proto::rr::Name;

use super::{
    Resolution, Resolve,
    error::{ResolveError, ResolveErrorKind},
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

/// The longest name in text, without its last dot (RFC 1035 section 3.1).
const MAX_NAME: usize = 253;
/// The longest label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// Pods by DNS: A and AAAA records, or SRV records where a port's name is given.
///
/// - The name is made absolute once, along the search list, and asked for absolutely from then on: one packet a family
///   and lookup. A search domain that answers to every name is passed over.
/// - Name servers are asked one after the other: the next one at once when one fails, and after
///   [`hedge`](DnsOptions::hedge) when one is silent.
/// - A and AAAA are asked and judged apart. A family that is not heard of keeps its last good half; a family without
///   addresses is asked at every tenth lookup.
/// - A truncated answer is fetched by TCP or is an error, never used. Addresses that no Pod can have are left out.
/// - resolv.conf is read again when it changes.
/// - While lookups fail, no more than four packets a second go out.
///
/// Calls of [`resolve`](Resolve::resolve) at the same time share one lookup, which ends within
/// [`timeout`](DnsOptions::timeout); each name of the search list has that long, the first time, and while lookups fail
/// one may wait a second before it begins.
pub struct Dns {
    options: Arc<DnsOptions>,
    name: Name,
    prefix: Option<Name>,
    rate_limit: Arc<Mutex<RateLimit>>,
    stats: Arc<Mutex<DnsStats>>,
    single_flight: SingleFlight<Option<Result<Resolution, ResolveError>>>,
    state: Home,
}

impl Dns {
    /// Prepares the lookup. Touches neither network nor file.
    ///
    /// # Errors
    ///
    /// If the name or the port's name is not one that DNS can have: an empty name or label, a label over 63 or a name
    /// over 253 characters, an address in place of a name.
    pub fn new(options: DnsOptions) -> Result<Self, ConfigError> {
        let name = parse("host", &options.name, "the name of a headless Service")?;
        let prefix = match &options.srv_port_name {
            None => None,
            Some(port) if port.contains('.') => return Err(bad("srv", "the name of the Service's port", port)),
            Some(port) => {
                parse("srv", port, "the name of the Service's port")?;
                Some(parse("srv", &format!("_{port}._tcp"), "the name of the Service's port")?)
            }
        };
        let (options, rate_limit, stats) = (Arc::new(options), Arc::default(), Arc::default());
        let state = LookupState::new(
            Arc::clone(&options),
            name.clone(),
            prefix.clone(),
            Arc::clone(&rate_limit),
            Arc::clone(&stats),
        );
        let state = Arc::new(Mutex::new(Some(state)));
        Ok(Self { options, name, prefix, rate_limit, stats, single_flight: SingleFlight::new(), state })
    }

    /// What was asked and answered since the beginning.
    #[must_use]
    pub fn stats(&self) -> DnsStats {
        let mut stats = lock(&self.stats).clone();
        stats.packets = lock(&self.rate_limit).total();
        stats
    }
}

fn parse(parameter: &'static str, text: &str, expected: &'static str) -> Result<Name, ConfigError> {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let fits = labels.len() <= MAX_NAME && labels.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len()));
    if !fits || text.parse::<IpAddr>().is_ok() {
        return Err(bad(parameter, expected, text));
    }
    Name::from_ascii(text).map_err(|_| bad(parameter, expected, text))
}

fn bad(parameter: &'static str, expected: &'static str, text: &str) -> ConfigError {
    ConfigError::new(parameter, expected).got(text)
}

impl Resolve for Dns {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async move {
            let home = self.state.clone();
            let lookup = move || async move {
                let state = lock(&home).take();
                let mut taken = Taken { state, home };
                match &mut taken.state {
                    Some(state) => Some(state.refresh().await),
                    None => None,
                }
            };
            self.single_flight.join(lookup).await.flatten().unwrap_or_else(|| {
                let name = Some(self.name.to_ascii().into());
                Err(ResolveError::told(ResolveErrorKind::Other, name, "the lookup was stopped", None))
            })
        })
    }

    fn source(&self) -> String {
        let (kind, name) = match &self.prefix {
            Some(prefix) => ("SRV", format!("{prefix}.{}", self.options.name)),
            None => ("A and AAAA", self.options.name.clone()),
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

/// Where the state is between two lookups.
type Home = Arc<Mutex<Option<LookupState>>>;

/// The state, taken out for one lookup and put back when it ends in whatever way. Lookups never run side by side, so
/// nobody misses it, and no lock is held meanwhile.
struct Taken {
    state: Option<LookupState>,
    home: Home,
}

impl Drop for Taken {
    fn drop(&mut self) {
        *lock(&self.home) = self.state.take();
    }
}
