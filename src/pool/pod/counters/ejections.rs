//! The number of ejections of each Pod, by cause.

use std::{collections::BTreeMap, sync::Arc};

#[cfg(feature = "_metrics")]
use crate::error::Phase;
use crate::{
    endpoint::Endpoint,
    sync::{Mutex, lock},
};

/// The cause of an ejection that callers' traffic has shown: the server has ended sessions, or connections broke.
pub(crate) const SESSIONS_ENDED: &str = "sessions_ended";
/// The cause of an ejection that callers' traffic has shown: too many statements failed with errors of the server.
pub(crate) const OUTLIER: &str = "outlier";

/// The causes with which a Pod can be ejected: those above, and the phases in which a probe can fail.
#[cfg(feature = "_metrics")]
pub(crate) const CAUSES: [&str; 7] = [
    SESSIONS_ENDED,
    OUTLIER,
    Phase::Tcp.as_str(),
    Phase::Tls.as_str(),
    Phase::Startup.as_str(),
    Phase::AfterConnect.as_str(),
    Phase::Probe.as_str(),
];

/// The number of ejections by Pod and cause. Pods that have left are kept, like the series of a counter.
#[derive(Debug, Default)]
pub(crate) struct Ejections(Mutex<BTreeMap<(Arc<str>, &'static str), u64>>);

impl Ejections {
    pub(crate) fn increment(&self, endpoint: &Endpoint, cause: &'static str) {
        *lock(&self.0).entry((label(endpoint), cause)).or_default() += 1;
    }

    /// Returns the counts that are not zero.
    #[cfg(feature = "_metrics")]
    pub(crate) fn read(&self) -> Vec<((Arc<str>, &'static str), u64)> {
        lock(&self.0).iter().map(|(key, count)| (key.clone(), *count)).collect()
    }
}

/// Returns the Pod's name if it is known, or else its address.
pub(crate) fn label(endpoint: &Endpoint) -> Arc<str> {
    endpoint.shared_name().unwrap_or_else(|| endpoint.address().to_string().into())
}
