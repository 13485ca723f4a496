//! An open-loop load on the microservice: 150 requests per second, of which one third are writes, one third reads of
//! any Pod, and one third reads of a standby.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use crate::{cluster::MICROSERVICE, http::Connection, kubelet::Node, timeline::Timeline};

/// Interval between two requests.
const PACE: Duration = Duration::from_micros(6_667);

/// The kind of a request.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Write,
    Any,
    Standby,
}

const KINDS: [Kind; 3] = [Kind::Write, Kind::Any, Kind::Standby];

/// The record of one request.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// The id of the row that a write inserts.
    pub(crate) id: String,
    pub(crate) done: Instant,
    pub(crate) outcome: Outcome,
}

/// The response to a request.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The microservice returned 200, with the name of the Pod and its role.
    Served { pod: String, in_recovery: Option<bool> },
    /// The microservice returned an error. `unknown`: the write may have been applied.
    Failed { text: String, unknown: bool },
    /// There was no response.
    Broken(String),
}

impl Record {
    pub(crate) fn is_served(&self) -> bool {
        matches!(self.outcome, Outcome::Served { .. })
    }
}

/// A running load.
pub(crate) struct Load {
    records: Arc<Mutex<Vec<Record>>>,
    begun: Instant,
    task: JoinHandle<JoinSet<()>>,
    stop: Arc<tokio::sync::Notify>,
}

/// Idle connections to the microservice's Pods.
type Idle = Arc<Mutex<HashMap<SocketAddr, Vec<Connection>>>>;

impl Load {
    /// Starts a load on the microservice's Pods in turn. `timeline` gets the pool's events.
    pub(crate) fn start(node: Arc<Node>, timeline: Timeline) -> Self {
        let records: Arc<Mutex<Vec<Record>>> = Arc::default();
        let stop = Arc::new(tokio::sync::Notify::new());
        let task = tokio::spawn({
            let (records, stop) = (records.clone(), stop.clone());
            async move {
                let (idle, mut followed, mut streams) = (Idle::default(), HashSet::new(), JoinSet::new());
                let mut ticks = interval(PACE);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut requests = JoinSet::new();
                for number in 0_usize.. {
                    tokio::select! {
                        () = stop.notified() => break,
                        _ = ticks.tick() => {}
                    }
                    let pods = node.started(MICROSERVICE);
                    for (name, address) in &pods {
                        let address = SocketAddr::from((*address, 8080));
                        if followed.insert(address) {
                            streams.spawn(follow(name.clone(), address, timeline.clone()));
                        }
                    }
                    // Each kind of request goes to each Pod.
                    let Some((_, address)) = pods.get(number / KINDS.len() % pods.len().max(1)) else { continue };
                    let address = SocketAddr::from((*address, 8080));
                    let (kind, records, idle) = (KINDS[number % KINDS.len()], records.clone(), idle.clone());
                    requests.spawn(async move {
                        let record = request(kind, number.to_string(), address, idle).await;
                        records.lock().unwrap().push(record);
                    });
                    while requests.try_join_next().is_some() {}
                }
                requests
            }
        });
        Self { records, begun: Instant::now(), task, stop }
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Returns true if a request of each kind has succeeded.
    pub(crate) fn all_served(&self) -> bool {
        let records = self.records.lock().unwrap();
        KINDS.iter().all(|kind| records.iter().any(|record| record.kind == *kind && record.is_served()))
    }

    /// Stops the load, waits for the requests in flight, and returns all requests in the order of their completion.
    pub(crate) async fn stop(self) -> Vec<Record> {
        self.stop.notify_one();
        self.task.await.expect("the load does not panic").join_all().await;
        let mut records = std::mem::take(&mut *self.records.lock().unwrap());
        records.sort_by_key(|record| record.done);
        records
    }
}

/// Sends a request.
async fn request(kind: Kind, id: String, address: SocketAddr, idle: Idle) -> Record {
    let (method, path, body) = match kind {
        Kind::Write => ("POST", "/write", json!({ "id": id, "run": "load" }).to_string()),
        Kind::Any => ("GET", "/query?target=any", String::new()),
        Kind::Standby => ("GET", "/query?target=standby", String::new()),
    };
    let exchange = async {
        let reused = idle.lock().unwrap().get_mut(&address).and_then(Vec::pop);
        let mut connection = match reused {
            Some(connection) => connection,
            None => Connection::open(address).await?,
        };
        let (head, body) = connection.request(method, path, &body).await?;
        idle.lock().unwrap().entry(address).or_default().push(connection);
        Ok::<_, std::io::Error>((head.status, body))
    };
    let outcome = match exchange.await {
        Ok((status, body)) => outcome(status, &serde_json::from_str(&body).unwrap_or(Value::Null)),
        Err(error) => Outcome::Broken(error.to_string()),
    };
    Record { kind, id, done: Instant::now(), outcome }
}

fn outcome(status: u16, body: &Value) -> Outcome {
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    match status {
        200 => Outcome::Served { pod: text("pod"), in_recovery: body["in_recovery"].as_bool() },
        503 => Outcome::Failed {
            text: format!("{}: {}", text("kind"), text("error")),
            unknown: text("applied") == "unknown",
        },
        status => Outcome::Broken(format!("status {status}: {body}")),
    }
}

/// Adds the events of a Pod's pool to the timeline.
async fn follow(name: String, address: SocketAddr, timeline: Timeline) {
    let events = async {
        let mut connection = Connection::open(address).await?;
        connection.send("GET", "/events", "").await?;
        connection.head().await?;
        loop {
            let line = connection.line().await?;
            let Some(event) = line.strip_prefix("data:") else { continue };
            let event: Value = serde_json::from_str(event).unwrap_or(Value::Null);
            timeline.note(format!("{name}: {}", event["text"].as_str().unwrap_or_default()));
        }
    };
    let ended: Result<(), std::io::Error> = events.await;
    timeline.note(format!("{name}: the stream of events ended: {ended:?}"));
}
