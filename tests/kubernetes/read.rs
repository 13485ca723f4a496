//! Every manifest, in Kubernetes's own types.

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::{
    Metadata, Resource,
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{ConfigMap, Namespace, PodSpec, PodTemplateSpec, Secret, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The folder with the manifests.
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/kubernetes");

/// What the folder describes, each by its name.
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
    /// Kind and namespace of everything.
    pub(crate) all: Vec<(String, Option<String>)>,
}

impl Manifests {
    /// Reads every file. Fails for a kind that is not known here, and for a field that Kubernetes does not know.
    pub(crate) fn read() -> Self {
        let mut files: Vec<_> = fs::read_dir(FOLDER).expect("the folder").map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        assert!(!files.is_empty());
        let mut manifests = Self::default();
        for file in files {
            let text = fs::read_to_string(&file).expect("a file");
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(!documents.is_empty(), "{}: nothing in it", file.display());
            for document in documents {
                manifests.take(&file, document);
            }
        }
        manifests
    }

    fn take(&mut self, file: &Path, document: Value) {
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        self.all.push((kind.clone(), document["metadata"]["namespace"].as_str().map(str::to_owned)));
        match &*kind {
            "ConfigMap" => add(&mut self.config_maps, file, document),
            "Deployment" => add(&mut self.deployments, file, document),
            "Namespace" => add(&mut self.namespaces, file, document),
            "NetworkPolicy" => add(&mut self.policies, file, document),
            "PodDisruptionBudget" => add(&mut self.budgets, file, document),
            "Secret" => add(&mut self.secrets, file, document),
            "Service" => add(&mut self.services, file, document),
            "StatefulSet" => add(&mut self.stateful_sets, file, document),
            _ => panic!("{}: `{kind}` is not known to this test", file.display()),
        }
    }

    /// Every kind of Pod that is started, by the name of what starts it.
    pub(crate) fn pods(&self) -> BTreeMap<&str, &PodTemplateSpec> {
        let sets = self.stateful_sets.iter().map(|(name, set)| (&**name, &set.spec.as_ref().unwrap().template));
        let deployments = self.deployments.iter().map(|(name, it)| (&**name, &it.spec.as_ref().unwrap().template));
        sets.chain(deployments).collect()
    }
}

/// What a Pod is made of.
pub(crate) fn spec(template: &PodTemplateSpec) -> &PodSpec {
    template.spec.as_ref().expect("a Pod's spec")
}

/// A Pod's labels.
pub(crate) fn labels(template: &PodTemplateSpec) -> &BTreeMap<String, String> {
    template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref()).expect("a Pod's labels")
}

fn add<T>(to: &mut BTreeMap<String, T>, file: &Path, document: Value)
where
    T: DeserializeOwned + Serialize + Metadata<Ty = ObjectMeta> + Resource,
{
    let file = file.display();
    let read: T = serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(document["apiVersion"], T::API_VERSION, "{file}");
    // A field that Kubernetes's types do not know is not there when they are written again.
    let again = serde_json::to_value(&read).expect("JSON");
    if let Some(path) = lost(&document, &again) {
        panic!("{file}: {}{path}: no such field", T::KIND);
    }
    let name = read.metadata().name.clone().unwrap_or_else(|| panic!("{file}: {} has no name", T::KIND));
    let before = to.insert(name.clone(), read);
    assert!(before.is_none(), "{file}: {} {name} is there twice", T::KIND);
}

/// The first field that is in the one and not in the other.
fn lost(before: &Value, after: &Value) -> Option<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().find_map(|(key, value)| match after.get(key) {
            Some(after) => lost(value, after).map(|rest| format!(".{key}{rest}")),
            // Written by its absence.
            None if is_default(value) => None,
            None => Some(format!(".{key}")),
        }),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => before
            .iter()
            .zip(after)
            .enumerate()
            .find_map(|(i, (before, after))| lost(before, after).map(|rest| format!("[{i}]{rest}"))),
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
fn a_field_that_kubernetes_does_not_know_is_found() {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "x" },
        "spec": { "ports": [{ "port": 1, "targetport": 2 }] },
    });
    let read: Service = serde_json::from_value(document.clone()).unwrap();
    let lost = lost(&document, &serde_json::to_value(&read).unwrap());
    assert_eq!(lost.as_deref(), Some(".spec.ports[0].targetport"));
}
