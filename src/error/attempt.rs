use std::{error, fmt, sync::Arc};

use super::{BoxError, Chain, Phase};
use crate::address::Address;

/// A failed attempt to use one Pod, with the phase and the cause of the failure.
#[derive(Clone, Debug)]
pub struct Attempt {
    name: Option<Arc<str>>,
    address: Address,
    phase: Phase,
    cause: Cause,
}

#[derive(Clone, Debug)]
enum Cause {
    Failed(Arc<dyn error::Error + Send + Sync>),
    Busy {
        in_use: usize,
        size: usize,
    },
    /// No connection is open, and no attempt to open one has failed.
    Connecting,
    /// No connection is open, because `max_connections` permits no more.
    Limited,
}

impl Attempt {
    pub(crate) fn new(name: Option<Arc<str>>, address: Address, phase: Phase, cause: impl Into<BoxError>) -> Self {
        Self { name, address, phase, cause: Cause::Failed(Arc::from(cause.into())) }
    }

    pub(crate) fn busy(name: Option<Arc<str>>, address: Address, in_use: usize, size: usize) -> Self {
        Self { name, address, phase: Phase::Wait, cause: Cause::Busy { in_use, size } }
    }

    pub(crate) fn connecting(name: Option<Arc<str>>, address: Address) -> Self {
        Self { name, address, phase: Phase::Wait, cause: Cause::Connecting }
    }

    pub(crate) fn limited(name: Option<Arc<str>>, address: Address) -> Self {
        Self { name, address, phase: Phase::Wait, cause: Cause::Limited }
    }

    /// Returns the Pod's name, if discovery provides one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the Pod's address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the phase in which the attempt failed.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the cause of the failure. `None` if nothing has failed: all connections to the Pod were in use, the
    /// first one was still being opened, or `max_connections` permitted none.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn error::Error + Send + Sync + 'static)> {
        match &self.cause {
            Cause::Failed(cause) => Some(&**cause),
            Cause::Busy { .. } | Cause::Connecting | Cause::Limited => None,
        }
    }
}

impl Attempt {
    /// Returns a description of the failure, without the Pod's name and address.
    pub(crate) fn reason(&self) -> String {
        match &self.cause {
            Cause::Busy { in_use, size } => format!("has {in_use} of {size} connections in use"),
            Cause::Connecting => "is still being connected to".into(),
            Cause::Limited => "has no connection, because `max_connections` is reached".into(),
            Cause::Failed(cause) => format!("failed in {}: {}", self.phase, Chain(&**cause)),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.address)?,
            None => write!(f, "{}", self.address)?,
        }
        write!(f, " {}", self.reason())
    }
}
