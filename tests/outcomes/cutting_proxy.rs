//! A TCP proxy for a Pod that ends each connection after a number of protocol messages, so that a request or a response
//! is lost.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// First loopback address to try. The testkit and other tests use lower addresses.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 11, 1);
/// The connections end after up to this number of messages.
const MAX_MESSAGES: u32 = 400;

/// A running proxy. Dropping it closes the listener.
pub struct CuttingProxy {
    address: SocketAddr,
    accept_task: AbortHandle,
    /// Number of connections that the proxy has ended.
    pub cuts: Arc<AtomicU32>,
}

impl CuttingProxy {
    /// Starts a proxy on a free loopback address, with the same port as the Pod.
    pub async fn start(pod: SocketAddr) -> Self {
        let mut listener = None;
        for number in 0..100 {
            if let Ok(bound) = TcpListener::bind((Ipv4Addr::from_bits(FIRST.to_bits() + number), pod.port())).await {
                listener = Some(bound);
                break;
            }
        }
        let listener = listener.expect("a loopback address is free");
        let address = listener.local_addr().expect("the socket has an address");
        let cuts = Arc::new(AtomicU32::new(0));
        let accept_task = tokio::spawn({
            let cuts = cuts.clone();
            async move {
                for number in 1u32.. {
                    let (client, _) = listener.accept().await.expect("a connection is accepted");
                    let cuts = cuts.clone();
                    tokio::spawn(async move {
                        if forward(client, pod, number).await.is_ok() {
                            cuts.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            }
        });
        Self { address, accept_task: accept_task.abort_handle(), cuts }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.accept_task.abort();
    }
}

/// Forwards a connection. Returns `Ok` if it was cut. The number of the connection determines the direction, the number
/// of messages, and whether the connection is closed or reset.
async fn forward(client: TcpStream, pod: SocketAddr, number: u32) -> io::Result<()> {
    let server = TcpStream::connect(pod).await?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
        if number.is_multiple_of(2) {
            // With a linger time of zero, closing the socket sends RST.
            socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
        }
    }
    // Both directions see every number of messages in the course of the test.
    let limit = number.wrapping_mul(2_654_435_761) % MAX_MESSAGES;
    let (from_client, from_server) = if number % 4 < 3 { (u32::MAX, limit) } else { (limit, u32::MAX) };
    let ((mut client_read, mut client_write), (mut server_read, mut server_write)) =
        (client.into_split(), server.into_split());
    let up = async {
        let length = client_read.read_u32().await?;
        server_write.write_u32(length).await?;
        copy_exactly(&mut client_read, &mut server_write, length - 4).await?;
        messages(&mut client_read, &mut server_write, from_client).await
    };
    let down = messages(&mut server_read, &mut client_write, from_server);
    tokio::select! {
        result = up => result,
        result = down => result,
    }
}

/// Forwards this number of messages, not counting those of the startup and the login.
async fn messages(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut left: u32,
) -> io::Result<()> {
    loop {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await?;
        if !matches!(kind, b'R' | b'K' | b'p') {
            match left.checked_sub(1) {
                Some(less) => left = less,
                None => return Ok(()),
            }
        }
        to.write_all(&[&[kind][..], &length.to_be_bytes()].concat()).await?;
        copy_exactly(from, to, length - 4).await?;
    }
}

async fn copy_exactly(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    length: u32,
) -> io::Result<()> {
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body).await?;
    to.write_all(&body).await
}
