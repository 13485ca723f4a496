use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tokio::select;

use super::{Authority, Resolution, Resolve, ResolveError, identities::adopt, source};
use crate::{
    endpoint::Endpoint,
    sync::{Mutex, lock},
};

/// A source of Pods whose second source counts only while the first one is out of [sync](Resolve::is_in_sync) or fails.
///
/// - While the first source is in sync, its results are used alone, including a result without Pods.
/// - Otherwise, the second source is looked up. If the first one has been in sync before, the results of the second one
///   only [add](Authority::Additive) Pods, so a Pod is removed only when it fails its health check. If the first one
///   has never been in sync, for example because it lacks a permission, the second one decides alone.
/// - When the first source is in sync again, its next result decides.
/// - The second source may know a Pod by its address only. The Pod keeps the name that the first source has given.
///
/// A lookup of the first source fails after 5 s, and so does one of the second. A panic of a source counts as a failed
/// lookup of this source.
///
/// ```
/// use podpool::{
///     Endpoint,
///     discovery::{Dns, DnsOptions, Fallback, Fixed},
/// };
///
/// # fn example() -> Result<Fallback, Box<dyn std::error::Error>> {
/// let dns = Dns::new(DnsOptions::new("postgresql-svc.k8s-training.svc.cluster.local".parse()?, 5432))?;
/// let known = Fixed::new([Endpoint::new("10.0.0.7:5432".parse()?)]);
/// let resolver = Fallback::new(dns, known);
/// # Ok(resolver)
/// # }
/// # example().unwrap();
/// ```
pub struct Fallback {
    first: Arc<dyn Resolve>,
    second: Arc<dyn Resolve>,
    state: Mutex<State>,
}

/// The state that is kept between lookups.
#[derive(Debug, Default)]
struct State {
    /// The Pods in the latest result of the first source while it was in sync. `None` if it has never been in sync.
    known: Option<Vec<Endpoint>>,
    /// True if the latest result came from the second source.
    uses_second: bool,
}

impl Fallback {
    /// Creates a resolver that uses `second` only while `first` is out of sync or fails.
    #[must_use]
    pub fn new(first: impl Resolve, second: impl Resolve) -> Self {
        Self { first: Arc::new(first), second: Arc::new(second), state: Mutex::default() }
    }

    async fn look_up(&self) -> Result<Resolution, ResolveError> {
        loop {
            let result = source::look_up(&*self.first).await;
            let in_sync = source::is_in_sync(&*self.first);
            let (stale, error) = match result {
                Ok(resolution) if in_sync => {
                    self.returned_to_first(Some(&resolution));
                    return Ok(resolution);
                }
                Err(error) if in_sync && error.is_negative() => {
                    self.returned_to_first(None);
                    return Err(error);
                }
                Ok(resolution) => (Some(resolution), None),
                Err(error) => (None, Some(error)),
            };
            self.left_first(error.as_ref());
            select! {
                result = source::look_up(&*self.second) => return self.combine(stale, error, result),
                () = self.until_in_sync(), if !in_sync => {}
            }
        }
    }

    /// Waits until the first source is in sync.
    async fn until_in_sync(&self) {
        while !source::is_in_sync(&*self.first) {
            source::changed(&*self.first).await;
        }
    }

    /// Combines the result of the second source with the stale result or the error of the first.
    fn combine(
        &self,
        stale: Option<Resolution>,
        error: Option<ResolveError>,
        second: Result<Resolution, ResolveError>,
    ) -> Result<Resolution, ResolveError> {
        let known = lock(&self.state).known.clone();
        match (second, stale) {
            (Ok(mut resolution), _) => {
                if let Some(known) = known {
                    resolution.endpoints = adopt(&known, resolution.endpoints);
                    resolution.authority = Authority::Additive;
                    resolution.leaving.clear();
                }
                Ok(resolution)
            }
            (Err(_), Some(mut resolution)) => {
                (resolution.authority, resolution.partial) = (Authority::Additive, true);
                resolution.leaving.clear();
                Ok(resolution)
            }
            (Err(second), None) => {
                let first = error.unwrap_or_else(|| ResolveError::other("out of sync"));
                let sources = [(&*self.first, &first), (&*self.second, &second)];
                let texts = sources.map(|(of, error)| (source::describe(of), error.clone()));
                // Until the first source has been in sync, a negative response of the second one counts.
                Err(ResolveError::combined(&texts, known.is_none().then_some(&second)))
            }
        }
    }

    /// Records a result of the first source, and logs that the second source is no longer used.
    fn returned_to_first(&self, resolution: Option<&Resolution>) {
        let mut state = lock(&self.state);
        let known = state.known.get_or_insert_default();
        if let Some(resolution) = resolution {
            *known = resolution.endpoints.iter().chain(&resolution.leaving).cloned().collect();
        }
        if std::mem::take(&mut state.uses_second) {
            drop(state);
            tracing::info!(first = source::describe(&*self.first), "the first source of Pods is in sync again");
        }
    }

    /// Records that the second source is used, and logs it once.
    fn left_first(&self, error: Option<&ResolveError>) {
        if std::mem::replace(&mut lock(&self.state).uses_second, true) {
            return;
        }
        let (first, second) = (source::describe(&*self.first), source::describe(&*self.second));
        let error = error.map_or_else(|| "out of sync".into(), |error| crate::error::Chain(error).to_string());
        tracing::warn!(first, second, error, "the first source of Pods is out of sync; using the second");
    }
}

impl Resolve for Fallback {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(self.look_up())
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            select! {
                () = source::changed(&*self.first) => {}
                () = source::changed(&*self.second) => {}
            }
        })
    }

    fn is_in_sync(&self) -> bool {
        source::is_in_sync(&*self.first) || source::is_in_sync(&*self.second)
    }

    fn source(&self) -> String {
        format!("{}, or else {}", source::describe(&*self.first), source::describe(&*self.second))
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("first", &self.first).field("second", &self.second).finish_non_exhaustive()
    }
}
