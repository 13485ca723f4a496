//! A TCP proxy for a Pod, which can reset all connections through it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// First loopback address to try. The testkit uses lower addresses.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 1);

/// A running proxy. Dropping it closes the listener and resets all connections.
pub struct Proxy {
    address: SocketAddr,
    accept_task: AbortHandle,
    forward_tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Proxy {
    /// Starts a proxy on a free loopback address, with the same port as the Pod.
    pub async fn start(pod: SocketAddr) -> Self {
        let mut listener = None;
        for number in 0..100 {
            let address = Ipv4Addr::from_bits(FIRST.to_bits() + number);
            if let Ok(bound) = TcpListener::bind((address, pod.port())).await {
                listener = Some(bound);
                break;
            }
        }
        let listener = listener.expect("a loopback address is free");
        let address = listener.local_addr().expect("the socket has an address");
        let forward_tasks = Arc::new(Mutex::new(Vec::new()));
        let accept_task = tokio::spawn({
            let forward_tasks: Arc<Mutex<Vec<AbortHandle>>> = forward_tasks.clone();
            async move {
                loop {
                    let (client, _) = listener.accept().await.expect("a connection is accepted");
                    let task = tokio::spawn(forward(client, pod)).abort_handle();
                    let mut forward_tasks = forward_tasks.lock().unwrap();
                    forward_tasks.retain(|task| !task.is_finished());
                    forward_tasks.push(task);
                }
            }
        });
        Self { address, accept_task: accept_task.abort_handle(), forward_tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets all open connections and returns their number. The proxy still accepts new connections.
    pub fn reset(&self) -> usize {
        let tasks = std::mem::take(&mut *self.forward_tasks.lock().unwrap());
        let open = tasks.iter().filter(|task| !task.is_finished()).count();
        tasks.iter().for_each(AbortHandle::abort);
        open
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept_task.abort();
        self.reset();
    }
}

async fn forward(mut client: TcpStream, pod: SocketAddr) {
    // With a linger time of zero, closing the socket sends RST.
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("the socket option is set");
    client.set_nodelay(true).expect("the socket option is set");
    let Ok(mut server) = TcpStream::connect(pod).await else { return };
    server.set_nodelay(true).expect("the socket option is set");
    // Both sockets are closed when this returns, so an error needs no handling.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
