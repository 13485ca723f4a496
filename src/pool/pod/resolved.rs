//! The state of name resolution: the results of the most recent lookups of each configured host.

use std::sync::Arc;

use crate::time::Instant;

/// The state of name resolution, written by the directory task. Not part of the published view of the Pods, because a
/// lookup that returns the same Pods does not publish a new view.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    hosts: Box<[ResolvedHost]>,
    /// Time at which the pool was built.
    since: Instant,
}

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
    pub(crate) fn new(hosts: usize, now: Instant) -> Self {
        Self { hosts: vec![ResolvedHost::default(); hosts].into(), since: now }
    }

    /// Records a successful lookup of a host. Returns true if the host's previous lookup failed.
    pub(crate) fn succeeded(&mut self, host: usize, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.hosts[host], ResolvedHost { at: Some(now), failures: 0, error: None });
        before.failures > 0
    }

    /// Records a failed lookup. Returns the number of failed lookups of this host since its last successful one.
    pub(crate) fn failed(&mut self, host: usize, cause: Arc<str>) -> u64 {
        let resolved = &mut self.hosts[host];
        resolved.failures += 1;
        resolved.error = Some(cause);
        resolved.failures
    }

    /// Returns the time of the last successful lookup, of the host for which it is the longest ago. A host that has not
    /// been resolved yet counts from the time at which the pool was built. `None` if no host has been resolved yet.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.hosts.iter().find_map(|host| host.at)?;
        self.hosts.iter().map(|host| host.at.unwrap_or(self.since)).min()
    }

    /// Returns the number of failed lookups since the last successful one, of the host with the most.
    pub(crate) fn failures(&self) -> u64 {
        self.hosts.iter().map(|host| host.failures).max().unwrap_or(0)
    }

    /// Returns true if the last lookup of each host succeeded.
    pub(crate) fn is_ok(&self) -> bool {
        self.hosts.iter().all(|host| host.at.is_some() && host.failures == 0)
    }

    /// Returns true if the first lookup of a host has neither succeeded nor failed yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.hosts.iter().any(|host| host.at.is_none() && host.failures == 0)
    }

    /// Returns the errors of the hosts whose last lookup failed.
    pub(crate) fn error(&self) -> Option<String> {
        let errors: Vec<_> = self.hosts.iter().filter_map(|host| host.error.as_deref()).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn each_host_recovers_from_its_own_failures() {
        let now = Instant::now();
        let mut resolved = Resolved::new(2, now);
        assert!(resolved.is_pending());
        assert_eq!([resolved.failed(0, "a".into()), resolved.failed(1, "b".into())], [1, 1]);
        assert!(!resolved.is_pending());
        assert_eq!((resolved.succeeded(0, now), resolved.is_ok()), (true, false));
        assert!(!resolved.succeeded(0, now), "it has recovered already");
        assert_eq!(resolved.failed(1, "b".into()), 2);
        assert_eq!((resolved.succeeded(1, now), resolved.is_ok()), (true, true));
    }

    #[test]
    fn the_age_is_that_of_the_host_that_was_resolved_the_longest_ago_or_never() {
        let built = Instant::now();
        let after = |seconds| built + Duration::from_secs(seconds);
        let mut resolved = Resolved::new(2, built);
        assert_eq!(resolved.at(), None);
        resolved.succeeded(0, after(10));
        assert_eq!(resolved.at(), Some(built), "the other host has never been resolved");
        resolved.succeeded(1, after(20));
        assert_eq!(resolved.at(), Some(after(10)));
    }
}
