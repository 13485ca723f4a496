//! Calls the application's hook `before_checkout`, which can reject a connection.

use crate::{
    error::{Attempt, Error, Kind},
    pool::{hook, inner::Inner, pod::client::Client},
    time::Instant,
    trace::pool_line,
};

/// Maximum number of connections that the hook may reject in one checkout. Each of them is closed, so without a
/// maximum, a hook that rejects every connection would make each caller open connections until its deadline.
const REJECTIONS: usize = 8;

impl Inner {
    /// Calls the hook, if there is one. Closes the connection if the hook rejects it, fails, or does not end in time.
    /// If only the caller's own deadline ends the hook, the connection is not at fault: it is recycled like any other.
    pub(super) async fn approve(&self, client: Client, deadline: Instant) -> Result<Client, Attempt> {
        let (shared, kind) = (&self.shared, hook::Kind::BeforeCheckout);
        if !shared.hooks.has(kind) {
            return Ok(client);
        }
        let began = Instant::now();
        let left = deadline.saturating_duration_since(began);
        let limit = shared.hook_timeout().min(left);
        let called = shared.hooks.call(kind, client.for_hook(), &shared.events);
        let cause = match self.within(began + limit, called).await {
            Some(Ok(())) => return Ok(client),
            Some(Err(cause)) => cause,
            None if limit == left => {
                return Err(client.endpoint().attempt(kind.phase(), kind.timed_out(limit)));
            }
            None => {
                shared.counters.timed_out.increment(kind.phase());
                client.pod().server.probe_wanted.notify_one();
                kind.timed_out(limit)
            }
        };
        let attempt = client.endpoint().attempt(kind.phase(), cause);
        pool_line!(debug, shared, %attempt, "connection closed: `before_checkout` has rejected it");
        client.reject();
        Err(attempt)
    }

    /// Returns an error if the hook has rejected too many connections in this checkout.
    pub(super) fn check_rejections(rejected: &[Attempt]) -> Result<(), Error> {
        let phase = hook::Kind::BeforeCheckout.phase();
        if rejected.iter().filter(|attempt| attempt.phase() == phase).count() < REJECTIONS {
            return Ok(());
        }
        Err(Error::new(Kind::Other, format!("`{phase}` has rejected {REJECTIONS} connections")))
    }
}
