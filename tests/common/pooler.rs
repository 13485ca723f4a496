//! A proxy in front of a real server that behaves like a connection pooler: it does not forward `in_hot_standby`, and
//! can send errors of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{broadcast, mpsc},
};

/// A statement that contains this text gets the response of [`Pooler::answer`] instead of the server's.
pub const MARK: &str = "/* answered by the pooler */";

/// A running proxy. It ends with the runtime.
pub struct Pooler {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// The response to each startup packet, before the session ends.
    refusal: Mutex<Option<Vec<u8>>>,
    /// The response to a statement with [`MARK`], before the session ends.
    answer: Mutex<Vec<u8>>,
    /// Bytes that all sessions send before they end.
    end: broadcast::Sender<Vec<u8>>,
}

/// Returns an ErrorResponse as PgBouncer's function `send_pooler_error` encodes it: without the field `V`.
pub fn pooler_fatal(sqlstate: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0C{sqlstate}\0M{text}\0\0").as_bytes())
}

/// Returns a NoticeResponse as PgBouncer's macro `pktbuf_write_Notice` encodes it: without the field `V`.
pub fn pooler_notice(text: &str) -> Vec<u8> {
    message(b'N', format!("SNOTICE\0C00000\0M{text}\0\0").as_bytes())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("the length fits in u32");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

impl Pooler {
    /// Starts a proxy in front of a server. The proxy does not support TLS.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the port is bound");
        let address = listener.local_addr().expect("the socket has an address");
        let (refusal, answer) = (Mutex::new(None), Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { refusal, answer, end: broadcast::channel(16).0 });
        let sessions = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A session ends when either side closes its connection.
                tokio::spawn(serve(client, server, sessions.clone()));
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the response to each startup packet. `None`: forwards the packets to the server.
    pub fn refuse(&self, response: Option<Vec<u8>>) {
        *lock(&self.shared.refusal) = response;
    }

    /// Sets the response to statements with [`MARK`].
    pub fn answer(&self, response: Vec<u8>) {
        *lock(&self.shared.answer) = response;
    }

    /// Ends all sessions with these bytes. Returns the number of sessions.
    pub fn end_sessions(&self, last: Vec<u8>) -> usize {
        self.shared.end.send(last).unwrap_or(0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread has panicked")
}

/// Serves one client. An I/O error ends the session.
async fn serve(mut client: TcpStream, server: SocketAddr, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut request = vec![0; 65_536];
    let length = client.read(&mut request).await?;
    let refusal = lock(&shared.refusal).clone();
    if let Some(refusal) = refusal {
        return client.write_all(&refusal).await;
    }
    let mut end = shared.end.subscribe();
    let (from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    to_server.write_all(&request[..length]).await?;
    let (sender, mut responses) = mpsc::channel(16);
    tokio::spawn(read_responses(from_server, sender));
    loop {
        tokio::select! {
            response = responses.recv() => match response {
                Some(response) => client.write_all(&response).await?,
                None => return Ok(()),
            },
            read = client.read(&mut request) => {
                let request = &request[..read?];
                if request.is_empty() {
                    return Ok(());
                }
                if request.windows(MARK.len()).any(|part| part == MARK.as_bytes()) {
                    let answer = lock(&shared.answer).clone();
                    return client.write_all(&answer).await;
                }
                to_server.write_all(request).await?;
            }
            last = end.recv() => return client.write_all(&last.unwrap_or_default()).await,
        }
    }
}

/// Reads the server's messages, and drops `in_hot_standby`.
async fn read_responses(
    mut server: tokio::net::tcp::OwnedReadHalf,
    responses: mpsc::Sender<Vec<u8>>,
) -> std::io::Result<()> {
    loop {
        let kind = server.read_u8().await?;
        let mut body = vec![0; server.read_u32().await? as usize - 4];
        server.read_exact(&mut body).await?;
        let hidden = kind == b'S' && body.starts_with(b"in_hot_standby\0");
        if !hidden && responses.send(message(kind, &body)).await.is_err() {
            return Ok(());
        }
    }
}
