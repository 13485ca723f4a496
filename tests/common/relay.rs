//! Forwards connections, so that a server has a further address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Forwards the connections to one address to a server, until it is dropped.
pub struct Relay {
    pub address: SocketAddr,
    _connections: JoinSet<()>,
}

impl Relay {
    /// Listens on a free port of this address.
    pub async fn start(on: impl Into<IpAddr>, server: SocketAddr) -> Self {
        Self::start_at((on.into(), 0).into(), server).await.expect("an address of this machine")
    }

    /// Listens on this address. Fails if its port is in use.
    pub async fn start_at(on: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(on).await?;
        let address = listener.local_addr().expect("the socket has an address");
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Ok(Self { address, _connections: connections })
    }
}
