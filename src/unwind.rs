//! Catches panics, so that neither a panic in code supplied by the application nor one in a task of the pool stops the
//! pool.

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// The code that panicked: an extension supplied by the application, or a task of the pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PanicSource {
    AfterCheckin,
    AfterConnect,
    BeforeCheckout,
    CredentialsProvider,
    Directory,
    MeterProvider,
    MetricsRecorder,
    Observer,
    Opener,
    Policy,
    Prober,
    Refresher,
    Resolver,
    TlsConnector,
    Upkeep,
}

impl PanicSource {
    /// All sources, each at the index of its discriminant.
    pub(crate) const ALL: [Self; 15] = [
        Self::AfterCheckin,
        Self::AfterConnect,
        Self::BeforeCheckout,
        Self::CredentialsProvider,
        Self::Directory,
        Self::MeterProvider,
        Self::MetricsRecorder,
        Self::Observer,
        Self::Opener,
        Self::Policy,
        Self::Prober,
        Self::Refresher,
        Self::Resolver,
        Self::TlsConnector,
        Self::Upkeep,
    ];

    /// Returns the name of the source in events and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AfterCheckin => "after_checkin",
            Self::AfterConnect => "after_connect",
            Self::BeforeCheckout => "before_checkout",
            Self::CredentialsProvider => "credentials_provider",
            Self::Directory => "directory",
            Self::MeterProvider => "meter_provider",
            Self::MetricsRecorder => "metrics_recorder",
            Self::Observer => "observer",
            Self::Opener => "opener",
            Self::Policy => "policy",
            Self::Prober => "prober",
            Self::Refresher => "refresher",
            Self::Resolver => "resolver",
            Self::TlsConnector => "tls_connector",
            Self::Upkeep => "upkeep",
        }
    }
}

/// The message of a caught panic.
#[derive(Clone, Debug)]
pub(crate) struct Panic(Box<str>);

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.0)
    }
}

impl std::error::Error for Panic {}

impl Panic {
    /// Returns a panic without its message, which may contain a secret.
    pub(crate) fn without_message() -> Self {
        Self("no message".into())
    }

    fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(message), _) => (*message).into(),
            (_, Some(message)) => message.as_str().into(),
            (None, None) => "no message".into(),
        };
        // The payload's destructor is application code too, and may panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        Self(message)
    }
}

/// Calls a function and catches its panic.
///
/// After a panic, state that the function was modifying may be inconsistent. The caller must not rely on it.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(work)).map_err(Panic::new)
}

/// Runs a future and catches its panic, after which the future is not polled again. Cancel-safe if the future is.
pub(crate) async fn catch_async<F: Future>(future: F) -> Result<F::Output, Panic> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch(|| future.as_mut().poll(cx)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caught_panic_carries_its_message() {
        assert_eq!(catch(|| 7).unwrap(), 7);
        assert_eq!(catch(|| panic!("static")).map(|(): ()| ()).unwrap_err().to_string(), "panicked: static");
        let number = 3;
        let panic = catch_async(async { panic!("number {number}") }).await.map(|(): ()| ()).unwrap_err();
        assert_eq!(panic.to_string(), "panicked: number 3");
        let panic = catch(|| std::panic::panic_any(7)).map(|(): ()| ()).unwrap_err();
        assert_eq!(panic.to_string(), "panicked: no message");
        assert_eq!(catch_async(async { 7 }).await.unwrap(), 7);
    }

    #[test]
    fn catches_a_panic_in_the_destructor_of_a_panic_payload() {
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert!(catch(|| std::panic::panic_any(Payload)).map(|(): ()| ()).is_err());
    }

    #[test]
    fn panic_sources_have_unique_indices_and_names() {
        for (position, source) in PanicSource::ALL.into_iter().enumerate() {
            assert_eq!(source as usize, position);
        }
        let names: std::collections::BTreeSet<_> = PanicSource::ALL.into_iter().map(PanicSource::as_str).collect();
        assert_eq!(names.len(), PanicSource::ALL.len());
    }
}
