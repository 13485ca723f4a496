//! A cluster that runs the manifests, and the steps of the scenarios.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    authority::Authority,
    isolated::Paths,
    kubelet::Node,
    load::{Load, Record},
    manifests::{self, NAMESPACE},
    names,
    network::Network,
    observed::{Observed, Role},
    plane::Plane,
    report::Report,
    servers::{self, Login, PREFIX},
    timeline::Timeline,
};

/// Names of the microservice's Pods begin with this.
pub(crate) const MICROSERVICE: &str = "microservice-";
/// Path of the StatefulSet in the API.
const SET: &str = "/apis/apps/v1/namespaces/k8s-training/statefulsets/postgresql-sfs";
/// Name of the database container.
pub(crate) const DATABASE: &str = "postgresql";

/// Time limit for everything that a scenario waits for.
const LIMIT: Duration = Duration::from_secs(180);
/// Time with an undisturbed load before and after a scenario's change.
pub(crate) const QUIET: Duration = Duration::from_secs(5);

/// The control plane, the node and the observers.
pub(crate) struct Cluster {
    pub(crate) plane: Plane,
    pub(crate) node: Arc<Node>,
    pub(crate) timeline: Timeline,
    pub(crate) observed: Observed,
    login: Login,
    _observers: JoinSet<()>,
}

impl Cluster {
    /// Starts the control plane and applies the manifests.
    pub(crate) async fn start(paths: Paths) -> Self {
        let timeline = Timeline::new();
        let network = Network::new().await;
        let state = paths.state.join("node");
        let plane = Plane::start(paths).await;
        timeline.note("the control plane is ready");
        let node = Node::start(plane.api.clone(), network, state).await;
        let authority = Authority::new("database");
        manifests::apply(&plane.api, &authority).await;
        timeline.note("the manifests are applied");
        let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/postgresql-secret");
        let secret = plane.api.get(&path).await.expect("the Secret exists");
        let password = secret["data"]["app-password"].as_str().expect("the Secret has a password");
        let password = base64::engine::general_purpose::STANDARD.decode(password).expect("the value is base64");
        let password = String::from_utf8(password).expect("the password is text");
        let login = Login { password, authority: authority.certificate };
        let observed = Observed::new(timeline.clone());
        let mut observers = JoinSet::new();
        observers.spawn(names::observe(observed.clone()));
        observers.spawn(observed.clone().measure_delay());
        observers.spawn(servers::observe(node.clone(), login.clone(), observed.clone()));
        Self { plane, node, timeline, observed, login, _observers: observers }
    }

    /// Starts the control plane, applies the manifests and a load, and waits until every Pod is ready and the load has
    /// been undisturbed for a while.
    pub(crate) async fn with_load(paths: Paths) -> (Self, Load) {
        let cluster = Self::start(paths).await;
        cluster
            .until("all Pods are ready", || cluster.node.ready(PREFIX) == 3 && cluster.node.ready(MICROSERVICE) == 2)
            .await;
        let warm = Load::start(cluster.node.clone(), cluster.timeline.clone());
        cluster.until("requests of each kind succeed", || warm.all_served()).await;
        tokio::time::sleep(QUIET).await;
        // The first load also waits for the pools. The second one, with other rows, is the one that is measured.
        let discarded = warm.stop().await.len();
        cluster.timeline.note(format!("the load begins; {discarded} requests before it are not counted"));
        cluster.clear_rows().await;
        let load = Load::start(cluster.node.clone(), cluster.timeline.clone());
        tokio::time::sleep(QUIET).await;
        (cluster, load)
    }

    /// Waits until the condition holds.
    pub(crate) async fn until(&self, description: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + LIMIT;
        while !condition() {
            if Instant::now() > end {
                self.timeline.print();
                self.print_logs();
                panic!("not reached within {LIMIT:?}: {description}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.timeline.note(description);
    }

    /// Prints the last lines of every container's output.
    fn print_logs(&self) {
        for pod in self.node.pods() {
            let (ready, stopping) = (pod.is_ready(), pod.is_stopping());
            println!("{} {}: ready: {ready}, stopping: {stopping}", pod.name, pod.uid);
        }
        let logs = [self.node.state.join("logs"), self.node.state.join("..")];
        let entries = logs.iter().flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten());
        for entry in entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log")) {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            println!("{}:\n{}", entry.path().display(), lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }

    /// Returns the name of the primary.
    pub(crate) fn primary(&self) -> String {
        self.observed.named(Role::Primary).into_iter().next().expect("there is a primary")
    }

    /// Returns the name of a standby.
    pub(crate) fn standby(&self) -> String {
        self.observed.named(Role::Standby).into_iter().next().expect("there is a standby")
    }

    /// Deletes a Pod, like `kubectl delete pod`, with `--force` if `forced`.
    pub(crate) async fn delete(&self, pod: &str, forced: bool) {
        self.timeline.note(format!("{pod} is deleted{}", if forced { " by force" } else { "" }));
        let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
        if forced {
            options["gracePeriodSeconds"] = 0.into();
        }
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}");
        self.plane.api.delete(&path, &options).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until a Pod with this name, other than the one with this UID, is ready, and until DNS has its address.
    pub(crate) async fn until_replaced(&self, pod: &str, uid: &str) {
        let ready = || {
            let found = self.node.pods().into_iter().find(|other| other.name == pod && other.uid != uid);
            found.filter(|other| other.is_ready() && self.observed.now().is_published(other.address)).is_some()
        };
        self.until(&format!("{pod} is back"), ready).await;
    }

    /// Changes the StatefulSet.
    pub(crate) async fn change_set(&self, patch: &Value) {
        self.plane.api.merge(SET, patch).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until the StatefulSet's status has this property.
    pub(crate) async fn until_set(&self, description: &str, property: impl Fn(&Value) -> bool) {
        let end = Instant::now() + LIMIT * 3;
        loop {
            let set = self.plane.api.get(SET).await;
            if set.as_ref().is_ok_and(|set| {
                set["status"]["observedGeneration"] == set["metadata"]["generation"] && property(&set["status"])
            }) {
                break;
            }
            if Instant::now() > end {
                self.timeline.print();
                self.print_logs();
                panic!("not reached: {description}: {set:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.timeline.note(description);
    }

    async fn clear_rows(&self) {
        self.primary_client().await.batch_execute("DELETE FROM tb_writes").await.expect("the rows are deleted");
    }

    async fn primary_client(&self) -> podpool::tokio_postgres::Client {
        let address = self.node.pod(&self.primary()).address;
        self.login.connect(address).await.expect("the primary accepts the connection")
    }

    /// Stops the load after a quiet time, and collects the facts.
    pub(crate) async fn report(&self, name: &'static str, load: Load) -> Report {
        tokio::time::sleep(QUIET).await;
        let begun = load.begun();
        let records: Vec<Record> = load.stop().await;
        let rows =
            self.primary_client().await.query("SELECT id FROM tb_writes", &[]).await.expect("the query succeeds");
        let rows: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let (observed, timeline) = (self.observed.clone(), self.timeline.clone());
        Report { name, begun, records, observed, timeline, rows, primary_lost: None }
    }
}
