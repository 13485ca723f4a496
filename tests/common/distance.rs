//! A TCP proxy that makes a Pod appear farther away: it delays every response.

use std::{
    io::{Read, Write, copy},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// First loopback address to try. The testkit and other proxies use lower addresses.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 10, 1);

/// A running proxy. Dropping it closes the listener. Connections end with either of their peers.
pub struct Distance {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Distance {
    /// Starts a proxy on a free loopback address, with the same port as the Pod. The proxy uses threads, because the
    /// timers of Tokio are not precise enough for a delay of a millisecond.
    pub fn start(pod: SocketAddr, delay: Duration) -> Self {
        let addresses = (0..100).map(|number| Ipv4Addr::from_bits(FIRST.to_bits() + number));
        let bound = addresses.filter_map(|address| TcpListener::bind((address, pod.port())).ok()).next();
        let listener = bound.expect("a loopback address is free");
        let address = listener.local_addr().expect("the socket has an address");
        let stopped = Arc::new(AtomicBool::new(false));
        thread::spawn({
            let stopped = stopped.clone();
            move || {
                for client in listener.incoming() {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    forward(client.expect("a connection is accepted"), pod, delay);
                }
            }
        });
        Self { address, stopped }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the thread, which may have ended
    }
}

/// Forwards both directions of a connection in threads of their own.
fn forward(mut client: TcpStream, pod: SocketAddr, delay: Duration) {
    let Ok(mut server) = TcpStream::connect(pod) else { return };
    let clone = |stream: &TcpStream| {
        stream.set_nodelay(true).expect("the socket option is set");
        stream.try_clone().expect("the socket is cloned")
    };
    let (mut from_client, mut to_server) = (clone(&client), clone(&server));
    // An error ends a direction as the end of its stream does.
    thread::spawn(move || {
        let _ = copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    // Responses are read while earlier ones are delayed, like those on a long line.
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        while let Ok(read @ 1..) = server.read(&mut bytes) {
            if sender.send((Instant::now() + delay, bytes[..read].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (at, bytes) in receiver {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if client.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    });
}
