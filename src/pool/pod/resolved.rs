//! The state of name resolution: the results of the most recent lookups of each configured host.

use std::sync::Arc;

use crate::time::Instant;

/// The state of name resolution, written by the directory task. Not part of the published view of the Pods, because a
/// lookup that returns the same Pods does not publish a new view.
#[derive(Clone, Debug)]
pub(crate) struct Resolved(Box<[ResolvedHost]>);

/// The state of one configured host.
#[derive(Clone, Debug, Default)]
struct ResolvedHost {
    /// Time of the last successful lookup.
    at: Option<Instant>,
    /// Number of failed lookups since the last successful one.
    failures: u64,
    /// The error of the last lookup, if it failed.
    error: Option<Arc<str>>,
}

impl Resolved {
    pub(crate) fn new(hosts: usize) -> Self {
        Self(vec![ResolvedHost::default(); hosts].into())
    }

    /// Records a successful lookup. Returns true if it ends the failures of all hosts.
    pub(crate) fn succeeded(&mut self, host: usize, now: Instant) -> bool {
        let failed = self.failures() > 0;
        self.0[host] = ResolvedHost { at: Some(now), failures: 0, error: None };
        failed && self.failures() == 0
    }

    /// Records a failed lookup. Returns the number of failed lookups of this host since its last successful one.
    pub(crate) fn failed(&mut self, host: usize, cause: Arc<str>) -> u64 {
        let resolved = &mut self.0[host];
        resolved.failures += 1;
        resolved.error = Some(cause);
        resolved.failures
    }

    /// Returns the time of the last successful lookup, of the host for which it is the longest ago. `None` if no host
    /// has been resolved yet.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.0.iter().filter_map(|host| host.at).min()
    }

    /// Returns the number of failed lookups since the last successful one, of the host with the most.
    pub(crate) fn failures(&self) -> u64 {
        self.0.iter().map(|host| host.failures).max().unwrap_or(0)
    }

    /// Returns true if the last lookup of each host succeeded.
    pub(crate) fn is_ok(&self) -> bool {
        self.0.iter().all(|host| host.at.is_some() && host.failures == 0)
    }

    /// Returns the errors of the hosts whose last lookup failed.
    pub(crate) fn error(&self) -> Option<String> {
        let errors: Vec<_> = self.0.iter().filter_map(|host| host.error.as_deref()).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }
}
