//! A minimal PostgreSQL server that counts handshakes and connections. Each handshake takes a given time and needs no
//! password, the number of connections is limited, and every query returns an empty result.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::Notify,
    time::sleep,
};

use crate::server::{fatal, message, startup};

/// Counters of a server, and switches that make it unresponsive.
#[derive(Debug, Default)]
pub struct Counts {
    /// Number of handshakes in progress.
    handshakes: AtomicUsize,
    /// Maximum number of concurrent handshakes.
    pub max_handshakes: AtomicUsize,
    open: AtomicUsize,
    /// Number of clients refused because of the connection limit.
    pub refused: AtomicUsize,
    /// Number of Sync messages that no simple query follows. These messages are the pool's pings, because a probe also
    /// sends a simple query.
    pub syncs: AtomicUsize,
    /// If set, the server reads messages but does not respond.
    pub unresponsive: AtomicBool,
    /// If set, the server does not even read messages.
    pub stops_reading: AtomicBool,
    /// Lifetimes of the closed connections.
    pub ages: Mutex<Vec<Duration>>,
    /// Number of upcoming connections that the server closes without a response.
    pub refuse_next: AtomicUsize,
    /// If set, the server closes all open connections, and closes new connections without a response.
    down: AtomicBool,
    went_down: Notify,
    /// Times of the connection attempts.
    pub attempts: Mutex<Vec<Instant>>,
    /// Time of the last refusal because of `refuse_next`.
    pub last_refusal: Mutex<Option<Instant>>,
}

impl Counts {
    /// Resets the maximum number of concurrent handshakes.
    pub fn reset_max_handshakes(&self) {
        self.max_handshakes.store(0, Ordering::SeqCst);
    }

    /// Closes all open connections. From now on, new connections are closed without a response.
    pub fn take_down(&self) {
        self.down.store(true, Ordering::SeqCst);
        self.went_down.notify_waiters();
    }

    /// Waits until the server is taken down.
    async fn goes_down(&self) {
        let mut went_down = pin!(self.went_down.notified());
        // Registers for the notification before the check, so that none is missed.
        went_down.as_mut().enable();
        if !self.down.load(Ordering::SeqCst) {
            went_down.await;
        }
    }

    fn begin_handshake(&self) {
        let now = self.handshakes.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_handshakes.fetch_max(now, Ordering::SeqCst);
    }

    fn end_handshake(&self) {
        self.handshakes.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A running server. Dropping it, and all servers in the same thread, closes its listener and its connections.
pub struct CountingServer {
    address: SocketAddr,
    counts: Arc<Counts>,
    runtime: Option<Arc<Runtime>>,
}

impl CountingServer {
    /// Starts a server whose handshakes take `handshake` and that accepts up to `limit` connections.
    pub async fn start(handshake: Duration, limit: usize) -> Self {
        Self::start_among(Arc::default(), handshake, limit).await
    }

    /// Starts one of several servers that share `overall`, which counts the handshakes of all these servers.
    pub async fn start_among(overall: Arc<Counts>, handshake: Duration, limit: usize) -> Self {
        Self::start_on(runtime(), overall, handshake, limit).await
    }

    /// Starts this number of servers in one thread. `overall` counts the handshakes of all these servers.
    pub async fn start_many(number: usize, overall: &Arc<Counts>, handshake: Duration) -> Vec<Self> {
        let runtime = runtime();
        let start = |_| Self::start_on(runtime.clone(), overall.clone(), handshake, usize::MAX);
        join_all((0..number).map(start)).await
    }

    async fn start_on(runtime: Arc<Runtime>, overall: Arc<Counts>, handshake: Duration, limit: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let listening = runtime.spawn(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listening.await.expect("the task does not panic").expect("the listener binds");
        let address = listener.local_addr().expect("the socket has an address");
        let counting = [counts.clone(), overall];
        drop(runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counting = counting.clone();
                drop(tokio::spawn(async move { serve(stream, handshake, limit, counting).await.ok() }));
            }
        }));
        Self { address, counts, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the counts of this server.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Returns a URL for this server with these parameters.
    pub fn url(&self, parameters: &str) -> String {
        format!("postgres://user@{}/database?sslmode=disable&{parameters}", self.address)
    }
}

impl Drop for CountingServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take().and_then(Arc::into_inner) {
            runtime.shutdown_background();
        }
    }
}

/// Starts a runtime with one thread.
fn runtime() -> Arc<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    Arc::new(runtime.expect("the runtime starts"))
}

/// Reads a message and returns its type.
async fn read_message(stream: &mut TcpStream) -> io::Result<u8> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await?;
    Ok(kind)
}

async fn serve(mut stream: TcpStream, handshake: Duration, limit: usize, counting: [Arc<Counts>; 2]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let counts = &*counting[0];
    counts.attempts.lock().expect("the lock is not poisoned").push(Instant::now());
    let refuse = |left: usize| left.checked_sub(1);
    if counts.down.load(Ordering::SeqCst) {
        return Ok(());
    }
    if counts.refuse_next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok() {
        *counts.last_refusal.lock().expect("the lock is not poisoned") = Some(Instant::now());
        return Ok(());
    }
    let length = stream.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await?;
    counting.iter().for_each(|counts| counts.begin_handshake());
    sleep(handshake).await;
    counting.iter().for_each(|counts| counts.end_handshake());
    if counts.open.fetch_add(1, Ordering::SeqCst) >= limit {
        counts.open.fetch_sub(1, Ordering::SeqCst);
        counts.refused.fetch_add(1, Ordering::SeqCst);
        return stream.write_all(&fatal("53300", "sorry, too many clients already")).await;
    }
    let opened = Instant::now();
    let ended = answer(&mut stream, counts).await;
    counts.open.fetch_sub(1, Ordering::SeqCst);
    counts.ages.lock().expect("the lock is not poisoned").push(opened.elapsed());
    ended
}

async fn answer(stream: &mut TcpStream, counts: &Counts) -> io::Result<()> {
    stream.write_all(&startup()).await?;
    // True if the last message was a Sync.
    let mut synced = false;
    loop {
        // A message may arrive after the server was told to stop reading, so `stops_reading` is read after that. At the
        // end of the stream, `peek` returns immediately too.
        let mut first = [0];
        tokio::select! {
            arrived = stream.peek(&mut first) => {
                arrived?;
            }
            () = counts.goes_down() => return Ok(()),
        }
        if counts.stops_reading.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        let kind = tokio::select! {
            kind = read_message(stream) => kind?,
            () = counts.goes_down() => return Ok(()),
        };
        match kind {
            _ if counts.unresponsive.load(Ordering::SeqCst) => {}
            b'S' => {
                synced = true;
                counts.syncs.fetch_add(1, Ordering::SeqCst);
                stream.write_all(&message(b'Z', b"I")).await?;
            }
            b'Q' => {
                // In the test that reads `syncs`, only probes send simple queries, each after a Sync that is no ping.
                counts.syncs.fetch_sub(usize::from(std::mem::take(&mut synced)), Ordering::SeqCst);
                stream.write_all(&[message(b'C', b"SELECT 0\0"), message(b'Z', b"I")].concat()).await?;
            }
            b'X' => return Ok(()),
            _ => {}
        }
    }
}
