//! Calls one of several sources that a resolver combines. A source that panics or hangs fails alone.

use super::{Resolution, Resolve, ResolveError};
use crate::{
    time::Duration,
    unwind::{catch, catch_async},
};

/// Timeout for one lookup of a source. Shorter than the pool's timeout for a whole lookup, so that the other sources
/// count if one of them does not respond.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks up the Pods. A panic or a timeout is an error.
pub(super) async fn look_up(source: &dyn Resolve) -> Result<Resolution, ResolveError> {
    let lookup = catch_async(async { source.resolve().await });
    match tokio::time::timeout(LIMIT, lookup).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(ResolveError::other(panic)),
        Err(_) => Err(ResolveError::other(format!("no response within {LIMIT:?}"))),
    }
}

/// Waits for a change. A source that panics announces none.
pub(super) async fn changed(source: &dyn Resolve) {
    if let Err(error) = catch_async(async { source.changed().await }).await {
        tracing::warn!(source = describe(source), %error, "waiting for a change of the Pods failed");
        std::future::pending().await
    }
}

/// Returns true if the source follows the Pods as they change. A source that panics does not.
pub(super) fn is_in_sync(source: &dyn Resolve) -> bool {
    catch(|| source.is_in_sync()).unwrap_or(false)
}

/// Returns the description of the source.
pub(super) fn describe(source: &dyn Resolve) -> String {
    catch(|| source.source()).unwrap_or_else(|panic| format!("a resolver, which {panic}"))
}
