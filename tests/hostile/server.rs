//! A PostgreSQL server that misbehaves in one of many ways. Each server writes raw bytes and runs in its own
//! single-threaded runtime.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use rand::RngExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Runtime,
    time::sleep,
};

/// The behavior of a server on each connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behavior {
    /// No process listens on the port.
    RefusesConnections,
    /// The accept queue is full, so the kernel drops further SYNs.
    NeverAccepts,
    /// Accepts and closes the connection.
    Closes,
    /// Accepts and resets the connection.
    Resets,
    /// Accepts the connection and sends nothing.
    NeverResponds,
    /// Agrees to TLS, then sends nothing.
    StallsAfterTlsRequest,
    /// Agrees to TLS, then sends a part of its ServerHello.
    PartialServerHello,
    /// Requests SCRAM, then sends nothing.
    StallsAfterSaslRequest,
    /// Requests SCRAM, then sends a part of its first SASL message.
    PartialSaslMessage,
    /// Authenticates the client, but never sends a complete ReadyForQuery.
    PartialStartup,
    /// Completes the startup, but never responds to a query.
    StallsAfterStartup,
    /// Completes the startup, then closes the connection.
    ClosesAfterStartup,
    /// Sends a valid startup response, one byte every 200 ms.
    DripsStartup,
    /// Completes the startup, then sends each response one byte every 200 ms.
    DripsResponses,
    /// Sends random bytes.
    Garbage,
    /// Sends messages with valid headers and random bodies.
    GarbageBodies,
    /// Sends FATAL 57P03, "the database system is starting up".
    StartingUp,
    /// Sends FATAL 53300, "sorry, too many clients already".
    Full,
    /// Requests two billion SCRAM iterations.
    ManyScramRounds,
    /// Sends the header of a message of two gigabytes, then endless data.
    HugeMessage,
    /// Authenticates the client, then sends endless notices.
    EndlessNotices,
    /// Authenticates the client, then sends endless parameters.
    EndlessParameters,
    /// Completes the startup, then sends endless parameters.
    EndlessParametersAfterStartup,
    /// Completes the startup, then responds to each query with endless rows.
    EndlessRows,
    /// Completes the startup, then responds to each query with a row of two gigabytes.
    HugeRow,
}

/// A running server. Dropping it closes the listener and all connections.
pub struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
    /// Connections that fill the accept queue for [`Behavior::NeverAccepts`].
    _queued: Vec<TcpStream>,
}

/// Returns a PostgreSQL message of this type with this body.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(u32::try_from(body.len() + 4).expect("the length fits in u32").to_be_bytes());
    message.extend(body);
    message
}

/// Returns the header of a message with this type and length.
fn header(kind: u8, length: u32) -> Vec<u8> {
    [&[kind][..], &length.to_be_bytes()].concat()
}

/// Returns a FATAL ErrorResponse.
pub fn fatal(sqlstate: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0\0").as_bytes())
}

/// Returns a NoticeResponse of 6 kB.
fn notice() -> Vec<u8> {
    message(b'N', format!("SNOTICE\0VNOTICE\0C00000\0M{}\0\0", "again ".repeat(1000)).as_bytes())
}

/// Returns a ParameterStatus of 1 kB.
fn parameter(n: usize) -> Vec<u8> {
    message(b'S', format!("parameter_{n}\0{}\0", "x".repeat(1000)).as_bytes())
}

/// Returns a complete startup response: AuthenticationOk, some ParameterStatus, BackendKeyData and ReadyForQuery.
pub fn startup() -> Vec<u8> {
    let mut bytes = message(b'R', &0u32.to_be_bytes());
    for parameter in ["server_version\x0015.18\0", "in_hot_standby\0on\0", "client_encoding\0UTF8\0"] {
        bytes.extend(message(b'S', parameter.as_bytes()));
    }
    bytes.extend(message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
    bytes.extend(message(b'Z', b"I"));
    bytes
}

/// Returns AuthenticationSASL, which requests SCRAM.
fn sasl() -> Vec<u8> {
    message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")
}

impl Server {
    pub async fn start(behavior: Behavior) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("the runtime starts");
        let mut queued = Vec::new();
        let listening = runtime.spawn(async move {
            let socket = TcpSocket::new_v4().expect("the socket is created");
            socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("the socket binds");
            socket.listen(if behavior == Behavior::NeverAccepts { 1 } else { 1024 }).expect("the socket listens")
        });
        let listener = listening.await.expect("the listener binds");
        let address = listener.local_addr().expect("the socket has an address");
        match behavior {
            Behavior::RefusesConnections => drop(listener),
            Behavior::NeverAccepts => {
                // Connects until an attempt times out because the accept queue is full.
                let dial = || tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address));
                while let Ok(stream) = dial().await {
                    queued.push(stream.expect("a connection is accepted"));
                    assert!(queued.len() < 100, "the accept queue is not full after 100 connections");
                }
                drop(runtime.spawn(async move {
                    let _listener = listener;
                    std::future::pending::<()>().await;
                }));
            }
            _ => drop(runtime.spawn(accept(listener, behavior))),
        }
        Self { address, runtime: Some(runtime), _queued: queued }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a URL for this server with these parameters.
    pub fn url(&self, parameters: &str) -> String {
        format!("postgres://user:password@{}/database?{parameters}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().expect("the runtime is taken only in drop").shutdown_background();
    }
}

async fn accept(listener: TcpListener, behavior: Behavior) {
    while let Ok((stream, _)) = listener.accept().await {
        // An error means that the client has closed the connection.
        drop(tokio::spawn(async move { serve(stream, behavior).await.ok() }));
    }
}

/// Reads some bytes from the client. Returns an error at the end of the stream.
async fn read_some(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 65_536];
    match stream.read(&mut bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => {
            bytes.truncate(n);
            Ok(bytes)
        }
    }
}

/// Discards the client's data until the client closes the connection.
async fn read_until_closed(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        read_some(stream).await?;
    }
}

/// Writes one byte every 200 ms.
async fn drip(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn serve(mut stream: TcpStream, behavior: Behavior) -> io::Result<()> {
    let stream = &mut stream;
    stream.set_nodelay(true)?;
    match behavior {
        Behavior::RefusesConnections | Behavior::NeverAccepts => unreachable!("no connection is accepted"),
        Behavior::Closes => return Ok(()),
        Behavior::Resets => return socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)),
        Behavior::NeverResponds => return read_until_closed(stream).await,
        Behavior::Garbage => loop {
            let bytes: Vec<u8> = (0..4096).map(|_| rand::rng().random()).collect();
            stream.write_all(&bytes).await?;
        },
        _ => {}
    }
    let mut first = read_some(stream).await?;
    let tls = first.get(4..8) == Some(&80_877_103u32.to_be_bytes());
    if tls {
        match behavior {
            Behavior::StallsAfterTlsRequest => {
                stream.write_all(b"S").await?;
                return read_until_closed(stream).await;
            }
            Behavior::PartialServerHello => {
                stream.write_all(b"S").await?;
                read_some(stream).await?;
                // The first bytes of a handshake record of 122 bytes with a TLS 1.2 ServerHello (RFC 5246 section
                // 7.4.1.3).
                stream.write_all(&[22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3, 1, 2, 3, 4, 5]).await?;
                return read_until_closed(stream).await;
            }
            _ => {
                stream.write_all(b"N").await?;
                first = read_some(stream).await?;
            }
        }
    }
    drop(first);
    match behavior {
        Behavior::StallsAfterTlsRequest | Behavior::PartialServerHello => return read_until_closed(stream).await,
        Behavior::StallsAfterSaslRequest => stream.write_all(&sasl()).await?,
        Behavior::PartialSaslMessage => {
            stream.write_all(&sasl()).await?;
            read_some(stream).await?;
            let first = message(b'R', b"\0\0\0\x0br=0123456789,s=c2FsdA==,i=4096");
            stream.write_all(&first[..20]).await?;
        }
        Behavior::ManyScramRounds => {
            stream.write_all(&sasl()).await?;
            let client_first = String::from_utf8_lossy(&read_some(stream).await?).into_owned();
            let nonce = client_first.split("r=").nth(1).unwrap_or_default();
            let first = format!("\0\0\0\x0br={nonce}more,s=c2FsdA==,i=2000000000");
            stream.write_all(&message(b'R', first.as_bytes())).await?;
        }
        Behavior::PartialStartup => {
            let complete = startup();
            stream.write_all(&complete[..complete.len() - 3]).await?;
        }
        Behavior::DripsStartup => drip(stream, &startup()).await?,
        Behavior::GarbageBodies => {
            for kind in b"RSKZNEDTC123".iter().cycle() {
                let body: Vec<u8> = (0..200).map(|_| rand::rng().random()).collect();
                stream.write_all(&message(*kind, &body)).await?;
            }
        }
        Behavior::StartingUp => stream.write_all(&fatal("57P03", "the database system is starting up")).await?,
        Behavior::Full => stream.write_all(&fatal("53300", "sorry, too many clients already")).await?,
        Behavior::HugeMessage => {
            stream.write_all(&header(b'S', 2_000_000_000)).await?;
            loop {
                stream.write_all(&[b'x'; 65_536]).await?;
            }
        }
        Behavior::EndlessNotices => {
            stream.write_all(&message(b'R', &0u32.to_be_bytes())).await?;
            loop {
                stream.write_all(&notice()).await?;
            }
        }
        Behavior::EndlessParameters => {
            stream.write_all(&message(b'R', &0u32.to_be_bytes())).await?;
            for n in 0.. {
                stream.write_all(&parameter(n)).await?;
            }
        }
        _ => {
            stream.write_all(&startup()).await?;
            return answer(stream, behavior).await;
        }
    }
    if matches!(behavior, Behavior::StartingUp | Behavior::Full) {
        return Ok(());
    }
    read_until_closed(stream).await
}

/// Serves a connection after a complete startup.
async fn answer(stream: &mut TcpStream, behavior: Behavior) -> io::Result<()> {
    match behavior {
        Behavior::ClosesAfterStartup => return Ok(()),
        Behavior::EndlessParametersAfterStartup => {
            for n in 0.. {
                stream.write_all(&parameter(n)).await?;
            }
        }
        _ => {}
    }
    loop {
        read_some(stream).await?;
        match behavior {
            Behavior::DripsResponses => {
                drip(stream, &[message(b'C', b"SELECT 0\0"), message(b'Z', b"I")].concat()).await?
            }
            Behavior::EndlessRows => {
                let row = message(b'D', &[&[0, 1, 0, 0, 4, 0][..], &[b'x'; 1024]].concat());
                stream
                    .write_all(&message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"))
                    .await?;
                loop {
                    stream.write_all(&row).await?;
                }
            }
            Behavior::HugeRow => {
                stream.write_all(&header(b'D', 2_000_000_000)).await?;
                loop {
                    stream.write_all(&[b'x'; 65_536]).await?;
                }
            }
            _ => {}
        }
    }
}
