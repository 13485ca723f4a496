//! Wrappers for code that the application supplies. They report a panic of that code, and the panic fails only the call
//! in which it happens.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
};

use crate::{
    balance::{Candidates, Policy, Rng},
    discovery::{Resolution, Resolve, ResolveError},
    event::{Emitter, GroupEvents},
    unwind::{PanicSource, catch, catch_async},
};

/// The application's balancing policy. If it panics, a random candidate is chosen.
#[derive(Debug)]
pub(crate) struct GuardedPolicy {
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) events: Arc<Emitter>,
}

impl Policy for GuardedPolicy {
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        match catch(|| self.policy.pick(candidates, rng)) {
            Ok(picked) => picked,
            Err(panic) => {
                self.events.panicked(PanicSource::Policy, &panic);
                (!candidates.is_empty()).then(|| rng.below(candidates.len()))
            }
        }
    }
}

/// The application's resolver. If it panics, the lookup fails. If it panics while the pool waits for a change, no
/// change is announced before the next lookup.
#[derive(Debug)]
pub(crate) struct GuardedResolver {
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) events: Arc<GroupEvents>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async {
            catch_async(async { self.resolver.resolve().await }).await.unwrap_or_else(|panic| {
                self.events.panicked(PanicSource::Resolver, &panic);
                Err(ResolveError::other(panic))
            })
        })
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if let Err(panic) = catch_async(async { self.resolver.changed().await }).await {
                self.events.panicked(PanicSource::Resolver, &panic);
                pending().await
            }
        })
    }

    fn is_in_sync(&self) -> bool {
        catch(|| self.resolver.is_in_sync()).unwrap_or_else(|panic| {
            self.events.panicked(PanicSource::Resolver, &panic);
            false
        })
    }

    fn source(&self) -> String {
        catch(|| self.resolver.source()).unwrap_or_else(|panic| {
            self.events.panicked(PanicSource::Resolver, &panic);
            format!("the application's resolver, which {panic}")
        })
    }
}
