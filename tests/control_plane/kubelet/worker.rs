//! One Pod: its sandbox, its containers and its status.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use rustix::process::Signal;
use tokio::{
    process::Command,
    sync::{Notify, watch},
    task::JoinSet,
};

use super::{
    Node, RETRY, Wanted,
    environment::{expand, variables},
    files,
    process::{Account, Entry, Process, Sandbox},
    status::{self, ContainerState, Facts},
    supervise,
};

/// A Pod on this node.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) address: Ipv4Addr,
    begun: SystemTime,
    pod: Pod,
    node: Arc<Node>,
    directory: PathBuf,
    sandbox: Sandbox,
    wanted: Arc<watch::Sender<Wanted>>,
    state: Mutex<State>,
    /// Notified when the status has to be written.
    changed: Notify,
}

#[derive(Default)]
struct State {
    initialized: bool,
    containers: BTreeMap<String, (ContainerState, Option<Entry>)>,
    ready: Option<(bool, SystemTime)>,
}

impl Worker {
    /// Creates a Pod's network namespace.
    pub(super) async fn create(node: Arc<Node>, pod: Pod, wanted: Arc<watch::Sender<Wanted>>) -> Arc<Self> {
        let uid = pod.metadata.uid.clone().expect("the Pod has a UID");
        let directory = node.state.join("pods").join(&uid);
        fs::create_dir_all(&directory).expect("the directory is created");
        fs::create_dir_all(node.state.join("logs")).expect("the directory is created");
        let sandbox = Sandbox::start().await;
        let address = node.network.attach(sandbox.pid).await;
        let (state, changed) = (Mutex::default(), Notify::new());
        let name = pod.metadata.name.clone().expect("the Pod has a name");
        Arc::new(Self {
            name,
            uid,
            address,
            begun: SystemTime::now(),
            pod,
            node,
            directory,
            sandbox,
            wanted,
            state,
            changed,
        })
    }

    /// Runs the Pod until it has to stop, then deletes its object.
    pub(super) async fn run(self: Arc<Self>) {
        let mut wanted = self.wanted.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().write_status());
        self.changed.notify_one();
        if self.prepare(&mut wanted).await {
            self.state.lock().unwrap().initialized = true;
            let mut containers = JoinSet::new();
            for container in &self.spec().containers {
                containers.spawn(supervise::supervise(self.clone(), container.clone(), wanted.clone()));
            }
            containers.join_all().await;
        }
        tasks.abort_all();
        while !matches!(*self.wanted.borrow(), Wanted::Gone) {
            match status::delete(&self.node.api, &self.pod).await {
                Ok(()) => break,
                Err(error) => println!("kubelet: {}: {error}", self.name),
            }
            tokio::time::sleep(RETRY).await;
        }
        let _ = fs::remove_dir_all(&self.directory); // fails while the kernel ends the last namespace
    }

    /// Creates the volumes and runs the init containers. Returns false if the Pod has to stop first.
    async fn prepare(self: &Arc<Self>, wanted: &mut watch::Receiver<Wanted>) -> bool {
        // As with a volume that is attached to one node at a time.
        while self.node.pods().iter().any(|other| other.uid != self.uid && self.shares_claim(other)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let create = || files::create_volumes(&self.node.api, &self.node.state, &self.directory, &self.pod);
        while let Err(error) = create().await {
            println!("kubelet: {}: {error}", self.name);
            tokio::time::sleep(RETRY).await;
            if self.is_stopping() {
                return false;
            }
        }
        for container in self.spec().init_containers.iter().flatten() {
            if !supervise::initialize(self, container, wanted).await {
                return false;
            }
        }
        true
    }

    /// Returns true if another Pod has a PersistentVolumeClaim of this Pod.
    fn shares_claim(&self, other: &Self) -> bool {
        let claims = |pod: &Self| -> Vec<_> {
            let volumes = pod.spec().volumes.clone().unwrap_or_default().into_iter();
            volumes.filter_map(|volume| Some(volume.persistent_volume_claim?.claim_name)).collect()
        };
        let own = claims(self);
        claims(other).iter().any(|claim| own.contains(claim))
    }

    /// Starts the process of a container.
    pub(super) async fn start(&self, container: &Container) -> Process {
        let user = self.spec().security_context.as_ref().expect("the Pod has a security context");
        let variables = variables(&self.pod, container);
        // The microservice's image has an entry point. The other containers have commands.
        let command = container.command.clone().unwrap_or_else(|| vec![files::MICROSERVICE.to_owned()]);
        let command: Vec<_> = command.iter().map(|word| expand(word, &variables)).collect();
        let account = Account {
            user: user.run_as_user.expect("the Pod has a user"),
            group: user.run_as_group.expect("the Pod has a group"),
            volumes: user.fs_group.expect("the Pod has a group for its volumes"),
            variables,
        };
        let mounts = files::mounts(&self.node.state, &self.directory, &self.pod, container);
        let root = self.directory.join(format!("{}.root", container.name));
        let log = self.node.state.join("logs").join(format!("{}.{}.log", self.name, container.name));
        let process = Process::start(&self.sandbox, &mounts, &root, account, &command, &log).await;
        self.enter(&container.name, process.entry.clone());
        process
    }

    fn enter(&self, container: &str, entry: Entry) {
        let mut state = self.state.lock().unwrap();
        let (container, known) = state.containers.entry(container.to_owned()).or_default();
        container.running = Some(SystemTime::now());
        *known = Some(entry);
        drop(state);
        self.changed.notify_one();
    }

    /// Records that a container's process has exited.
    pub(super) fn exited(&self, container: &Container, status: ExitStatus) {
        if let Some((_, entry)) = self.state.lock().unwrap().containers.get_mut(&container.name) {
            *entry = None;
        }
        let init = self.spec().init_containers.iter().flatten().any(|init| init.name == container.name);
        self.change(&container.name, |state| {
            state.running = None;
            state.started = false;
            // An init container is ready after it has succeeded.
            state.ready = init && status.success();
            state.exited = Some(status.code().unwrap_or(137));
        });
    }

    /// Changes the state of a container, and writes the status if a condition changed.
    pub(super) fn change(&self, container: &str, change: impl FnOnce(&mut ContainerState)) {
        let mut state = self.state.lock().unwrap();
        let (container, _) = state.containers.entry(container.to_owned()).or_default();
        let before = (container.running, container.started, container.ready, container.restarts);
        change(container);
        let after = (container.running, container.started, container.ready, container.restarts);
        drop(state);
        if before != after {
            self.changed.notify_one();
        }
    }

    /// Writes the status after each change. Tries again until the API server has accepted the last one.
    async fn write_status(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            let path = format!("{}/status", status::path(&self.pod));
            while let Err(error) = self.node.api.merge(&path, &self.status()).await {
                if error.status.is_some_and(|status| status.as_u16() == 404) {
                    return;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn status(&self) -> serde_json::Value {
        let mut state = self.state.lock().unwrap();
        let ready = state.initialized && self.all_ready(&state);
        if state.ready.is_none_or(|(known, _)| known != ready) {
            state.ready = Some((ready, SystemTime::now()));
        }
        let facts = Facts {
            address: self.address,
            begun: self.begun,
            initialized: state.initialized,
            init: self.spec().init_containers.iter().flatten().map(|container| known(&state, container)).collect(),
            containers: self.spec().containers.iter().map(|container| known(&state, container)).collect(),
            ready_since: state.ready.expect("set above").1,
        };
        status::patch(&self.pod, &facts)
    }

    fn all_ready(&self, state: &State) -> bool {
        let ready = |container: &Container| state.containers.get(&container.name).is_some_and(|(state, _)| state.ready);
        self.spec().containers.iter().all(ready)
    }

    /// Returns true if all containers are ready.
    pub(crate) fn is_ready(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.initialized && self.all_ready(&state)
    }

    /// Returns true if all containers have passed their startup probes.
    pub(crate) fn is_started(&self) -> bool {
        let state = self.state.lock().unwrap();
        let started =
            |container: &Container| state.containers.get(&container.name).is_some_and(|(state, _)| state.started);
        self.spec().containers.iter().all(started)
    }

    /// Returns true if the Pod is about to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        !matches!(*self.wanted.borrow(), Wanted::Running)
    }

    pub(super) fn grace_period(&self) -> Duration {
        let seconds = self.spec().termination_grace_period_seconds.unwrap_or(30);
        Duration::from_secs(seconds.try_into().expect("a positive number"))
    }

    fn spec(&self) -> &PodSpec {
        self.pod.spec.as_ref().expect("the Pod has a spec")
    }

    /// Returns a command that runs in a container, or `None` if the container does not run.
    pub(super) fn command(&self, container: &str, words: &[String]) -> Option<Command> {
        let state = self.state.lock().unwrap();
        let entry = state.containers.get(container).and_then(|(_, entry)| entry.as_ref());
        entry.map(|entry| entry.command(words))
    }

    /// Runs a command in a container, like `kubectl exec`. Returns its output.
    pub(crate) async fn exec(&self, container: &str, words: &[&str]) -> Result<String, String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let command = self.command(container, &words);
        crate::shell::run(&mut command.ok_or_else(|| format!("{container} of {} does not run", self.name))?).await
    }

    /// Kills the first process of a container, as the kernel does when memory is short.
    pub(crate) fn kill(&self, container: &str) {
        let state = self.state.lock().unwrap();
        let entry = state.containers.get(container).and_then(|(_, entry)| entry.as_ref());
        entry.unwrap_or_else(|| panic!("{container} of {} does not run", self.name)).signal(Signal::KILL);
    }

    /// Returns the directory of a volume.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.directory.join("volumes").join(name)
    }
}

/// Returns a container with its state, which is empty before its first start.
fn known<'a>(state: &State, container: &'a Container) -> (&'a Container, ContainerState) {
    (container, state.containers.get(&container.name).map(|(state, _)| state.clone()).unwrap_or_default())
}
