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

/// How long a TCP connection may be silent before the server closes it.
const TCP_IDLE: Duration = Duration::from_secs(30);

/// How many answers may wait on one TCP connection.
const TCP_BACKLOG: usize = 64;

/// The thread that owns the server's sockets. Dropping it closes them before it returns.
pub(super) struct Running {
    stop: Option<oneshot::Sender<()>>,
    stopped: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(super) async fn start(udp: UdpSocket, tcp: TcpListener, shared: Arc<Shared>) -> Result<Self, Error> {
        let failed = |source| Error::io("start the name server", source);
        let (stop, asked) = oneshot::channel();
        let (ready, started) = oneshot::channel();
        let (tell, stopped) = oneshot::channel();
        let serve = move || {
            if let Err(error) = serve(udp, tcp, shared, ready, asked) {
                warn!(%error, "the name server ended by itself");
            }
            // Nobody listens when the owner waits for the thread instead.
            let _ = tell.send(());
        };
        let thread = thread::Builder::new().name("podpool-testkit-dns".to_owned()).spawn(serve).map_err(failed)?;
        let running = Self { stop: Some(stop), stopped: Some(stopped), thread: Some(thread) };
        started.await.map_err(|gone| failed(io::Error::other(gone)))?;
        Ok(running)
    }

    pub(super) async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(stopped) = self.stopped.take() {
            // An error means that the thread has ended otherwise; joining it tells.
            let _ = stopped.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let thread = self.thread.take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!("the name server's thread panicked");
        }
    }
}

fn serve(
    udp: UdpSocket,
    tcp: TcpListener,
    shared: Arc<Shared>,
    ready: oneshot::Sender<()>,
    asked: oneshot::Receiver<()>,
) -> io::Result<()> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut server = Server::new(Handler(shared));
        server.register_socket(tokio::net::UdpSocket::from_std(udp)?);
        server.register_listener(tokio::net::TcpListener::from_std(tcp)?, TCP_IDLE, TCP_BACKLOG);
        // The owner may have given up already; then it has also asked to stop.
        let _ = ready.send(());
        tokio::select! {
            done = server.block_until_done() => done.map_err(io::Error::other),
            // Asked to stop, or the owner is gone: both mean the same.
            _ = asked => Ok(()),
        }
    })
}
