//! Parses every manifest into Kubernetes' own types.

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::{
    Metadata, Resource,
    api::{
        apps::v1::{Deployment, StatefulSet},
        batch::v1::Job,
        core::v1::{ConfigMap, Namespace, PodSpec, PodTemplateSpec, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The folder with the manifests.
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/kubernetes");

/// The two alternatives to create the certificates, in the folder `certificates`.
const OPENSSL_JOB: &str = "certificates/openssl-job.yaml";
pub(crate) const CERT_MANAGER: &str = "certificates/cert-manager.yaml";

/// The objects in the manifests, by name.
#[derive(Default)]
pub(crate) struct Manifests {
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) config_maps: BTreeMap<String, ConfigMap>,
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) stateful_sets: BTreeMap<String, StatefulSet>,
    pub(crate) deployments: BTreeMap<String, Deployment>,
    pub(crate) budgets: BTreeMap<String, PodDisruptionBudget>,
    pub(crate) policies: BTreeMap<String, NetworkPolicy>,
    pub(crate) jobs: BTreeMap<String, Job>,
    pub(crate) accounts: BTreeMap<String, ServiceAccount>,
    pub(crate) roles: BTreeMap<String, Role>,
    pub(crate) role_bindings: BTreeMap<String, RoleBinding>,
    /// Kind and namespace of every object.
    pub(crate) all: Vec<(String, Option<String>)>,
}

impl Manifests {
    /// Reads all manifests, with the Job that creates the certificates. Panics if an object has a kind that this
    /// function does not handle, or a field that does not exist in Kubernetes.
    pub(crate) fn read() -> Self {
        let mut files: Vec<_> =
            fs::read_dir(FOLDER).expect("the folder is readable").map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        assert!(!files.is_empty());
        files.push(Path::new(FOLDER).join(OPENSSL_JOB));
        let mut manifests = Self::default();
        for file in files {
            for document in documents(&file) {
                manifests.add(&file, document);
            }
        }
        manifests
    }

    fn add(&mut self, file: &Path, document: Value) {
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        self.all.push((kind.clone(), document["metadata"]["namespace"].as_str().map(str::to_owned)));
        match &*kind {
            "ConfigMap" => insert(&mut self.config_maps, file, document),
            "Deployment" => insert(&mut self.deployments, file, document),
            "Job" => insert(&mut self.jobs, file, document),
            "Namespace" => insert(&mut self.namespaces, file, document),
            "NetworkPolicy" => insert(&mut self.policies, file, document),
            "PodDisruptionBudget" => insert(&mut self.budgets, file, document),
            "Role" => insert(&mut self.roles, file, document),
            "RoleBinding" => insert(&mut self.role_bindings, file, document),
            "Secret" => insert(&mut self.secrets, file, document),
            "Service" => insert(&mut self.services, file, document),
            "ServiceAccount" => insert(&mut self.accounts, file, document),
            "StatefulSet" => insert(&mut self.stateful_sets, file, document),
            _ => panic!("{}: this test does not handle the kind `{kind}`", file.display()),
        }
    }

    /// Returns the Pod template of every StatefulSet, Deployment and Job by its name.
    pub(crate) fn pods(&self) -> BTreeMap<&str, &PodTemplateSpec> {
        let sets = self.stateful_sets.iter().map(|(name, set)| (&**name, &set.spec.as_ref().unwrap().template));
        let deployments = self.deployments.iter().map(|(name, it)| (&**name, &it.spec.as_ref().unwrap().template));
        let jobs = self.jobs.iter().map(|(name, job)| (&**name, &job.spec.as_ref().unwrap().template));
        sets.chain(deployments).chain(jobs).collect()
    }

    /// Returns the contents of a file in a ConfigMap.
    pub(crate) fn config(&self, config_map: &str, file: &str) -> &str {
        let files = self.config_maps[config_map].data.as_ref().expect("the ConfigMap has files");
        files.get(file).unwrap_or_else(|| panic!("{config_map} has no file {file}"))
    }
}

/// Parses a file with one or more YAML documents.
pub(crate) fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("the file is readable");
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(!documents.is_empty(), "{}: no documents", file.display());
    documents
}

pub(crate) fn spec(template: &PodTemplateSpec) -> &PodSpec {
    template.spec.as_ref().expect("the template has a spec")
}

pub(crate) fn labels(template: &PodTemplateSpec) -> &BTreeMap<String, String> {
    template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref()).expect("the template has labels")
}

fn insert<T>(to: &mut BTreeMap<String, T>, file: &Path, document: Value)
where
    T: DeserializeOwned + Serialize + Metadata<Ty = ObjectMeta> + Resource,
{
    let file = file.display();
    let read: T = serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(document["apiVersion"], T::API_VERSION, "{file}");
    // Deserialization ignores unknown fields, so they are missing when the object is serialized again.
    let written = serde_json::to_value(&read).expect("the object serializes");
    if let Some(path) = missing_field(&document, &written) {
        panic!("{file}: {}{path}: no such field", T::KIND);
    }
    let name = read.metadata().name.clone().unwrap_or_else(|| panic!("{file}: {} has no name", T::KIND));
    let before = to.insert(name.clone(), read);
    assert!(before.is_none(), "{file}: {} {name} is defined twice", T::KIND);
}

/// Returns the path of the first field of `before` that is missing or different in `after`.
fn missing_field(before: &Value, after: &Value) -> Option<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().find_map(|(key, value)| match after.get(key) {
            Some(after) => missing_field(value, after).map(|rest| format!(".{key}{rest}")),
            // Default values are not serialized.
            None if is_default(value) => None,
            None => Some(format!(".{key}")),
        }),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => before
            .iter()
            .zip(after)
            .enumerate()
            .find_map(|(i, (before, after))| missing_field(before, after).map(|rest| format!("[{i}]{rest}"))),
        (before, after) if before == after => None,
        (before, after) => Some(format!(": {before} was read as {after}")),
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Null => true,
        _ => false,
    }
}

#[test]
fn detects_an_unknown_manifest_field() {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "x" },
        "spec": { "ports": [{ "port": 1, "targetport": 2 }] },
    });
    let read: Service = serde_json::from_value(document.clone()).unwrap();
    let missing = missing_field(&document, &serde_json::to_value(&read).unwrap());
    assert_eq!(missing.as_deref(), Some(".spec.ports[0].targetport"));
}
