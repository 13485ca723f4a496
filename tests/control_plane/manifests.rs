//! Applies the manifests of `examples/kubernetes` as they are.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{api::Api, authority::Authority};

/// The folder with the manifests.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/kubernetes");

pub(crate) const NAMESPACE: &str = "k8s-training";
/// The fully qualified name of the headless Service.
pub(crate) const SERVICE: &str = "postgresql-svc.k8s-training.svc.cluster.local";

/// Applies the manifests, and the Secret that cert-manager would create.
pub(crate) async fn apply(api: &Api, database: &Authority) {
    let mut files: Vec<_> =
        fs::read_dir(FOLDER).expect("the folder is readable").map(|entry| entry.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "no manifests in {FOLDER}");
    for file in files {
        for object in documents(&file) {
            apply_object(api, &object).await;
            if object["kind"] == "Namespace" {
                apply_object(api, &certificate(database)).await;
            }
        }
    }
}

/// Applies an object.
pub(crate) async fn apply_object(api: &Api, object: &Value) {
    let path = path(object);
    api.apply(&path, object).await.unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("the file is readable");
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns the Secret with the servers' certificate.
fn certificate(authority: &Authority) -> Value {
    let servers = authority.issue(&[SERVICE, &format!("*.{SERVICE}")]);
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "postgresql-tls", "namespace": NAMESPACE },
        "stringData": {
            "ca.crt": authority.certificate, "tls.crt": servers.certificate, "tls.key": servers.key,
        },
    })
}

/// Returns the path of an object in the API.
fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("incomplete object: {object}")).to_owned();
    let version = text(&object["apiVersion"]);
    let group = if version.contains('/') { "apis" } else { "api" };
    let kind = text(&object["kind"]).to_lowercase();
    let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
    let name = text(&object["metadata"]["name"]);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{group}/{version}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("/{group}/{version}/{plural}/{name}"),
    }
}
