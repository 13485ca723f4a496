//! Doing a piece of work again, on another Pod.

use std::{error, future::Future, sync::Arc};

use crate::{
    config::Target,
    endpoint::{Endpoint, Role},
    error::{Applied, Attempt, BoxError, Error, Kind, Phase},
    pool::{
        inner::Inner,
        pod::{client::Client, shared::count},
    },
    time::{Duration, Instant},
    wire::{Class, Verdict, classify::classify_chain, record::Record},
};

/// Repetitions of one piece of work, at most: enough for every Pod of a StatefulSet to fail in turn, few enough not to
/// make an outage worse.
pub const RETRIES: u32 = 8;

/// The first pause after a repetition that was no better; it doubles.
const PAUSE: Duration = Duration::from_millis(10);

/// What may be repeated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Repeat {
    /// Anything that failed with the connection: doing it twice does no harm.
    Always,
    /// Only what was certainly not applied.
    Unapplied,
}

/// One try's connection, as far as it can be seen after the client was given away.
struct Watch {
    endpoint: Endpoint,
    record: Arc<Record>,
    sent: u64,
}

impl Watch {
    fn new(client: &Client) -> Self {
        let record = client.watch();
        let sent = record.sent();
        Self { endpoint: client.endpoint().clone(), record, sent }
    }

    /// What an error means, with what the connection knows: nothing can have been applied by a request that never
    /// left. Only of a connection that has ended, or the error may be another connection's; `is_quiet` first, as a
    /// request that stands in the driver's channel has not been counted yet.
    fn judge(&self, error: &(dyn error::Error + 'static)) -> Option<Verdict> {
        let mut verdict = classify_chain(error)?;
        if self.record.has_ended() && self.record.is_quiet() && self.record.sent() == self.sent {
            verdict.applied = Applied::No;
        }
        // A standby has refused a write: nothing can have been written on it before. On a primary it was a transaction
        // of the work's own that was read-only, and what came before that may stand.
        if verdict.class == Class::ReadOnly && self.record.role() == Role::Primary && !self.record.read_only() {
            verdict.class = Class::Statement;
        }
        Some(verdict)
    }
}

impl Inner {
    pub(crate) async fn retry<T, E, F, Fut>(&self, target: Target, repeat: Repeat, mut work: F) -> Result<T, Error>
    where
        F: FnMut(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let started = Instant::now();
        let deadline = started + self.shared.limits.acquire_timeout;
        let mut attempts: Vec<Attempt> = Vec::new();
        // Of all tries: one that may have been applied may have been, whatever the next one says.
        let mut applied = Applied::No;
        let mut tries = 0;
        let mut outdated = false;
        loop {
            let client = match self.checkout(target, Some(deadline)).await {
                Ok(client) => client,
                Err(error) => {
                    let error = error.with_applied(applied).with_earlier(attempts);
                    return Err(error.with_elapsed(started.elapsed()));
                }
            };
            if outdated {
                // What outdated one connection's statements has outdated those of them all.
                client.statement_cache.clear();
            }
            let watch = Watch::new(&client);
            let error: BoxError = match work(client).await {
                Ok(value) if repeat == Repeat::Unapplied || self.answered_as_asked(&watch, target) => return Ok(value),
                Ok(_) => format!("it has become a {}, which `{target}` does not want", watch.record.role()).into(),
                Err(error) => error.into(),
            };
            let verdict = watch.judge(&*error);
            let wrong_role = !self.fits(&watch.record, target);
            outdated |= verdict.is_some_and(|verdict| verdict.class == Class::StalePlan);
            let again = match verdict {
                // Nothing of that statement was applied; of those before it nobody knows.
                Some(Verdict { class: Class::StalePlan, .. }) => repeat == Repeat::Always,
                Some(verdict) => {
                    verdict.is_connection_class() && (repeat == Repeat::Always || verdict.applied == Applied::No)
                }
                None => wrong_role && repeat == Repeat::Always,
            };
            if verdict.is_none_or(|verdict| verdict.applied == Applied::Unknown) {
                applied = Applied::Unknown;
            }
            if !again || tries == RETRIES || Instant::now() >= deadline {
                return Err(Error::new(Kind::Query, format!("the work failed on {}", watch.endpoint))
                    .with_applied(applied)
                    .with_attempts(attempts)
                    .with_elapsed(started.elapsed())
                    .with_source(error));
            }
            attempts.push(watch.endpoint.attempt(Phase::Query, error));
            count(&self.shared.counters.retries);
            if tries > 0 {
                let pause = PAUSE * 2u32.pow(tries - 1);
                self.pause(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            }
            tries += 1;
        }
    }

    /// Whether the server was what the target probe_factory for to the end of the work: a promotion shows with the answer to
    /// the first statement after it.
    fn answered_as_asked(&self, watch: &Watch, target: Target) -> bool {
        watch.record.role() == Role::Unknown || self.fits(&watch.record, target)
    }
}
