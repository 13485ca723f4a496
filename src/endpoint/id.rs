use std::{
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

use crate::error::{Attempt, BoxError, Phase};

/// One Pod: its address, and its name where discovery tells it (SRV records do, A and AAAA records do not).
///
/// Equality is over name and address together, so that "same name, new address" and "same address, new name" are both
/// another Pod. A clone costs one reference count.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    name: Option<Arc<str>>,
    address: SocketAddr,
    weight: u16,
}

impl Endpoint {
    /// The greatest weight.
    pub const WEIGHT_MAX: u16 = 100;

    /// A Pod known by its address alone.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self(Arc::new(Inner { name: None, address, weight: 1 }))
    }

    /// A Pod known by name, as SRV records tell it: the first label of the target
    /// (`postgresql-sfs-0` of `postgresql-sfs-0.postgresql-svc.k8s-training.svc.cluster.local`).
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>, address: SocketAddr) -> Self {
        Self(Arc::new(Inner { name: Some(name.into()), address, weight: 1 }))
    }

    /// The same Pod with another weight, 1 to [`WEIGHT_MAX`](Self::WEIGHT_MAX), and anything beyond counts as the
    /// nearest of these. A Pod of weight 2 gets twice the share of one of weight 1, as far as their load allows; every
    /// Pod's weight is 1 by default. It is no part of the Pod's identity: with another weight, a Pod keeps its
    /// connections.
    ///
    /// For a [`Resolve`](crate::discovery::Resolve) of your own, where the Pods' machines differ. The weights of SRV
    /// records are not used: the Kubernetes DNS specification leaves them to the implementation.
    #[must_use]
    pub fn with_weight(&self, weight: u16) -> Self {
        let weight = weight.clamp(1, Self::WEIGHT_MAX);
        Self(Arc::new(Inner { name: self.0.name.clone(), address: self.0.address, weight }))
    }

    /// The Pod's weight.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.0.weight
    }

    /// The Pod's address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The Pod's name, where discovery tells it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// What went wrong with this Pod, with its name on it.
    pub(crate) fn attempt(&self, phase: Phase, cause: impl Into<BoxError>) -> Attempt {
        Attempt::new(self.shared_name(), self.address(), phase, cause)
    }

    pub(crate) fn shared_name(&self) -> Option<Arc<str>> {
        self.0.name.clone()
    }

    fn key(&self) -> (Option<&str>, SocketAddr) {
        (self.name(), self.address())
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
        Arc::ptr_eq(&self.0, &other.0) || self.address() == other.address() && self.name() == other.name()
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
        // Few pieces: every Pod of every answer is hashed.
        match self.address() {
            SocketAddr::V4(v4) => state.write_u64(u64::from(u32::from(*v4.ip())) << 16 | u64::from(v4.port())),
            SocketAddr::V6(v6) => {
                state.write_u128((*v6.ip()).into());
                state.write_u64(u64::from(v6.scope_id()) << 16 | u64::from(v6.port()));
            }
        }
        if let Some(name) = self.name() {
            name.hash(state);
        }
    }
}
