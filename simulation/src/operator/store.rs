//! The store in which operators keep their decisions: etcd, or the API server of Kubernetes.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::{postgres::Links, signal::Signal, spawn::Task};

/// The store did not respond in time. A write may have been applied nevertheless.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store did not respond in time")
    }
}

impl std::error::Error for Unavailable {}

/// The lease of the leader.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The name of the leader.
    pub holder: String,
    /// The time at which the lease expires.
    pub expires: Instant,
}

/// The members that have all acknowledged commits (Patroni's sync key).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SynchronousState {
    /// The leader that wrote the state.
    pub leader: Option<String>,
    /// The standbys that have confirmed every acknowledged commit.
    pub standbys: Vec<String>,
}

/// The content of the store.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Content {
    /// The lease of Patroni's leader.
    pub leader: Option<Lease>,
    /// The synchronous standbys of Patroni's leader.
    pub synchronous: SynchronousState,
    /// A requested switchover, with the name of the next leader, or with an empty name for any.
    pub switchover: Option<String>,
    /// True while Patroni must not change leaders.
    pub paused: bool,
    /// The end of the leader's log, for Patroni's limit on the lag of the next leader.
    pub position: u64,
    /// The instance that CloudNativePG wants to be the primary. `None` while it waits for the end of the old one.
    pub target_primary: Option<String>,
    /// The instance that is the primary according to its instance manager.
    pub current_primary: Option<String>,
}

/// A version of the content.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Document {
    /// Incremented with every write.
    pub version: u64,
    /// Incremented with every write that is not only a renewal.
    pub epoch: u64,
    /// The content. An expired lease is removed.
    pub content: Content,
}

/// A store with one document, which is replaced if its version is the expected one.
pub trait Store: Send + Sync {
    /// Reads the document from the host `from`.
    fn read<'a>(&'a self, from: &'a str) -> Task<'a, Result<Document, Unavailable>>;

    /// Replaces the content if the version is still `version`. Returns false if it is not.
    fn write<'a>(&'a self, from: &'a str, version: u64, content: Content) -> Task<'a, Result<bool, Unavailable>>;

    /// Waits until a document of a later epoch exists, or until the lease of `seen` expires, and the host `from` has
    /// been notified.
    fn changed<'a>(&'a self, from: &'a str, seen: &'a Document) -> Task<'a>;
}

/// A store in memory, on a host of its own.
pub struct MemoryStore {
    host: String,
    links: Arc<dyn Links>,
    timeout: Duration,
    state: Mutex<State>,
    epochs: Signal,
}

#[derive(Debug, Default)]
struct State {
    document: Document,
    outage: bool,
}

impl MemoryStore {
    /// Creates an empty store on the host `host`, whose clients wait up to `timeout` for a response.
    pub fn new(host: impl Into<String>, links: Arc<dyn Links>, timeout: Duration) -> Arc<Self> {
        let (state, epochs) = (Mutex::default(), Signal::default());
        Arc::new(Self { host: host.into(), links, timeout, state, epochs })
    }

    /// Makes the store fail for all clients, or ends this fault.
    pub fn set_outage(&self, outage: bool) {
        self.lock().outage = outage;
    }

    /// Returns the document without the network, for tests and checks.
    #[must_use]
    pub fn peek(&self) -> Document {
        self.current()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the document without an expired lease.
    fn current(&self) -> Document {
        let mut document = self.lock().document.clone();
        let now = Instant::now();
        document.content.leader = document.content.leader.filter(|lease| lease.expires > now);
        document
    }

    /// Performs a request within the timeout.
    async fn request<T>(&self, from: &str, apply: impl FnOnce(&Self) -> T) -> Result<T, Unavailable> {
        let exchange = async {
            if !self.links.deliver(from, &self.host).await || self.lock().outage {
                return None;
            }
            let result = apply(self);
            self.links.deliver(&self.host, from).await.then_some(result)
        };
        let deadline = Instant::now() + self.timeout;
        if let Ok(Some(result)) = timeout(self.timeout, exchange).await {
            return Ok(result);
        }
        // The client retries until its deadline; only the last failure matters.
        sleep_until(deadline).await;
        Err(Unavailable)
    }

    fn replace(&self, version: u64, content: Content) -> bool {
        let current = self.current();
        if current.version != version {
            return false;
        }
        let essential = |content: &Content| {
            let mut content = content.clone();
            content.position = 0;
            content.leader = content.leader.map(|lease| Lease { expires: Instant::now(), ..lease });
            content
        };
        let changed = essential(&current.content) != essential(&content);
        let epoch = current.epoch + u64::from(changed);
        self.lock().document = Document { version: version + 1, epoch, content };
        if changed {
            self.epochs.raise();
        }
        true
    }
}

impl Store for MemoryStore {
    fn read<'a>(&'a self, from: &'a str) -> Task<'a, Result<Document, Unavailable>> {
        Box::pin(self.request(from, Self::current))
    }

    fn write<'a>(&'a self, from: &'a str, version: u64, content: Content) -> Task<'a, Result<bool, Unavailable>> {
        Box::pin(self.request(from, move |store| store.replace(version, content)))
    }

    fn changed<'a>(&'a self, from: &'a str, seen: &'a Document) -> Task<'a> {
        Box::pin(async move {
            loop {
                let count = self.epochs.count();
                let current = self.current();
                if current.epoch != seen.epoch || current.content.leader.is_none() != seen.content.leader.is_none() {
                    break;
                }
                // A renewal replaces the lease without a new epoch, so the wait is repeated after it has expired.
                match current.content.leader {
                    Some(lease) => drop(timeout_at(lease.expires, self.epochs.changed(count)).await),
                    None => drop(self.epochs.changed(count).await),
                }
            }
            self.links.deliver(&self.host, from).await;
        })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("host", &self.host).finish_non_exhaustive()
    }
}
