//! A server that requests one authentication method and records the bytes that it receives afterwards.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use podpool::BoxError;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::proxy::SSL_REQUEST;

/// The authentication that the server requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// The password in clear text.
    ClearText,
    /// The password in clear text without TLS. With TLS, the server rejects the login with this SQLSTATE.
    ClearTextOrReject(&'static str),
    /// The password hashed with MD5.
    Md5,
    /// None: the server accepts the login immediately.
    Nothing,
    /// SCRAM. The server accepts the login after this number of messages from the client, without a proof.
    UnprovenScram(usize),
}

/// The bytes that the server received on one connection after it had requested the authentication.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// True if the connection used TLS.
    pub(crate) encrypted: bool,
    /// The bodies of the authentication messages (type `p`).
    pub(crate) credentials: Vec<Vec<u8>>,
    /// Number of bytes of all messages.
    pub(crate) bytes: usize,
    /// True if the connection has ended, so that no further bytes can be received.
    pub(crate) ended: bool,
}

/// A running server. Dropping it closes the listener.
pub(crate) struct LoginServer {
    pub(crate) address: SocketAddr,
    tls: Arc<Mutex<Option<Arc<ServerConfig>>>>,
    received: Arc<Mutex<Vec<Received>>>,
    task: AbortHandle,
}

impl LoginServer {
    /// Starts a server, which offers TLS if `tls` contains a configuration.
    pub(crate) async fn start(request: Request, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the listener binds");
        let address = listener.local_addr().expect("the socket has an address");
        let (tls, received) = (Arc::new(Mutex::new(tls)), Arc::new(Mutex::new(Vec::new())));
        let (offered, recorded) = (tls.clone(), received.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let tls = offered.lock().expect("the lock is not poisoned").clone();
                let recorded = recorded.clone();
                // An error means that the client has closed the connection.
                tokio::spawn(async move { drop(serve(client, request, tls, &recorded).await) });
            }
        });
        Self { address, tls, received, task: task.abort_handle() }
    }

    /// Stops offering TLS to new connections.
    pub(crate) fn stop_tls(&self) {
        *self.tls.lock().expect("the lock is not poisoned") = None;
    }

    /// Returns the bytes of each connection on which the server has requested the authentication.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("the lock is not poisoned").clone()
    }
}

impl Drop for LoginServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    request: Request,
    tls: Option<Arc<ServerConfig>>,
    recorded: &Mutex<Vec<Received>>,
) -> Result<(), BoxError> {
    let mut start = startup_message(&mut client).await?;
    if start[..4] == SSL_REQUEST {
        client.write_u8(if tls.is_some() { b'S' } else { b'N' }).await?;
        if let Some(config) = tls {
            let mut client = TlsAcceptor::from(config).accept(client).await?;
            startup_message(&mut client).await?;
            return log_in(client, request, true, recorded).await;
        }
        start = startup_message(&mut client).await?;
    }
    drop(start);
    log_in(client, request, false, recorded).await
}

/// Reads a message without a type byte, and returns its body.
async fn startup_message(client: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, BoxError> {
    let length = client.read_u32().await?;
    let mut body = vec![0; length as usize - 4];
    client.read_exact(&mut body).await?;
    Ok(body)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("the message is short");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// Returns AuthenticationOk and the messages up to ReadyForQuery.
fn accepted() -> Vec<u8> {
    let messages =
        [(b'R', &[0; 4][..]), (b'S', b"in_hot_standby\0off\0"), (b'K', &[0, 0, 0, 1, 0, 0, 0, 2]), (b'Z', b"I")];
    messages.into_iter().flat_map(|(kind, body)| message(kind, body)).collect()
}

async fn log_in(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    request: Request,
    encrypted: bool,
    recorded: &Mutex<Vec<Received>>,
) -> Result<(), BoxError> {
    let index = {
        let mut recorded = recorded.lock().expect("the lock is not poisoned");
        recorded.push(Received { encrypted, ..Received::default() });
        recorded.len() - 1
    };
    client
        .write_all(&match request {
            Request::ClearTextOrReject(code) if encrypted => {
                message(b'E', format!("SFATAL\0VFATAL\0C{code}\0Mno pg_hba.conf entry\0\0").as_bytes())
            }
            Request::ClearText | Request::ClearTextOrReject(_) => message(b'R', &3u32.to_be_bytes()),
            Request::Md5 => message(b'R', b"\0\0\0\x05salt"),
            Request::Nothing => accepted(),
            Request::UnprovenScram(0) => [message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), accepted()].concat(),
            Request::UnprovenScram(_) => message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
        })
        .await?;
    let ended = respond(client, request, recorded, index).await;
    recorded.lock().expect("the lock is not poisoned")[index].ended = true;
    ended
}

/// Records the client's messages and responds to them until the connection ends.
async fn respond(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    request: Request,
    recorded: &Mutex<Vec<Received>>,
    index: usize,
) -> Result<(), BoxError> {
    let mut responses = 0;
    loop {
        let kind = client.read_u8().await?;
        recorded.lock().expect("the lock is not poisoned")[index].bytes += 1;
        let body = startup_message(&mut client).await?;
        {
            let received = &mut recorded.lock().expect("the lock is not poisoned")[index];
            received.bytes += 4 + body.len();
            if kind == b'p' {
                received.credentials.push(body.clone());
            }
        }
        match (kind, request) {
            (b'p', Request::UnprovenScram(messages)) => {
                responses += 1;
                if responses == messages {
                    client.write_all(&accepted()).await?;
                } else {
                    // The server's first message contains the client's nonce (RFC 5802, section 5.1).
                    let first = String::from_utf8_lossy(&body).into_owned();
                    let nonce = first.split("r=").nth(1).unwrap_or_default();
                    let first = format!("\0\0\0\x0br={nonce}more,s=c2FsdA==,i=4096");
                    client.write_all(&message(b'R', first.as_bytes())).await?;
                }
            }
            (b'p', _) => client.write_all(&accepted()).await?,
            (b'S', _) => client.write_all(&message(b'Z', b"I")).await?,
            _ => {}
        }
    }
}
