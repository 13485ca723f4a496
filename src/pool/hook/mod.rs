//! The application's hooks: async functions that run on a connection after it was opened, before it is checked out, and
//! after it was returned.
//!
//! [`after_connect`](Kind::AfterConnect) sets up a session. The session as the hook leaves it is an unchanged one, so
//! the hook runs again after each reset ([`pod::reset`](super::pod::reset)), and its requests are not recorded as
//! changes ([`Record::begin_setup`](crate::wire::record::Record::begin_setup)). The requests of the other two hooks
//! count as those of the caller that gets the connection, or that has returned it: they are reset with the caller's.
//!
//! A hook may fail, panic or hang. The connection is then closed.

mod client;
mod setters;

use std::{fmt, future::Future, pin::Pin};

pub use client::HookClient;

use crate::{
    error::{BoxError, Phase},
    event::Emitter,
    time::Duration,
    unwind::{PanicSource, catch_async},
};

/// The future that a hook returns: a boxed `async` block.
pub type HookFuture<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;

/// A hook.
type Hook = Box<dyn for<'a> Fn(HookClient<'a>) -> HookFuture<'a> + Send + Sync>;

/// The hooks of one pool.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(super) after_checkin: Option<Hook>,
    pub(super) after_connect: Option<Hook>,
    pub(super) before_checkout: Option<Hook>,
    /// Maximum duration of one call. `None` if it is `connect_timeout`.
    pub(super) timeout: Option<Duration>,
}

/// The occasion on which a hook runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    AfterCheckin,
    AfterConnect,
    BeforeCheckout,
}

impl Kind {
    /// Returns the phase of a failure.
    pub(crate) fn phase(self) -> Phase {
        match self {
            Self::AfterCheckin => Phase::AfterCheckin,
            Self::AfterConnect => Phase::AfterConnect,
            Self::BeforeCheckout => Phase::BeforeCheckout,
        }
    }

    fn panic_source(self) -> PanicSource {
        match self {
            Self::AfterCheckin => PanicSource::AfterCheckin,
            Self::AfterConnect => PanicSource::AfterConnect,
            Self::BeforeCheckout => PanicSource::BeforeCheckout,
        }
    }

    /// Returns the cause of a call that has not ended in time.
    pub(crate) fn timed_out(self, limit: Duration) -> BoxError {
        format!("`{}` did not end within {limit:?}", self.phase()).into()
    }
}

impl Hooks {
    /// Returns true if there is a hook of this kind.
    #[inline]
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.get(kind).is_some()
    }

    #[inline]
    fn get(&self, kind: Kind) -> Option<&Hook> {
        match kind {
            Kind::AfterCheckin => self.after_checkin.as_ref(),
            Kind::AfterConnect => self.after_connect.as_ref(),
            Kind::BeforeCheckout => self.before_checkout.as_ref(),
        }
    }

    /// Calls the hook of this kind, if there is one, and waits until the connection is clean. The caller limits the
    /// time. A panic is reported to `events`, and is an error.
    ///
    /// Cancel-safe, but the connection may not be clean then.
    pub(crate) async fn call(&self, kind: Kind, client: HookClient<'_>, events: &Emitter) -> Result<(), BoxError> {
        let Some(hook) = self.get(kind) else { return Ok(()) };
        let record = client.record();
        match catch_async(async { hook(client).await }).await {
            Ok(result) => result?,
            Err(panic) => {
                events.panicked(kind.panic_source(), &panic);
                return Err(panic.into());
            }
        }
        record.wait_until_idle().await;
        match (record.has_ended(), record.is_clean()) {
            (true, _) => Err(format!("the session ended during `{}`", kind.phase()).into()),
            (false, false) => Err(format!("`{}` has left a transaction open", kind.phase()).into()),
            (false, true) => Ok(()),
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after_checkin, after_connect, before_checkout, timeout } = self;
        let mut out = f.debug_struct("Hooks");
        out.field("after_checkin", &after_checkin.is_some()).field("after_connect", &after_connect.is_some());
        out.field("before_checkout", &before_checkout.is_some()).field("timeout", timeout).finish()
    }
}
