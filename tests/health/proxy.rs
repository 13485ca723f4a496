//! A proxy in front of a Pod that can reset every connection it carries.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// The first address that is tried: the testkit's are below.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 1);

/// The proxy. Dropping it closes everything.
pub struct Proxy {
    address: SocketAddr,
    accepting: AbortHandle,
    carried: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Proxy {
    /// Listens on an address of its own and the Pod's port.
    pub async fn start(pod: SocketAddr) -> Self {
        let mut listener = None;
        for number in 0..100 {
            let address = Ipv4Addr::from_bits(FIRST.to_bits() + number);
            if let Ok(bound) = TcpListener::bind((address, pod.port())).await {
                listener = Some(bound);
                break;
            }
        }
        let listener = listener.expect("an address for the proxy");
        let address = listener.local_addr().expect("an address");
        let carried = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn({
            let carried: Arc<Mutex<Vec<AbortHandle>>> = carried.clone();
            async move {
                loop {
                    let (client, _) = listener.accept().await.expect("a connection");
                    let task = tokio::spawn(carry(client, pod)).abort_handle();
                    let mut carried = carried.lock().unwrap();
                    carried.retain(|task| !task.is_finished());
                    carried.push(task);
                }
            }
        });
        Self { address, accepting: accepting.abort_handle(), carried }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection. Gives how many there were; new ones are carried on.
    pub fn reset(&self) -> usize {
        let carried = std::mem::take(&mut *self.carried.lock().unwrap());
        let live = carried.iter().filter(|task| !task.is_finished()).count();
        carried.iter().for_each(AbortHandle::abort);
        live
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

async fn carry(mut client: TcpStream, pod: SocketAddr) {
    // With no time to linger, a socket that is closed sends RST.
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket option");
    client.set_nodelay(true).expect("a socket option");
    let Ok(mut server) = TcpStream::connect(pod).await else { return };
    server.set_nodelay(true).expect("a socket option");
    // However it ends, both sides end.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
