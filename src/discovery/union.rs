use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use super::{Authority, Resolution, Resolve, ResolveError, identities::adopt, source};
use crate::time::{Duration, Instant};

/// Maximum time until the next lookup after a source has failed.
const RETRY: Duration = Duration::from_secs(5);

/// A source of Pods that combines several sources, for Pods that no single source knows all of.
///
/// Each source may add Pods. None can remove one: a Pod that no source names any more is removed when it fails its
/// health check, because all results are [additive](Authority::Additive). If several sources name the same address, the
/// Pod has the name that the first of them gives it.
///
/// All sources are looked up concurrently. Each fails after 5 s, and its panic counts as a failed lookup. A lookup
/// fails only if all sources fail; the Pods stay then. After a partial failure, the next lookup starts within 5 s.
///
/// ```
/// use std::sync::Arc;
///
/// use podpool::{
///     Endpoint,
///     discovery::{Dns, DnsOptions, Fixed, Resolve, Union},
/// };
///
/// # fn example() -> Result<Union, Box<dyn std::error::Error>> {
/// let dns = Dns::new(DnsOptions::new("postgresql-svc.k8s-training.svc.cluster.local".parse()?, 5432))?;
/// let outside = Fixed::new([Endpoint::new("192.0.2.7:5432".parse()?)]);
/// let sources: [Arc<dyn Resolve>; 2] = [Arc::new(dns), Arc::new(outside)];
/// let resolver = Union::new(sources);
/// # Ok(resolver)
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Union {
    sources: Arc<[Arc<dyn Resolve>]>,
}

impl Union {
    /// Creates a resolver that combines these sources, in the order of precedence of their names for Pods.
    #[must_use]
    pub fn new(sources: impl IntoIterator<Item = Arc<dyn Resolve>>) -> Self {
        Self { sources: sources.into_iter().collect() }
    }

    /// Looks up all sources concurrently. Returns the results in the order of the sources.
    async fn look_up_all(&self) -> Vec<Result<Resolution, ResolveError>> {
        let mut lookups: Vec<_> = self.sources.iter().map(|source| Box::pin(source::look_up(&**source))).collect();
        let mut results: Vec<_> = lookups.iter().map(|_| None).collect();
        poll_fn(|cx| {
            for (lookup, result) in lookups.iter_mut().zip(&mut results) {
                if result.is_none()
                    && let Poll::Ready(done) = lookup.as_mut().poll(cx)
                {
                    *result = Some(done);
                }
            }
            if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        results.into_iter().flatten().collect()
    }

    fn combine(
        &self,
        results: Vec<Result<Resolution, ResolveError>>,
        now: Instant,
    ) -> Result<Resolution, ResolveError> {
        let (mut combined, mut errors) = (None::<Resolution>, Vec::new());
        for (source, result) in self.sources.iter().zip(results) {
            match (result, &mut combined) {
                (Ok(resolution), None) => combined = Some(resolution),
                (Ok(resolution), Some(combined)) => {
                    let further = adopt(&combined.endpoints, resolution.endpoints);
                    combined.endpoints.extend(further);
                    combined.valid_until = combined.valid_until.min(resolution.valid_until);
                    combined.partial |= resolution.partial;
                    (combined.server, combined.name) = (None, None);
                }
                (Err(error), _) => errors.push((source::describe(&**source), error)),
            }
        }
        let Some(mut resolution) = combined else {
            let no_sources = errors.is_empty();
            return Err(if no_sources {
                ResolveError::other("no source")
            } else {
                ResolveError::combined(&errors, None)
            });
        };
        resolution.endpoints.sort_unstable();
        resolution.endpoints.dedup();
        resolution.authority = Authority::Additive;
        resolution.leaving.clear();
        for (source, error) in &errors {
            let error = crate::error::Chain(error).to_string();
            tracing::debug!(source, error, "one of several sources of Pods failed");
            resolution.partial = true;
            resolution.valid_until = resolution.valid_until.min(now + RETRY);
        }
        Ok(resolution)
    }
}

impl Resolve for Union {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async {
            let results = self.look_up_all().await;
            self.combine(results, Instant::now())
        })
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let mut changes: Vec<_> = self.sources.iter().map(|source| Box::pin(source::changed(&**source))).collect();
            // Ends at the first change, so that the changes of the other sources complete a later future.
            poll_fn(|cx| match changes.iter_mut().any(|changed| changed.as_mut().poll(cx).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
        })
    }

    fn is_in_sync(&self) -> bool {
        self.sources.iter().all(|source| source::is_in_sync(&**source))
    }

    fn source(&self) -> String {
        let sources: Vec<_> = self.sources.iter().map(|source| source::describe(&**source)).collect();
        sources.join(" and ")
    }
}
