//! Tests of the simulated servers with tokio-postgres, over streams in memory and in paused time.

mod copy;
mod login;
mod protocol;
mod raw;
mod replication;
mod shutdown;
mod transactions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::io::DuplexStream;
use tokio_postgres::{
    AsyncMessage, Client, Config, Error, NoTls, SimpleQueryMessage,
    config::SslMode,
    error::{DbError, Severity as DriverSeverity},
};

use super::*;
use crate::spawn::{Task, TokioSpawn};

/// A network whose messages take 1 ms, and in which hosts, and pairs of hosts, can be disconnected: their messages wait
/// until the partition heals.
#[derive(Debug, Default)]
pub(crate) struct Network {
    cut: Mutex<BTreeSet<(String, String)>>,
    isolated: Mutex<BTreeSet<String>>,
    healed: tokio::sync::Notify,
}

impl Network {
    /// Disconnects two hosts, or connects them again.
    pub(crate) fn partition(&self, one: &str, other: &str, cut: bool) {
        let mut pairs = self.cut.lock().unwrap();
        for pair in [(one, other), (other, one)].map(|(from, to)| (from.to_owned(), to.to_owned())) {
            let _ = if cut { pairs.insert(pair) } else { pairs.remove(&pair) };
        }
        drop(pairs);
        self.healed.notify_waiters();
    }

    /// Disconnects a host from all others, or connects it again.
    pub(crate) fn isolate(&self, host: &str, isolated: bool) {
        let mut hosts = self.isolated.lock().unwrap();
        let _ = if isolated { hosts.insert(host.to_owned()) } else { hosts.remove(host) };
        drop(hosts);
        self.healed.notify_waiters();
    }

    fn connects(&self, from: &str, to: &str) -> bool {
        let isolated = self.isolated.lock().unwrap();
        let cut = self.cut.lock().unwrap().contains(&(from.to_owned(), to.to_owned()));
        !cut && !isolated.contains(from) && !isolated.contains(to)
    }
}

impl Links for Network {
    fn deliver<'a>(&'a self, from: &'a str, to: &'a str) -> Task<'a, bool> {
        Box::pin(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let healed = self.healed.notified();
                if self.connects(from, to) {
                    return true;
                }
                healed.await;
            }
        })
    }
}

/// A cluster without servers and its network.
fn cluster() -> (Arc<Cluster>, Arc<Network>) {
    let network = Arc::new(Network::default());
    let events = |host: &str, text: &str| {
        if std::env::var_os("TRACE").is_some() {
            println!("{host}: {text}");
        }
    };
    (Cluster::new(7_300_000_000_000_000_001, network.clone(), events), network)
}

/// Creates a server.
fn server(cluster: &Arc<Cluster>, name: &str) -> Arc<Server> {
    Server::new(name, cluster, TokioSpawn, Settings::default(), 1)
}

/// Creates a primary that runs.
async fn primary() -> Arc<Server> {
    let server = server(&cluster().0, "a");
    server.start();
    server.running().await;
    server
}

/// Creates a primary `a` and running standbys `b` and `c` that have received its whole log.
async fn group() -> (Vec<Arc<Server>>, Arc<Network>) {
    let (cluster, network) = cluster();
    let servers: Vec<_> = ["a", "b", "c"].iter().map(|name| server(&cluster, name)).collect();
    servers[0].start();
    servers[0].running().await;
    for standby in &servers[1..] {
        standby.base_backup("a").await.unwrap();
        standby.start();
        standby.running().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(servers[0].status().standbys.len(), 2);
    (servers, network)
}

/// Returns a stream to a server.
fn stream(server: &Arc<Server>) -> DuplexStream {
    let (client, peer) = tokio::io::duplex(65_536);
    let server = server.clone();
    tokio::spawn(async move { server.serve(peer, ([10, 0, 0, 1], 4711).into()).await });
    client
}

fn config() -> Config {
    let mut config = Config::new();
    config.user("app").dbname("app").ssl_mode(SslMode::Disable);
    config
}

/// A client and the messages that the server sends without a request.
struct Connected {
    client: Client,
    messages: Arc<Mutex<Vec<AsyncMessage>>>,
    connection: tokio::task::JoinHandle<(Option<Error>, Parameters)>,
}

/// The parameters that the server has reported, as far as tests use them.
type Parameters = BTreeMap<&'static str, String>;

const PARAMETERS: [&str; 7] = [
    "TimeZone",
    "default_transaction_read_only",
    "in_hot_standby",
    "scram_iterations",
    "search_path",
    "server_version",
    "session_authorization",
];

async fn connect_with(server: &Arc<Server>, config: &Config) -> Result<Connected, Error> {
    let (client, mut connection) = config.connect_raw(stream(server), NoTls).await?;
    let messages = Arc::new(Mutex::new(Vec::new()));
    let collected = messages.clone();
    let connection = tokio::spawn(async move {
        let error = loop {
            match std::future::poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(message)) => collected.lock().unwrap().push(message),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        // The connection is dropped now, which fails the pending requests of the client.
        let value = |name: &&'static str| Some((*name, connection.parameter(name)?.to_owned()));
        (error, PARAMETERS.iter().filter_map(value).collect())
    });
    Ok(Connected { client, messages, connection })
}

async fn connect(server: &Arc<Server>) -> Connected {
    connect_with(server, &config()).await.unwrap()
}

impl Connected {
    /// Returns the notices so far, by SQLSTATE.
    fn notices(&self) -> Vec<String> {
        let messages = self.messages.lock().unwrap();
        let notice = |message: &AsyncMessage| match message {
            AsyncMessage::Notice(notice) => Some(notice.code().code().to_owned()),
            _ => None,
        };
        messages.iter().filter_map(notice).collect()
    }

    /// Closes the client, and returns the parameters that the server has reported.
    async fn parameters(self) -> impl Fn(&str) -> Option<String> {
        drop(self.client);
        let parameters = self.connection.await.unwrap().1;
        move |name| parameters.get(name).cloned()
    }

    async fn insert(&self, id: i64) -> Result<u64, Error> {
        self.client.execute("INSERT INTO history (id) VALUES ($1)", &[&id]).await
    }

    async fn ids(&self) -> Vec<i64> {
        let rows = self.client.query("SELECT id FROM history ORDER BY id", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Returns the first column of the first row of a simple query.
    async fn value(&self, text: &str) -> Option<String> {
        let messages = self.client.simple_query(text).await.unwrap();
        messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    }
}

/// Returns the error of the database in an error of the driver.
fn db(error: &Error) -> &DbError {
    error.as_db_error().unwrap_or_else(|| panic!("expected an error of the database, got {error:?}"))
}

/// Returns the SQLSTATE of an error, and true if it is fatal.
fn code(error: &Error) -> (&str, bool) {
    let error = db(error);
    (error.code().code(), error.parsed_severity() == Some(DriverSeverity::Fatal))
}
