//! The thread that runs the DNS server.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use hickory_server::Server;
use tokio::{runtime, sync::oneshot};
use tracing::warn;

use super::handler::{Handler, Shared};
use crate::testkit::Error;

/// Idle time after which the server closes a TCP connection.
const TCP_IDLE: Duration = Duration::from_secs(30);

/// Maximum number of responses queued for one TCP connection.
const TCP_BACKLOG: usize = 64;

/// A thread with its own runtime that owns the server's sockets. Dropping it closes the sockets and joins the thread.
pub(super) struct ServerThread {
    /// The sender whose drop stops the thread.
    stop: Option<oneshot::Sender<()>>,
    stopped: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ServerThread {
    /// Starts the thread and returns when the thread serves the sockets.
    pub(super) async fn start(udp: UdpSocket, tcp: TcpListener, shared: Arc<Shared>) -> Result<Self, Error> {
        let failed = |source| Error::io("start the DNS server", source);
        let (stop, stop_requested) = oneshot::channel();
        let (ready, started) = oneshot::channel();
        let (notify_stopped, stopped) = oneshot::channel();
        let serve = move || {
            if let Err(error) = serve(udp, tcp, shared, ready, stop_requested) {
                warn!(%error, "DNS server stopped unexpectedly");
            }
            // Sending fails while the `ServerThread` is being dropped. `Drop` joins the thread and does not need the
            // message.
            let _ = notify_stopped.send(());
        };
        let thread = thread::Builder::new().name("podpool-testkit-dns".to_owned()).spawn(serve).map_err(failed)?;
        let server = Self { stop: Some(stop), stopped: Some(stopped), thread: Some(thread) };
        started.await.map_err(|gone| failed(io::Error::other(gone)))?;
        Ok(server)
    }

    /// Stops the server and waits, without blocking the runtime, until its sockets are closed.
    pub(super) async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(stopped) = self.stopped.take() {
            // An error means that the thread panicked. `Drop` joins the thread and logs the panic.
            let _ = stopped.await;
        }
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        let thread = self.thread.take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!("DNS server thread panicked");
        }
    }
}

fn serve(
    udp: UdpSocket,
    tcp: TcpListener,
    shared: Arc<Shared>,
    ready: oneshot::Sender<()>,
    stop_requested: oneshot::Receiver<()>,
) -> io::Result<()> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut server = Server::new(Handler(shared));
        server.register_socket(tokio::net::UdpSocket::from_std(udp)?);
        server.register_listener(tokio::net::TcpListener::from_std(tcp)?, TCP_IDLE, TCP_BACKLOG);
        // Sending fails if the future of `start` was dropped. That also drops the sender of `stop_requested`, so the
        // thread stops.
        let _ = ready.send(());
        tokio::select! {
            done = server.block_until_done() => done.map_err(io::Error::other),
            // The sender never sends a value. `ServerThread::stop` and the drop of a `ServerThread` stop the thread by
            // dropping the sender.
            _ = stop_requested => Ok(()),
        }
    })
}
