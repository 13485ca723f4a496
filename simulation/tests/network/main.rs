//! The simulated network: what TCP and UDP sockets do under loss, partitions, crashes and closed ports.

mod faults;
mod tcp;
mod udp;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use podpool::simulation::{Keepalive, TcpOptions};
use podpool_simulation::{
    network::{Link, TcpListener, TcpStream},
    world::{Host, World},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

/// A client and a server.
struct Pair {
    world: World,
    client: Host,
    server: Host,
}

impl Pair {
    fn new(world: World) -> Self {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let (client, server) = (world.host("client", &[address(1)]), world.host("server", &[address(2)]));
        Self { world, client, server }
    }

    fn address(&self) -> SocketAddr {
        ([10, 0, 0, 2], 5432).into()
    }

    fn set_links(&self, link: Link) {
        self.world.network().set_default_link(link);
    }

    fn set_partition(&self, blocked: bool) {
        self.world.network().set_partition(self.client.node(), self.server.node(), blocked);
    }

    /// Starts a server that returns every byte.
    fn start_echo(&self) {
        let listener = self.server.listen(self.address()).unwrap();
        let server = self.server.clone();
        self.server.run(async move { accept(listener, server).await });
    }

    async fn connect(&self, options: TcpOptions) -> TcpStream {
        self.client.connect(self.address(), options).await.unwrap()
    }
}

async fn accept(listener: TcpListener, server: Host) {
    while let Ok((mut stream, _)) = listener.accept().await {
        server.run(async move {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Sends a message and waits until it has come back. Returns the time that this took.
async fn echo(stream: &mut TcpStream, message: &[u8]) -> Duration {
    let start = Instant::now();
    stream.write_all(message).await.unwrap();
    let mut received = vec![0; message.len()];
    stream.read_exact(&mut received).await.unwrap();
    assert_eq!(received, message);
    start.elapsed()
}

/// The options that podpool uses by default.
fn podpool_options() -> TcpOptions {
    let second = Duration::from_secs(1);
    let keepalive = Keepalive { idle: 5 * second, interval: second, count: 3 };
    TcpOptions { local: None, user_timeout: 3 * second, keepalive: Some(keepalive) }
}

fn keepalive_only() -> TcpOptions {
    TcpOptions { user_timeout: Duration::ZERO, ..podpool_options() }
}
