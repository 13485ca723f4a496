//! The status of a Pod, as the kubelet writes it.

use std::time::SystemTime;

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::Timestamp,
};
use serde_json::{Value, json};

use crate::{
    api::{Api, ApiError},
    network::NODE,
};

/// State of a container.
#[derive(Clone, Default)]
pub(super) struct ContainerState {
    /// Time at which the running process started, or `None` if no process runs.
    pub(super) running: Option<SystemTime>,
    /// True after the startup probe has succeeded.
    pub(super) started: bool,
    pub(super) ready: bool,
    pub(super) restarts: u32,
    /// Exit code of the previous process.
    pub(super) exited: Option<i32>,
}

/// Returns a time in the format of the API.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).expect("the clock is set").as_secs();
    let time = Timestamp::from_second(seconds.try_into().expect("a time")).expect("the time is in range");
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns the path of the Pod in the API.
pub(super) fn path(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let namespace = metadata.namespace.as_deref().expect("the Pod has a namespace");
    format!("/api/v1/namespaces/{namespace}/pods/{}", metadata.name.as_deref().expect("the Pod has a name"))
}

/// Facts from which the status is derived.
pub(super) struct Facts<'a> {
    pub(super) address: std::net::Ipv4Addr,
    pub(super) begun: SystemTime,
    pub(super) initialized: bool,
    pub(super) init: Vec<(&'a Container, ContainerState)>,
    pub(super) containers: Vec<(&'a Container, ContainerState)>,
    /// Time of the last change of the condition `Ready`.
    pub(super) ready_since: SystemTime,
}

/// Returns a merge patch with the status. It replaces all lists, such as `podIPs`.
pub(super) fn patch(pod: &Pod, facts: &Facts<'_>) -> Value {
    let ready = facts.initialized && facts.containers.iter().all(|(_, state)| state.ready);
    let begun = timestamp(facts.begun);
    let condition = |kind: &str, holds: bool, since: &str| {
        let status = if holds { "True" } else { "False" };
        json!({ "type": kind, "status": status, "lastTransitionTime": since })
    };
    let since = timestamp(facts.ready_since);
    json!({
        "metadata": { "uid": pod.metadata.uid },
        "status": {
            "phase": if facts.initialized { "Running" } else { "Pending" },
            "conditions": [
                condition("PodReadyToStartContainers", true, &begun),
                condition("Initialized", facts.initialized, &begun),
                condition("Ready", ready, &since),
                condition("ContainersReady", ready, &since),
                condition("PodScheduled", true, &begun),
            ],
            "hostIP": NODE.to_string(), "hostIPs": [{ "ip": NODE.to_string() }],
            "podIP": facts.address.to_string(), "podIPs": [{ "ip": facts.address.to_string() }],
            "startTime": begun,
            "initContainerStatuses": facts.init.iter().map(container).collect::<Vec<_>>(),
            "containerStatuses": facts.containers.iter().map(container).collect::<Vec<_>>(),
        },
    })
}

fn container((container, state): &(&Container, ContainerState)) -> Value {
    let now = match (state.running, state.exited) {
        (Some(since), _) => json!({ "running": { "startedAt": timestamp(since) } }),
        (None, Some(code)) => json!({ "terminated": { "exitCode": code } }),
        (None, None) => json!({ "waiting": { "reason": "ContainerCreating" } }),
    };
    json!({
        "name": container.name, "image": container.image, "imageID": "", "containerID": "",
        "ready": state.ready, "started": state.started, "restartCount": state.restarts, "state": now,
    })
}

/// Deletes a Pod whose containers have ended. The object may already be gone.
pub(super) async fn delete(api: &Api, pod: &Pod) -> Result<(), ApiError> {
    let options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "preconditions": { "uid": pod.metadata.uid },
    });
    match api.delete(&path(pod), &options).await {
        Err(error) if error.status.is_some_and(|status| status.as_u16() == 404) => Ok(()),
        other => other.map(drop),
    }
}
