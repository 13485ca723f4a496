//! A stand-in for the scheduler and the kubelet: assigns each Pod to the node, runs its containers as processes in
//! namespaces, and writes its status.
//!
//! [`mod@worker`] runs one Pod. It starts the init containers and one task per container, see [`mod@supervise`], which
//! starts the process again if it exits, and runs the probes, see [`mod@probe`]. [`mod@process`] starts a process in
//! its namespaces, and [`mod@files`] and [`mod@environment`] provide its volumes and variables.

mod environment;
mod files;
mod probe;
mod process;
mod status;
mod supervise;
mod worker;

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
pub(crate) use probe::http_get;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};
pub(crate) use worker::Worker;

use crate::{api::Api, network::Network};

/// Name of the node that all Pods run on.
const NODE_NAME: &str = "node-0";

/// Delay before a request to the API server is repeated after an error.
const RETRY: Duration = Duration::from_secs(1);

/// The state that all Pods of the node share.
pub(crate) struct Node {
    pub(crate) api: Api,
    pub(crate) network: Network,
    /// The directory for the Pods' files.
    pub(crate) state: PathBuf,
    workers: Mutex<HashMap<String, Assigned>>,
}

/// A Pod that is assigned to the node.
struct Assigned {
    wanted: Arc<watch::Sender<Wanted>>,
    /// `None` until the Pod's network exists.
    worker: Option<Arc<Worker>>,
}

/// The state of a Pod that the API server requests.
#[derive(Clone)]
pub(crate) enum Wanted {
    /// The Pod runs.
    Running,
    /// The Pod stops within the grace period, and its object is deleted.
    Terminated(Duration),
    /// The Pod stops, because its object no longer exists.
    Gone,
}

impl Node {
    /// Registers the node, and starts to run the Pods in a task.
    pub(crate) async fn start(api: Api, network: Network, state: PathBuf) -> Arc<Self> {
        let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE_NAME } });
        api.apply(&format!("/api/v1/nodes/{NODE_NAME}"), &object).await.unwrap_or_else(|error| panic!("{error}"));
        let node = Arc::new(Self { api, network, state, workers: Mutex::default() });
        files::create_base(&node.state);
        tokio::spawn(node.clone().run());
        node
    }

    /// Returns the Pods that have processes, in the order of their names.
    pub(crate) fn pods(&self) -> Vec<Arc<Worker>> {
        let mut pods: Vec<_> = self.workers.lock().unwrap().values().filter_map(|pod| pod.worker.clone()).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        pods
    }

    /// Returns the Pod with this name. Panics if there is none.
    pub(crate) fn pod(&self, name: &str) -> Arc<Worker> {
        let found = self.pods().into_iter().rfind(|pod| pod.name == name && !pod.is_stopping());
        found.unwrap_or_else(|| panic!("no Pod {name}"))
    }

    /// Returns the number of Pods whose name begins with `prefix` and that are ready.
    pub(crate) fn ready(&self, prefix: &str) -> usize {
        self.pods().iter().filter(|pod| pod.name.starts_with(prefix) && pod.is_ready()).count()
    }

    /// Returns the names and addresses of the Pods whose name begins with `prefix` and that have passed their startup
    /// probes.
    pub(crate) fn started(&self, prefix: &str) -> Vec<(String, Ipv4Addr)> {
        let pods = self.pods().into_iter().filter(|pod| pod.name.starts_with(prefix) && pod.is_started());
        pods.map(|pod| (pod.name.clone(), pod.address)).collect()
    }

    /// Lists the Pods, then follows their changes until the watch ends, forever.
    async fn run(self: Arc<Self>) {
        let mut pods = JoinSet::new();
        loop {
            if let Err(error) = self.follow(&mut pods).await {
                println!("kubelet: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn follow(self: &Arc<Self>, pods: &mut JoinSet<()>) -> Result<(), crate::api::ApiError> {
        let mut list = self.api.get("/api/v1/pods").await?;
        let listed: Vec<_> = list["items"].as_array_mut().expect("a list of Pods").drain(..).collect();
        let known: Vec<_> = listed.iter().filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
        for (_, pod) in self.workers.lock().unwrap().iter().filter(|(uid, _)| !known.contains(&uid.as_str())) {
            want(&pod.wanted, Wanted::Gone);
        }
        for pod in listed {
            self.update(pod, pods).await;
        }
        let version = list["metadata"]["resourceVersion"].as_str().expect("the list has a version");
        let path = format!("/api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion={version}");
        let mut watch = self.api.watch(&path).await?;
        while let Some(mut event) = watch.next().await {
            let object = event["object"].take();
            match event["type"].as_str() {
                Some("ADDED" | "MODIFIED") => self.update(object, pods).await,
                Some("DELETED") => self.gone(&object),
                Some("ERROR") => break,
                _ => {}
            }
        }
        Ok(())
    }

    fn gone(&self, object: &Value) {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if let Some(pod) = self.workers.lock().unwrap().get(uid) {
            want(&pod.wanted, Wanted::Gone);
        }
    }

    /// Assigns a new Pod to the node, starts a Pod that is assigned, or stops one.
    async fn update(self: &Arc<Self>, object: Value, pods: &mut JoinSet<()>) {
        let pod: Pod = serde_json::from_value(object).expect("the object is a Pod");
        let uid = pod.metadata.uid.clone().expect("the Pod has a UID");
        let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let grace = pod.metadata.deletion_timestamp.as_ref().map(|_| {
            let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
            Wanted::Terminated(Duration::from_secs(seconds.try_into().unwrap_or_default()))
        });
        let known = self.workers.lock().unwrap().get(&uid).map(|pod| pod.wanted.clone());
        match (known, grace) {
            (Some(wanted), Some(terminated)) => want(&wanted, terminated),
            (Some(_), None) => {}
            (None, None) if assigned => {
                let wanted = Arc::new(watch::Sender::new(Wanted::Running));
                let pending = Assigned { wanted: wanted.clone(), worker: None };
                self.workers.lock().unwrap().insert(uid.clone(), pending);
                let node = self.clone();
                pods.spawn(async move {
                    let worker = Worker::create(node.clone(), pod, wanted).await;
                    if let Some(known) = node.workers.lock().unwrap().get_mut(&uid) {
                        known.worker = Some(worker.clone());
                    }
                    worker.run().await;
                    node.workers.lock().unwrap().remove(&uid);
                });
            }
            (None, None) => self.assign(&pod).await,
            // Deleted before it started.
            (None, Some(_)) => {
                if let Err(error) = status::delete(&self.api, &pod).await {
                    println!("kubelet: {error}");
                }
            }
        }
    }

    /// Assigns a Pod to the node, as the scheduler does.
    async fn assign(&self, pod: &Pod) {
        let metadata = &pod.metadata;
        let (namespace, name) = (metadata.namespace.as_deref().unwrap(), metadata.name.as_deref().unwrap());
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name, "uid": metadata.uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": NODE_NAME },
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        if let Err(error) = self.api.post(&path, &binding).await {
            println!("scheduler: {error}");
        }
    }
}

/// Changes the requested state of a Pod. A Pod that has to stop never runs again.
fn want(sender: &watch::Sender<Wanted>, wanted: Wanted) {
    sender.send_if_modified(|current| {
        let changed = match (&*current, &wanted) {
            (Wanted::Gone, _) | (Wanted::Terminated(_), Wanted::Terminated(_)) => false,
            (Wanted::Terminated(_) | Wanted::Running, _) => true,
        };
        if changed {
            *current = wanted;
        }
        changed
    });
}
