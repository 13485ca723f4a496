//! The task that keeps a listener's connection open.
//!
//! A connection to a Pod that no longer serves the target may still be open, but it receives nothing: a former primary
//! gets no notifications from its successor. The task therefore closes the connection as soon as the Pod is ejected,
//! fenced, drained or detached, or its role has changed.

use std::sync::Arc;

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::queue::Queue;
use crate::{
    config::Checkout,
    error::{BoxError, Error, Kind, Phase},
    pool::{
        checkout::deadline_of,
        inner::Inner,
        owned::set_up,
        pod::{
            Pod,
            connect::{connection_observer, to_attempt},
            jitter::random,
            shared::Shared,
        },
    },
    time::{Duration, Instant},
    trace::{pod_line, pool_line},
    wire::dial::Dialled,
};

/// Interval at which the task checks whether the connection must be replaced.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum pause before the first attempt to replace a connection. Doubles with each attempt. The pause is a random 50
/// to 100 % of it.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The highest maximum.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A subscription to channels.
#[derive(Debug)]
pub(super) struct Subscription {
    inner: Arc<Inner>,
    options: Checkout,
    /// The `LISTEN` statements.
    listen: String,
    queue: Arc<Queue>,
}

/// The dedicated connection of a listener.
struct Connection {
    pod: Arc<Pod>,
    /// The Pod's generation when the connection was opened.
    generation: u64,
    dialled: Dialled,
    /// Dropped last: the permit is released after the connection has been closed.
    _permit: Permit,
}

/// A permit for one connection of a listener, which counts toward `max_connections` but not toward `pool_size`.
struct Permit(Arc<Shared>);

impl Permit {
    fn take(shared: &Arc<Shared>) -> Result<Self, Error> {
        match shared.connection_limit.try_acquire() {
            true => Ok(Self(shared.clone())),
            false => Err(Error::new(Kind::PoolTimeout, "cannot listen: `max_connections` is reached")),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connection_limit.release();
        self.0.waiters.wake_opener();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.dialled.record.notifications.stop();
    }
}

impl Subscription {
    pub(super) fn new(inner: Arc<Inner>, options: Checkout, channels: &[String], queue: Arc<Queue>) -> Self {
        let quoted = channels.iter().map(|channel| format!("LISTEN \"{}\";", channel.replace('"', "\"\"")));
        Self { inner, options, listen: quoted.collect(), queue }
    }

    /// Opens the first connection, reports the result, and keeps a connection open until the pool is closed.
    pub(super) async fn run(self, ready: oneshot::Sender<Result<(), Error>>) {
        let (result, connection) = match self.connect_first().await {
            Ok(connection) => (Ok(()), Some(connection)),
            Err(error) => (Err(error), None),
        };
        if ready.send(result).is_ok()
            && let Some(connection) = connection
        {
            self.keep_open(connection).await;
        }
    }

    /// Opens the first connection. Tries again until the deadline.
    async fn connect_first(&self) -> Result<Connection, Error> {
        let began = Instant::now();
        let within = self.options.deadline.unwrap_or(self.inner.shared.limits.acquire_timeout);
        let deadline = deadline_of(began, within);
        let mut backoff = BACKOFF_MIN;
        loop {
            match self.connect(Some(deadline)).await {
                Err(error) if error.kind() == Kind::Connect && Instant::now() + backoff < deadline => {
                    self.inner.pause(lengthen(&mut backoff)).await;
                }
                result => return result.map_err(|error| error.with_elapsed(began.elapsed())),
            }
        }
    }

    /// Replaces the connection whenever it is lost or its Pod no longer serves the target. Returns when the pool is
    /// closed.
    async fn keep_open(&self, mut connection: Connection) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let connected = Instant::now();
            let cause = self.watch(&connection).await;
            let pod = &connection.pod;
            pod_line!(debug, pod, %cause, "a listener's connection is replaced");
            drop(connection);
            self.queue.begin_gap(cause.into());
            if connected.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
            connection = loop {
                sleep(lengthen(&mut backoff)).await;
                match self.connect(None).await {
                    Ok(connection) => break connection,
                    Err(error) if error.kind() == Kind::Shutdown => return,
                    Err(error) => {
                        pool_line!(debug, self.inner.shared, %error, "a listener could not connect");
                        // The connection may have passed on notifications before it failed, and thereby ended the gap.
                        self.queue.begin_gap("the connection could not be replaced".into());
                    }
                }
            };
        }
    }

    /// Waits until the connection must be replaced, and returns the reason.
    async fn watch(&self, connection: &Connection) -> &'static str {
        loop {
            if let Some(reason) = self.invalid(connection) {
                return reason;
            }
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// Returns the reason why the connection must be replaced, if there is one.
    fn invalid(&self, connection: &Connection) -> Option<&'static str> {
        let Connection { pod, generation, dialled, .. } = connection;
        if dialled.record.has_ended() {
            Some("the connection was lost")
        } else if pod.slot.is_closed() {
            Some("the Pod is drained, or the pool is closed")
        } else if *generation != pod.generation() {
            Some("the Pod was ejected or fenced")
        } else if !self.inner.fits(&dialled.record, self.options.target) || !pod.slot.serves(self.options.target.bit())
        {
            Some("the Pod no longer serves the target")
        } else {
            None
        }
    }

    /// Opens a connection to a Pod that serves the target, and subscribes to the channels.
    async fn connect(&self, deadline: Option<Instant>) -> Result<Connection, Error> {
        // The checkout waits like any other caller, so that a new primary is looked for.
        let pod = self.inner.checkout_with(self.options, deadline).await?.shared_pod();
        let shared = pod.shared().clone();
        let generation = pod.generation();
        let Some(dialer) = shared.dialer.get() else { return Err(Error::new(Kind::Shutdown, "the pool is closed")) };
        let permit = Permit::take(&shared)?;
        let failed = |error| {
            let (_, attempt) = to_attempt(&pod, error);
            Error::new(Kind::Connect, "could not open a connection for a listener").with_attempts(vec![attempt])
        };
        let endpoint = pod.current_endpoint();
        let dialled = dialer.dial(&endpoint, connection_observer(&pod, generation)).await.map_err(failed)?;
        dialled.record.set_in_service();
        if let Err(cause) = set_up(&pod, &dialled).await {
            let attempt = pod.endpoint.attempt(Phase::AfterConnect, cause);
            return Err(
                Error::new(Kind::Connect, "could not set up a connection for a listener").with_attempts(vec![attempt])
            );
        }
        let connection = Connection { pod, generation, dialled, _permit: permit };
        let queue = self.queue.clone();
        connection.dialled.record.notifications.receive(move |notification| queue.add(notification));
        let listen = connection.dialled.client.batch_execute(&self.listen);
        let refused = |cause: BoxError| {
            let message = format!("cannot listen on {}", connection.pod.endpoint);
            Err(Error::new(Kind::Query, message).with_source(cause))
        };
        match timeout(shared.limits.connect_timeout, listen).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return refused(error.into()),
            Err(_) => return refused("no response to LISTEN".into()),
        }
        if let Some(reason) = self.invalid(&connection) {
            return Err(Error::new(Kind::Connect, format!("cannot listen on {}: {reason}", connection.pod.endpoint)));
        }
        self.queue.end_gap();
        Ok(connection)
    }
}

/// Returns the next pause, and doubles the maximum of the one after it.
fn lengthen(backoff: &mut Duration) -> Duration {
    let pause = backoff.mul_f64(0.5 + random() / 2.0);
    *backoff = (*backoff * 2).min(BACKOFF_MAX);
    pause
}
