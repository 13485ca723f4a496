use std::{
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    address::Address,
    error::{Attempt, BoxError, Phase},
};

/// The identity of a Pod: its address and, if discovery provides one, its name. SRV records contain the names of Pods;
/// A and AAAA records do not.
///
/// Equality compares name and addresses. A known name with a new address is another Pod, and so is a known address with
/// a new name. Cloning only increments a reference count.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    name: Option<Arc<str>>,
    host: Option<Arc<str>>,
    address: Address,
    /// Further addresses of the same server, in the order in which they are tried.
    alternatives: Box<[SocketAddr]>,
    details: Details,
}

/// The properties that are not part of the identity: a Pod keeps its connections when they change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Details {
    weight: u16,
    priority: u16,
    /// Bit set of the indexes of the configured hosts that name the Pod. Empty if nothing has set it, which stands for
    /// the first host.
    hosts: u128,
}

impl Endpoint {
    /// The maximum weight.
    pub const WEIGHT_MAX: u16 = 100;

    /// Creates an endpoint without a name.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self::at(address.into())
    }

    /// Creates an endpoint without a name, at any kind of address.
    pub(crate) fn at(address: Address) -> Self {
        Self(Arc::new(Inner {
            name: None,
            host: None,
            address,
            alternatives: Box::default(),
            details: Details { weight: 1, priority: 0, hosts: 0 },
        }))
    }

    /// Creates an endpoint with a name. If the Pod comes from an SRV record, the name is the first label of the
    /// record's target: `postgresql-sfs-0` of `postgresql-sfs-0.postgresql-svc.k8s-training.svc.cluster.local`.
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>, address: SocketAddr) -> Self {
        Self::new(address).with(|inner| inner.name = Some(name.into()))
    }

    /// Returns a copy of this endpoint with the Pod's DNS name, which is the target of its SRV record without the
    /// trailing dot. With `ssl_verify_name=pod`, the Pod's certificate must be valid for this name. Equality does not
    /// compare this name.
    #[must_use]
    pub fn with_host(&self, host: impl Into<Arc<str>>) -> Self {
        self.with(|inner| inner.host = Some(host.into()))
    }

    /// Returns a copy of this endpoint with further addresses of the same server. A dial tries the next address if the
    /// previous one fails or is slow. The further addresses are part of the identity; the first one is the label in
    /// logs, metrics and errors.
    #[must_use]
    pub fn with_alternatives(&self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.with(|inner| inner.alternatives = addresses.into_iter().collect())
    }

    /// Returns a copy of this endpoint with another weight, clamped to the range from 1 to
    /// [`WEIGHT_MAX`](Self::WEIGHT_MAX). The default is 1.
    ///
    /// A Pod of weight 2 gets twice as much traffic as a Pod of weight 1, as far as their load allows. The weight is
    /// not part of the identity: a Pod keeps its connections when its weight changes.
    ///
    /// Set weights in your own [`Resolve`](crate::discovery::Resolve) if the Pods' machines differ. Weights of SRV
    /// records are used only with `postgres+srv://` or `srv_weights=on`, because the Kubernetes DNS specification
    /// leaves them to the implementation.
    #[must_use]
    pub fn with_weight(&self, weight: u16) -> Self {
        self.with(|inner| inner.details.weight = weight.clamp(1, Self::WEIGHT_MAX))
    }

    /// Returns a copy of this endpoint with another priority, as in SRV records (RFC 2782): for each target, a Pod is
    /// used only while no healthy Pod with a lower number serves the target. The default is 0, the highest priority.
    ///
    /// Like the weight, the priority is not part of the identity.
    #[must_use]
    pub fn with_priority(&self, priority: u16) -> Self {
        self.with(|inner| inner.details.priority = priority)
    }

    /// Returns a copy of this endpoint that is named by the configured hosts with these indexes.
    pub(crate) fn with_hosts(&self, indexes: impl IntoIterator<Item = usize>) -> Self {
        let hosts = indexes.into_iter().fold(0, |hosts, index| hosts | 1u128 << (index % 128));
        self.with(|inner| inner.details.hosts = hosts)
    }

    fn with(&self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner::clone(&self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// Returns the Pod's weight.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.0.details.weight
    }

    /// Returns the Pod's priority. A lower number is used first.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.0.details.priority
    }

    /// Returns true if both endpoints have the same weight and priority, and are named by the same hosts.
    pub(crate) fn has_same_details(&self, other: &Self) -> bool {
        self.0.details == other.0.details
    }

    /// Returns a number that differs, with high probability, if the weight, the priority or the hosts differ.
    #[inline]
    pub(crate) fn details_number(&self) -> u64 {
        let Details { weight, priority, hosts } = self.0.details;
        let hosts = (hosts as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (hosts >> 64) as u64;
        (u64::from(weight) | u64::from(priority) << 16) ^ hosts << 16
    }

    /// Returns the Pod's address: an IP address and a port, or the path of a Unix socket.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Returns the Pod's name, if discovery provides one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Returns the Pod's DNS name, if discovery provides one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.0.host.as_deref()
    }

    /// Creates the [`Attempt`] that describes a failure on this Pod.
    pub(crate) fn attempt(&self, phase: Phase, cause: impl Into<BoxError>) -> Attempt {
        Attempt::new(self.shared_name(), self.address().clone(), phase, cause)
    }

    pub(crate) fn shared_name(&self) -> Option<Arc<str>> {
        self.0.name.clone()
    }

    /// Returns the index of the first configured host that names the Pod.
    pub(crate) fn host_index(&self) -> usize {
        self.host_indexes().next().unwrap_or(0)
    }

    /// Returns the indexes of the configured hosts that name the Pod, in ascending order. Empty if nothing has set
    /// them.
    pub(crate) fn host_indexes(&self) -> impl Iterator<Item = usize> + use<> {
        let hosts = self.0.details.hosts;
        (0..128).filter(move |index| hosts >> index & 1 == 1)
    }

    /// Returns the further addresses of the same server, in the order in which they are tried.
    pub(crate) fn alternatives(&self) -> &[SocketAddr] {
        &self.0.alternatives
    }

    /// Returns all IP addresses of the server, in the order in which they are tried.
    pub(crate) fn all_tcp(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.address().tcp().into_iter().chain(self.alternatives().iter().copied())
    }

    /// Returns this endpoint with `address` as its only address.
    pub(crate) fn only_at(&self, address: SocketAddr) -> Self {
        if self.alternatives().is_empty() && self.address().tcp() == Some(address) {
            return self.clone();
        }
        self.with(|inner| (inner.address, inner.alternatives) = (address.into(), Box::default()))
    }

    fn key(&self) -> (Option<&str>, &Address, &[SocketAddr]) {
        (self.name(), self.address(), self.alternatives())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.address()),
            None => write!(f, "{}", self.address()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.key() == other.key()
    }
}

impl Eq for Endpoint {}

impl PartialOrd for Endpoint {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Endpoint {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for Endpoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Uses as few writes as possible, because every Pod in every DNS response is hashed.
        match self.address() {
            Address::Tcp(SocketAddr::V4(v4)) => {
                state.write_u64(u64::from(u32::from(*v4.ip())) << 16 | u64::from(v4.port()))
            }
            Address::Tcp(SocketAddr::V6(v6)) => {
                state.write_u128((*v6.ip()).into());
                state.write_u64(u64::from(v6.scope_id()) << 16 | u64::from(v6.port()));
            }
            Address::Unix(path) => path.hash(state),
        }
        if let Some(name) = self.name() {
            name.hash(state);
        }
        if !self.alternatives().is_empty() {
            self.alternatives().hash(state);
        }
    }
}
