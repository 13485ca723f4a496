//! Names of the objects in the manifests, and helpers that find parts of these objects.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, EnvVar, PodSpec, PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::read::{Manifests, labels, spec};

pub(crate) const NAMESPACE: &str = "k8s-training";
pub(crate) const SERVICE: &str = "postgresql-svc";
pub(crate) const SET: &str = "postgresql-sfs";
pub(crate) const PORT: &str = "postgresql-port";
pub(crate) const MICROSERVICE: &str = "microservice";
/// The Job that creates the certificates, and its ConfigMap, ServiceAccount, Role and RoleBinding.
pub(crate) const JOB: &str = "postgresql-certificates";
/// The Secret with the servers' certificate and its key, and the Secret with those of the authority.
pub(crate) const CERTIFICATE: &str = "postgresql-tls";
pub(crate) const AUTHORITY: &str = "postgresql-ca";
/// The ConfigMap of the database Pods.
pub(crate) const CONFIG: &str = "postgresql-config";

/// Returns the fully qualified name of the database Service.
pub(crate) fn service_name() -> String {
    format!("{SERVICE}.{NAMESPACE}.svc.cluster.local")
}

/// Returns the Pod template of a StatefulSet, Deployment or Job.
pub(crate) fn template<'a>(manifests: &'a Manifests, name: &str) -> &'a PodTemplateSpec {
    manifests.pods().get(name).copied().unwrap_or_else(|| panic!("no workload named {name}"))
}

/// Returns the main container of a Pod, which is the first one.
pub(crate) fn container(template: &PodTemplateSpec) -> &Container {
    spec(template).containers.first().expect("the Pod has a container")
}

/// Returns all containers of a Pod.
pub(crate) fn containers(template: &PodTemplateSpec) -> impl Iterator<Item = &Container> {
    let pod = spec(template);
    pod.init_containers.iter().flatten().chain(&pod.containers)
}

/// Returns a reference to the port with this name.
pub(crate) fn named(name: &str) -> IntOrString {
    IntOrString::String(name.to_owned())
}

/// Returns the number of the port that `port` refers to by number or by name.
pub(crate) fn port(pod: &PodSpec, port: &IntOrString) -> Option<i32> {
    let mut ports = pod.containers.iter().flat_map(|container| container.ports.iter().flatten());
    match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
    }
}

pub(crate) fn variable<'a>(container: &'a Container, name: &str) -> &'a EnvVar {
    let found = container.env.iter().flatten().find(|variable| variable.name == name);
    found.unwrap_or_else(|| panic!("{} has no variable {name}", container.name))
}

pub(crate) fn value<'a>(container: &'a Container, name: &str) -> &'a str {
    variable(container, name).value.as_deref().unwrap_or_else(|| panic!("{name} has no literal value"))
}

/// Returns true if the selector matches the labels of the Pod.
pub(crate) fn selects(selector: &LabelSelector, pod: &PodTemplateSpec) -> bool {
    assert!(selector.match_expressions.is_none(), "this test does not support match expressions: {selector:?}");
    includes(selector.match_labels.as_ref().unwrap_or(&BTreeMap::new()), pod)
}

/// Returns true if the Pod has all these labels.
pub(crate) fn includes(selector: &BTreeMap<String, String>, pod: &PodTemplateSpec) -> bool {
    selector.iter().all(|(label, value)| labels(pod).get(label) == Some(value))
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().expect("the duration is not negative"))
}

/// Returns the duration of the `preStop` hook.
pub(crate) fn pre_stop(container: &Container) -> Duration {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    seconds(hook.and_then(|hook| hook.sleep.as_ref()).expect("a preStop hook that sleeps").seconds)
}

pub(crate) fn grace_period(pod: &PodSpec) -> Duration {
    seconds(pod.termination_grace_period_seconds.expect("an explicit grace period"))
}
