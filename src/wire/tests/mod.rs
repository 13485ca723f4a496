//! Tests of the tap and the driver with the real driver library, against a simulated server in the same process.

mod applied;
mod copy;
mod evidence;
mod gate;
mod login;
mod pipelined;
mod server;

use std::{collections::BTreeSet, sync::Arc};

use tokio::{
    io::{DuplexStream, duplex},
    task::JoinHandle,
};
use tokio_postgres::{Client, Config, config::SslMode, tls::ChannelBinding};

use self::server::{Fault, Session};
use super::{
    auth::Gate,
    connection_observer::{ConnectionObserver, Evidence},
    driver::Driver,
    record::{Record, RecordOwner},
    tap::Tap,
    tls::{Established, Io, TlsSession},
};
use crate::{
    config::Security,
    sync::{Mutex, lock},
};

impl Io for DuplexStream {
    fn tls(&self) -> Option<TlsSession> {
        None
    }

    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// A connection to a simulated server.
struct Connection {
    record: RecordOwner,
    client: Client,
    evidence: Arc<Mutex<Vec<Evidence>>>,
    driver: JoinHandle<()>,
    server: JoinHandle<BTreeSet<u32>>,
}

impl Connection {
    /// Connects to a server that writes pieces of this length and injects the fault after this number of messages.
    async fn open(piece: usize, fault: Fault, after: usize) -> Self {
        let (stream, server) = duplex(1 << 16);
        let server = tokio::spawn(Session::new(server, piece, fault, after).run());
        let record = Arc::new(Record::default());
        let evidence = Arc::new(Mutex::new(Vec::new()));
        let observer = {
            let evidence = evidence.clone();
            ConnectionObserver::new(move |observed| lock(&evidence).push(observed))
        };
        let tap =
            Tap::new(Box::new(stream), record.clone(), observer.clone(), Gate::new(None, Security::Default, None));
        let mut config = Config::new();
        config.user("user").ssl_mode(SslMode::Disable);
        let (client, connection) = config.connect_raw(tap, Established).await.expect("the startup succeeds");
        record.set_in_service();
        let driver = tokio::spawn(Driver::new(connection, record.clone(), observer));
        Self { record: RecordOwner::new(record), client, evidence, driver, server }
    }

    /// Returns true if the loss of the connection was reported.
    fn was_lost(&self) -> bool {
        lock(&self.evidence).iter().any(|evidence| matches!(evidence, Evidence::Lost { .. }))
    }

    /// Returns true if a FATAL error of the server itself was reported.
    fn server_ended(&self) -> bool {
        lock(&self.evidence).iter().any(|evidence| matches!(evidence, Evidence::Fatal(_)))
    }

    /// Closes the connection and returns the numbers that the server has committed.
    async fn close(self) -> BTreeSet<u32> {
        let Self { record, client, driver, server, .. } = self;
        drop((record, client));
        driver.await.expect("the driver ends");
        server.await.expect("the server ends")
    }
}
