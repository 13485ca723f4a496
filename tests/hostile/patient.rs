//! A server of the protocol's least: it lets in everybody after a while, up to a number, answers every question with
//! nothing, and counts.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::sleep,
};

use crate::server::{fatal, message, start_up};

/// What a server was asked for.
#[derive(Debug, Default)]
pub struct Counts {
    handshakes: AtomicUsize,
    /// Handshakes at once, at most.
    pub most: AtomicUsize,
    open: AtomicUsize,
    pub refused: AtomicUsize,
    /// Bare Syncs, on connections that ask nothing else.
    pub syncs: AtomicUsize,
    /// From here on nobody is answered.
    pub mute: AtomicBool,
    /// From here on nothing is read either.
    pub deaf: AtomicBool,
    /// How old the connections were that have gone.
    pub ages: Mutex<Vec<Duration>>,
}

impl Counts {
    pub fn forget(&self) {
        self.most.store(0, Ordering::SeqCst);
    }

    fn begin(&self) {
        let now = self.handshakes.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn end(&self) {
        self.handshakes.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The server. Dropping it closes everything.
pub struct Patient {
    address: SocketAddr,
    counts: Arc<Counts>,
    overall: Arc<Counts>,
    runtime: Option<Runtime>,
}

impl Patient {
    /// Takes so long for a handshake, and so many connections.
    pub async fn start(handshake: Duration, most: usize) -> Self {
        Self::start_among(Arc::default(), handshake, most).await
    }

    /// One of several, which are counted together as well.
    pub async fn start_among(overall: Arc<Counts>, handshake: Duration, most: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let counts = Arc::new(Counts::default());
        let listening = runtime.spawn(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listening.await.expect("a task").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let counting = [counts.clone(), overall.clone()];
        drop(runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counting = counting.clone();
                drop(tokio::spawn(async move { serve(stream, handshake, most, counting).await.ok() }));
            }
        }));
        Self { address, counts, overall, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    pub fn url(&self, more: &str) -> String {
        format!("postgres://user@{}/database?sslmode=disable&{more}", self.address)
    }

    pub fn overall(&self) -> Arc<Counts> {
        self.overall.clone()
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.runtime.take().expect("taken only here").shutdown_background();
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<u8> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await?;
    Ok(kind)
}

async fn serve(mut stream: TcpStream, handshake: Duration, most: usize, counting: [Arc<Counts>; 2]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let counts = &*counting[0];
    let length = stream.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await?;
    counting.iter().for_each(|counts| counts.begin());
    sleep(handshake).await;
    counting.iter().for_each(|counts| counts.end());
    if counts.open.fetch_add(1, Ordering::SeqCst) >= most {
        counts.open.fetch_sub(1, Ordering::SeqCst);
        counts.refused.fetch_add(1, Ordering::SeqCst);
        return stream.write_all(&fatal("53300", "sorry, too many clients already")).await;
    }
    let born = Instant::now();
    let ended = answer(&mut stream, counts).await;
    counts.open.fetch_sub(1, Ordering::SeqCst);
    counts.ages.lock().expect("no panic under the lock").push(born.elapsed());
    ended
}

async fn answer(stream: &mut TcpStream, counts: &Counts) -> io::Result<()> {
    stream.write_all(&start_up()).await?;
    let mut syncs = Some(0);
    loop {
        while counts.deaf.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(10)).await;
        }
        let kind = read_message(stream).await?;
        match kind {
            _ if counts.mute.load(Ordering::SeqCst) => {}
            b'S' => {
                if let Some(syncs) = &mut syncs {
                    *syncs += 1;
                    counts.syncs.fetch_add(1, Ordering::SeqCst);
                }
                stream.write_all(&message(b'Z', b"I")).await?;
            }
            b'Q' => {
                // A probe's: it asks this, too.
                counts.syncs.fetch_sub(syncs.take().unwrap_or_default(), Ordering::SeqCst);
                stream.write_all(&[message(b'C', b"SELECT 0\0"), message(b'Z', b"I")].concat()).await?;
            }
            b'X' => return Ok(()),
            _ => {}
        }
    }
}
