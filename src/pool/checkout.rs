//! From a target to a connection: at once where one is idle, else by waiting for one.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    sync::Arc,
};

use tokio::{
    select,
    time::{Sleep, sleep_until, timeout_at},
};
use tracing::Instrument as _;

use super::{
    client::Client,
    common::count,
    failure,
    inner::Inner,
    local::{Local, Place},
    opener, ping,
    pod::Pod,
    view::View,
};
use crate::{
    balance::{Candidates, select as select_pod, select_at_once},
    config::{LagFallback, Target},
    endpoint::{Role, snapshot::Candidate},
    error::{Attempt, BoxError, Error, Phase},
    sync::lock,
    time::{Duration, Instant},
    trace::{SYSTEM, TARGET, WAIT},
    wire::record::Record,
};

/// What a checkout does about Pods that are [mute](Pod::is_mute).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mute {
    /// Takes one where no other has anything idle.
    Last,
    /// Leaves them alone: a ping is on its way there already, and its answer comes to the queue. Where there is no other
    /// Pod, a new connection is opened after this moment: it may be the old one that is dead.
    Never(Instant),
}

/// A connection that could not be made ready.
enum NotReady {
    /// It failed, or has another role than it had.
    Gone(Option<Attempt>),
    /// Its Pod has not answered yet.
    Left(Attempt),
}

thread_local! {
    static LOCAL: Place<View> = const { RefCell::new(Local::new()) };
}

impl Inner {
    /// Lets this thread's copy go.
    pub(crate) fn forget(&self) {
        Local::forget(&LOCAL, &self.published);
    }

    /// A connection, if a fitting Pod has an idle one. It may have to be [made ready](Inner::ready). `missed` hears of
    /// the first choice, if that has none.
    #[inline]
    fn try_checkout(&self, target: Target, mute: Mute, missed: impl Fn(&Arc<Pod>)) -> Option<Client> {
        let mut told = false;
        let take = |pod: &Arc<Pod>| {
            let speaks = !pod.is_mute();
            let taken = if speaks { pod.try_take() } else { None };
            if speaks && taken.is_none() {
                told = true;
                missed(pod);
            }
            taken
        };
        let at_once = self.chooser.quick().and_then(|policy| {
            Local::at_once(
                &LOCAL,
                &self.published,
                #[inline(always)]
                |View { snapshot, .. }, rng| select_at_once(snapshot, target.index(), policy, rng, take),
            )
        });
        at_once.or_else(|| {
            self.look_around(target, mute, |pod| {
                if !told {
                    missed(pod);
                }
            })
        })
    }

    /// The same where the one that is drawn does not do, or the thread's copy is not up to date.
    #[cold]
    #[inline(never)]
    fn look_around(&self, target: Target, mute: Mute, missed: impl Fn(&Arc<Pod>)) -> Option<Client> {
        Local::with(&LOCAL, &self.published, |View { snapshot, .. }, rng, rest| {
            let passed_by = Cell::new(false);
            let speaking = |pod: &Arc<Pod>| {
                if pod.is_mute() {
                    passed_by.set(true);
                    return None;
                }
                pod.try_take()
            };
            let missed = |pod: &Arc<Pod>| {
                if !pod.is_mute() {
                    missed(pod);
                }
            };
            let taken = select_pod(snapshot, target.index(), &self.chooser, rng, rest, speaking, missed);
            if taken.is_some() || mute != Mute::Last || !passed_by.get() {
                return taken;
            }
            select_pod(snapshot, target.index(), &self.chooser, rng, rest, |pod: &Arc<Pod>| pod.try_take(), |_| {})
        })
    }

    /// A connection, by the deadline.
    pub(crate) async fn checkout(&self, target: Target, deadline: Option<Instant>) -> Result<Client, Error> {
        self.common.ask_for(target);
        let result = match self.try_checkout(target, Mute::Last, opener::grow) {
            Some(client) if client.is_fresh() && self.fits(client.record(), target) => Ok(client),
            // The slow path is a future of its own, made when it is needed.
            found => {
                let started = Instant::now();
                let deadline = deadline.unwrap_or(started + self.common.limits.acquire_timeout);
                let span = tracing::debug_span!(target: TARGET, WAIT, "db.system.name" = SYSTEM, target = %target);
                let result = Box::pin(self.wait(target, started, deadline, found)).instrument(span).await;
                self.common.meter.waited(started, &result);
                result
            }
        };
        result.inspect(|client| client.record().lend(target == Target::Any))
    }

    async fn wait(
        &self,
        target: Target,
        started: Instant,
        deadline: Instant,
        found: Option<Client>,
    ) -> Result<Client, Error> {
        count(&self.common.counters.waits);
        let mut pinged = Vec::new();
        let mut again = false;
        let mut mute = Mute::Last;
        let mut found = found;
        loop {
            let client = match found.take() {
                Some(client) => client,
                None => match self.queue(target, started, deadline, again, mute).await {
                    Ok(client) => client,
                    Err(error) => return Err(error.with_earlier(pinged)),
                },
            };
            again = true;
            match self.ready(client, target, deadline).await {
                Ok(client) => return Ok(client),
                Err(NotReady::Gone(attempt)) => pinged.extend(attempt),
                Err(NotReady::Left(attempt)) => {
                    mute = Mute::Never(Instant::now() + ping::PATIENCE);
                    pinged.push(attempt);
                }
            }
        }
    }

    /// Stands in the queue until there is a connection: at its end, or at its head who has been there before.
    async fn queue(
        &self,
        target: Target,
        started: Instant,
        deadline: Instant,
        again: bool,
        mute: Mute,
    ) -> Result<Client, Error> {
        let common = &self.common;
        let mut place = common.waiters.enter(target, again);
        let mut urgent = None;
        loop {
            if let Some(client) = place.take() {
                return Ok(client);
            }
            let view = self.published.load();
            let now = Instant::now();
            if let Some(error) = failure::hopeless(&view, target, common, now) {
                return Err(error.with_elapsed(now - started));
            }
            if now >= deadline {
                count(&common.counters.timeouts);
                common.counters.timed_out.count(Phase::Wait);
                return Err(failure::timed_out(&view, target, common).with_elapsed(now - started));
            }
            let candidates = view.snapshot.candidates(target.index());
            for candidate in candidates {
                view.snapshot.pod(*candidate).slot.set_waited();
            }
            // Only after saying that somebody waits: see the orderings of `endpoint::slot`.
            if let Some(client) = self.try_checkout(target, mute, |_| {}) {
                return Ok(client);
            }
            if !candidates.is_empty() {
                urgent = None;
            } else if urgent.is_none() {
                urgent = Some(common.urgency.begin(now));
            }
            let again = self.open_for(&view, candidates, mute, now);
            let until = again.map_or(deadline, |again| again.min(deadline));
            select! {
                biased;
                () = place.woken() => {}
                () = self.sleep_until(until) => {}
            }
        }
    }

    /// Has a connection opened, if those being opened are fewer than those who wait for one of these Pods. Where every
    /// Pod that has room failed just now: when the first of them may be tried again.
    fn open_for(&self, view: &View, candidates: &[Candidate], mute: Mute, now: Instant) -> Option<Instant> {
        let pod = |candidate: &Candidate| view.snapshot.pod(*candidate);
        if !candidates.iter().any(|candidate| pod(candidate).has_berth()) {
            return None;
        }
        let speaks = |candidate: &&Candidate| !pod(candidate).is_mute();
        let opening: usize = candidates.iter().filter(speaks).map(|candidate| pod(candidate).opening_lately()).sum();
        let serves = |target: Target| candidates.iter().any(|candidate| pod(candidate).slot.serves(target.bit()));
        if opening >= self.common.waiters.count(serves) {
            return None;
        }
        let mut again = None;
        let mut open: Vec<_> = candidates.iter().copied().filter(|candidate| pod(candidate).has_berth()).collect();
        open.retain(|candidate| match lock(&pod(candidate).trouble).not_before(now) {
            Some(at) => {
                again = Some(again.map_or(at, |earlier: Instant| earlier.min(at)));
                false
            }
            None => true,
        });
        if open.iter().any(|candidate| speaks(&candidate)) {
            open.retain(|candidate| speaks(&candidate));
        } else if let Mute::Never(until) = mute
            && until > now
            && !open.is_empty()
        {
            return Some(again.map_or(until, |again: Instant| again.min(until)));
        }
        while !open.is_empty() {
            let picked = Local::with(&LOCAL, &self.published, |_, rng, _| {
                self.chooser.pick(&Candidates::new(&view.snapshot, &open), rng)
            })?;
            if opener::open(pod(&open.swap_remove(picked))) {
                return None;
            }
        }
        again
    }

    /// Pings a connection that nobody has used for a while, and one whose server was something else when it was heard of
    /// last: the answer brings the role up to date. Gives one back that is at work: a statement that outlived its
    /// connection's borrower has been closed on it.
    async fn ready(&self, client: Client, target: Target, deadline: Instant) -> Result<Client, NotReady> {
        if !client.record().is_clean() {
            return Err(NotReady::Gone(None));
        }
        if !client.is_stale() && self.fits(client.record(), target) {
            return Ok(client);
        }
        let asked = Instant::now();
        let hedge = asked + ping::HEDGE;
        let answer = self.within(hedge.min(deadline), client.check_connection()).await;
        let attempt = |cause: BoxError| client.endpoint().attempt(Phase::Ping, cause);
        match answer {
            Some(Ok(())) if self.fits(client.record(), target) => Ok(client),
            Some(Ok(())) => {
                // Not what is asked for, nor will it be. Given back, it would only be found again.
                client.retire();
                Err(NotReady::Gone(None))
            }
            Some(Err(error)) => {
                let attempt = attempt(error.into());
                client.pod().suspect.notify_one();
                client.retire();
                Err(NotReady::Gone(Some(attempt)))
            }
            // The caller's time is up, not the connection's: given back, and settled.
            None if deadline < hedge => Err(NotReady::Gone(None)),
            None => {
                let attempt = attempt("no answer to a ping yet".into());
                ping::leave(client, asked + self.common.limits.probe_timeout);
                Err(NotReady::Left(attempt))
            }
        }
    }

    /// Whether a server is what the target asks for, as it said last. Where the primary may stand in for standbys that
    /// are too late, the list of candidates alone decides.
    #[inline]
    pub(super) fn fits(&self, record: &Record, target: Target) -> bool {
        let stand_in = self.common.limits.lag_fallback == LagFallback::Primary;
        match target {
            Target::Any | Target::PreferPrimary | Target::PreferStandby => true,
            Target::ReadOnly | Target::Standby if stand_in => true,
            Target::Primary => record.role() == Role::Primary,
            Target::Standby => record.role() == Role::Standby,
            Target::ReadWrite => record.role() == Role::Primary && !record.read_only(),
            Target::ReadOnly => record.role() == Role::Standby || record.read_only(),
        }
    }

    /// Sleeps on the pool's runtime, whatever the caller runs on.
    fn sleep_until(&self, at: Instant) -> Sleep {
        let _context = self.common.runtime.enter();
        sleep_until(at)
    }

    /// Does nothing for a while.
    pub(super) async fn pause(&self, pause: Duration) {
        self.sleep_until(Instant::now() + pause).await;
    }

    /// The work's result, or `None` if the time is up first.
    async fn within<T>(&self, limit: Instant, work: impl Future<Output = T>) -> Option<T> {
        let work = pin!(work);
        let timeout = {
            let _context = self.common.runtime.enter();
            timeout_at(limit, work)
        };
        timeout.await.ok()
    }
}
