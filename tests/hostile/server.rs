//! A server that speaks raw bytes of PostgreSQL's protocol, or of none, in a thread and a runtime of its own.

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

/// What a server does with each connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// Nobody listens.
    Refuses,
    /// Takes no connection any more: its queue is full, so the kernel answers nothing.
    NeverAccepts,
    /// Accepts, and closes.
    Closes,
    /// Accepts, and resets.
    Resets,
    /// Accepts, and says nothing.
    Silent,
    /// Agrees to TLS, and says nothing more.
    TlsThenSilent,
    /// Agrees to TLS, and sends half a ServerHello.
    HalfServerHello,
    /// Asks for SCRAM, and says nothing more.
    ScramThenSilent,
    /// Asks for SCRAM, and sends half of its first message.
    HalfScram,
    /// Lets in, and never becomes ready.
    HalfStartup,
    /// Becomes ready, and never answers anything.
    ReadyThenSilent,
    /// Becomes ready, and closes.
    ReadyThenCloses,
    /// An orderly start-up, and orderly answers, of one byte each 200 ms.
    Drips,
    /// An orderly start-up; of every answer, one byte each 200 ms.
    AnswersDrip,
    /// Bytes at random.
    Garbage,
    /// An orderly header, and a body at random.
    GarbageBodies,
    /// FATAL 57P03, the database system is starting up.
    StartingUp,
    /// FATAL 53300, sorry, too many clients already.
    Full,
    /// SCRAM with two thousand million rounds.
    ManyRounds,
    /// A message of two gigabytes is announced, and sent.
    AnnouncesMuch,
    /// Lets in, and sends notices without end.
    EndlessNotices,
    /// Lets in, and tells parameters without end.
    EndlessParameters,
    /// Becomes ready, and then tells parameters without end.
    ReadyThenParameters,
    /// Becomes ready, and answers each question with rows without end.
    EndlessRows,
    /// Becomes ready, and answers each question with a row of two gigabytes.
    LargeRow,
}

/// The server. Dropping it closes everything.
pub struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
    /// What keeps the queue of `NeverAccepts` full.
    _queued: Vec<TcpStream>,
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(u32::try_from(body.len() + 4).expect("a length").to_be_bytes());
    message.extend(body);
    message
}

fn announce(kind: u8, length: u32) -> Vec<u8> {
    [&[kind][..], &length.to_be_bytes()].concat()
}

pub fn fatal(sqlstate: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0\0").as_bytes())
}

fn notice() -> Vec<u8> {
    message(b'N', format!("SNOTICE\0VNOTICE\0C00000\0M{}\0\0", "again ".repeat(1000)).as_bytes())
}

fn parameter(n: usize) -> Vec<u8> {
    message(b'S', format!("parameter_{n}\0{}\0", "x".repeat(1000)).as_bytes())
}

/// AuthenticationOk, a few parameters, BackendKeyData, ReadyForQuery.
pub fn start_up() -> Vec<u8> {
    let mut bytes = message(b'R', &0u32.to_be_bytes());
    for parameter in ["server_version\x0015.18\0", "in_hot_standby\0on\0", "client_encoding\0UTF8\0"] {
        bytes.extend(message(b'S', parameter.as_bytes()));
    }
    bytes.extend(message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
    bytes.extend(message(b'Z', b"I"));
    bytes
}

fn sasl() -> Vec<u8> {
    message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")
}

impl Server {
    pub async fn start(manner: Manner) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut queued = Vec::new();
        let listening = runtime.spawn(async move {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("an address");
            socket.listen(if manner == Manner::NeverAccepts { 1 } else { 1024 }).expect("to listen")
        });
        let listener = listening.await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        match manner {
            Manner::Refuses => drop(listener),
            Manner::NeverAccepts => {
                // Until one is not taken any more.
                let dial = || tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address));
                while let Ok(stream) = dial().await {
                    queued.push(stream.expect("a connection"));
                    assert!(queued.len() < 100, "the queue is never full");
                }
                drop(runtime.spawn(async move {
                    let _listener = listener;
                    std::future::pending::<()>().await;
                }));
            }
            _ => drop(runtime.spawn(accept(listener, manner))),
        }
        Self { address, runtime: Some(runtime), _queued: queued }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, more: &str) -> String {
        format!("postgres://user:password@{}/database?{more}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().expect("taken only here").shutdown_background();
    }
}

async fn accept(listener: TcpListener, manner: Manner) {
    while let Ok((stream, _)) = listener.accept().await {
        // However it ends; a client that has gone ends it.
        drop(tokio::spawn(async move { serve(stream, manner).await.ok() }));
    }
}

/// Waits for something from the client.
async fn heard(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 65_536];
    match stream.read(&mut bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => {
            bytes.truncate(n);
            Ok(bytes)
        }
    }
}

/// Until the client has gone.
async fn silence(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        heard(stream).await?;
    }
}

async fn drip(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn serve(mut stream: TcpStream, manner: Manner) -> io::Result<()> {
    let stream = &mut stream;
    stream.set_nodelay(true)?;
    match manner {
        Manner::Refuses | Manner::NeverAccepts => unreachable!("nothing is accepted"),
        Manner::Closes => return Ok(()),
        Manner::Resets => return socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)),
        Manner::Silent => return silence(stream).await,
        Manner::Garbage => loop {
            let bytes: Vec<u8> = (0..4096).map(|_| rand::rng().random()).collect();
            stream.write_all(&bytes).await?;
        },
        _ => {}
    }
    let mut first = heard(stream).await?;
    let tls = first.get(4..8) == Some(&80_877_103u32.to_be_bytes());
    if tls {
        match manner {
            Manner::TlsThenSilent => {
                stream.write_all(b"S").await?;
                return silence(stream).await;
            }
            Manner::HalfServerHello => {
                stream.write_all(b"S").await?;
                heard(stream).await?;
                // A record of a handshake of 122 bytes, a ServerHello of TLS 1.2, and its end never comes.
                stream.write_all(&[22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3, 1, 2, 3, 4, 5]).await?;
                return silence(stream).await;
            }
            _ => {
                stream.write_all(b"N").await?;
                first = heard(stream).await?;
            }
        }
    }
    drop(first);
    match manner {
        Manner::TlsThenSilent | Manner::HalfServerHello => return silence(stream).await,
        Manner::ScramThenSilent => stream.write_all(&sasl()).await?,
        Manner::HalfScram => {
            stream.write_all(&sasl()).await?;
            heard(stream).await?;
            let first = message(b'R', b"\0\0\0\x0br=0123456789,s=c2FsdA==,i=4096");
            stream.write_all(&first[..20]).await?;
        }
        Manner::ManyRounds => {
            stream.write_all(&sasl()).await?;
            let asked = String::from_utf8_lossy(&heard(stream).await?).into_owned();
            let nonce = asked.split("r=").nth(1).unwrap_or_default();
            let first = format!("\0\0\0\x0br={nonce}more,s=c2FsdA==,i=2000000000");
            stream.write_all(&message(b'R', first.as_bytes())).await?;
        }
        Manner::HalfStartup => {
            let all = start_up();
            stream.write_all(&all[..all.len() - 3]).await?;
        }
        Manner::Drips => drip(stream, &start_up()).await?,
        Manner::GarbageBodies => {
            for kind in b"RSKZNEDTC123".iter().cycle() {
                let body: Vec<u8> = (0..200).map(|_| rand::rng().random()).collect();
                stream.write_all(&message(*kind, &body)).await?;
            }
        }
        Manner::StartingUp => stream.write_all(&fatal("57P03", "the database system is starting up")).await?,
        Manner::Full => stream.write_all(&fatal("53300", "sorry, too many clients already")).await?,
        Manner::AnnouncesMuch => {
            stream.write_all(&announce(b'S', 2_000_000_000)).await?;
            loop {
                stream.write_all(&[b'x'; 65_536]).await?;
            }
        }
        Manner::EndlessNotices => {
            stream.write_all(&message(b'R', &0u32.to_be_bytes())).await?;
            loop {
                stream.write_all(&notice()).await?;
            }
        }
        Manner::EndlessParameters => {
            stream.write_all(&message(b'R', &0u32.to_be_bytes())).await?;
            for n in 0.. {
                stream.write_all(&parameter(n)).await?;
            }
        }
        _ => {
            stream.write_all(&start_up()).await?;
            return answer(stream, manner).await;
        }
    }
    if matches!(manner, Manner::StartingUp | Manner::Full) {
        return Ok(());
    }
    silence(stream).await
}

/// After an orderly start-up.
async fn answer(stream: &mut TcpStream, manner: Manner) -> io::Result<()> {
    match manner {
        Manner::ReadyThenCloses => return Ok(()),
        Manner::ReadyThenParameters => {
            for n in 0.. {
                stream.write_all(&parameter(n)).await?;
            }
        }
        _ => {}
    }
    loop {
        heard(stream).await?;
        match manner {
            Manner::AnswersDrip => drip(stream, &[message(b'C', b"SELECT 0\0"), message(b'Z', b"I")].concat()).await?,
            Manner::EndlessRows => {
                let row = message(b'D', &[&[0, 1, 0, 0, 4, 0][..], &[b'x'; 1024]].concat());
                stream
                    .write_all(&message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"))
                    .await?;
                loop {
                    stream.write_all(&row).await?;
                }
            }
            Manner::LargeRow => {
                stream.write_all(&announce(b'D', 2_000_000_000)).await?;
                loop {
                    stream.write_all(&[b'x'; 65_536]).await?;
                }
            }
            _ => {}
        }
    }
}
