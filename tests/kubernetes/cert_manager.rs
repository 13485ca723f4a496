//! Tests the manifests for cert-manager, whose types are not part of Kubernetes.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    lookup::{AUTHORITY, CERTIFICATE, NAMESPACE, SET, service_name},
    read::{CERT_MANAGER, FOLDER, documents},
};

/// The fields of cert-manager's API that the manifests use. Other fields are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Object {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
    namespace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum IssuerSpec {
    SelfSigned {},
    #[serde(rename_all = "camelCase")]
    Ca {
        secret_name: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CertificateSpec {
    secret_name: String,
    #[serde(default, rename = "isCA")]
    is_ca: bool,
    common_name: Option<String>,
    #[serde(default)]
    dns_names: Vec<String>,
    duration: String,
    renew_before: String,
    usages: Vec<String>,
    private_key: PrivateKey,
    issuer_ref: IssuerRef,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PrivateKey {
    algorithm: String,
    size: u32,
    rotation_policy: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerRef {
    name: String,
    kind: String,
    group: String,
}

/// Reads the objects of this kind, by name.
fn read<T: for<'a> Deserialize<'a>>(kind: &str) -> Vec<(String, T)> {
    let mut found = Vec::new();
    for document in documents(&Path::new(FOLDER).join(CERT_MANAGER)) {
        let object: Object = serde_json::from_value(document).expect("the object has the fields of its type");
        assert_eq!((&*object.api_version, &*object.metadata.namespace), ("cert-manager.io/v1", NAMESPACE));
        assert!(["Certificate", "Issuer"].contains(&&*object.kind), "{}", object.kind);
        if object.kind == kind {
            let spec = serde_json::from_value(object.spec);
            found.push((object.metadata.name.clone(), spec.unwrap_or_else(|error| panic!("{kind}: {error}"))));
        }
    }
    found
}

fn hours(duration: &str) -> u32 {
    duration.strip_suffix('h').and_then(|hours| hours.parse().ok()).expect("a number of hours")
}

/// Returns true if a certificate for `pattern` is valid for `name`. A wildcard matches exactly the first label.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => pattern == name,
    }
}

#[test]
fn server_certificate_covers_the_names_that_clients_verify() {
    let certificates = read::<CertificateSpec>("Certificate");
    let (_, server) = certificates.iter().find(|(_, it)| it.secret_name == CERTIFICATE).expect("a server certificate");
    let service = service_name();
    for name in [service.clone(), format!("{SET}-0.{service}"), format!("{SET}-12.{service}")] {
        assert!(server.dns_names.iter().any(|pattern| covers(pattern, &name)), "{name}: {:?}", server.dns_names);
    }
    for name in [format!("other.{NAMESPACE}.svc.cluster.local"), format!("a.b.{service}")] {
        assert!(!server.dns_names.iter().any(|pattern| covers(pattern, &name)), "{name}: {:?}", server.dns_names);
    }
    assert!(!server.is_ca && server.common_name.is_none());
    assert_eq!(server.usages, ["digital signature", "server auth"]);
}

#[test]
fn certificates_are_issued_by_a_chain_of_issuers_and_renewed() {
    let (certificates, issuers) = (read::<CertificateSpec>("Certificate"), read::<IssuerSpec>("Issuer"));
    assert_eq!((certificates.len(), issuers.len()), (2, 2));
    let issuer = |certificate: &CertificateSpec| {
        let IssuerRef { name, kind, group } = &certificate.issuer_ref;
        assert_eq!((&**kind, &**group), ("Issuer", "cert-manager.io"));
        &issuers.iter().find(|(issuer, _)| issuer == name).unwrap_or_else(|| panic!("no Issuer {name}")).1
    };
    for (name, certificate) in &certificates {
        let PrivateKey { algorithm, size, rotation_policy } = &certificate.private_key;
        assert_eq!((&**algorithm, *size), ("ECDSA", 256), "{name}");
        // A new key of the authority would invalidate the certificates that it has signed.
        assert_eq!(rotation_policy, if certificate.is_ca { "Never" } else { "Always" }, "{name}");
        // The kubelet, the reload of the servers and the clients take minutes.
        assert!(hours(&certificate.renew_before) >= 24 && hours(&certificate.duration) > 24, "{name}");
        assert!(hours(&certificate.renew_before) < hours(&certificate.duration), "{name}");
        match (issuer(certificate), certificate.is_ca) {
            (IssuerSpec::SelfSigned {}, true) => assert_eq!(certificate.secret_name, AUTHORITY),
            (IssuerSpec::Ca { secret_name }, false) => assert_eq!(secret_name, AUTHORITY),
            _ => panic!("{name}: unexpected issuer"),
        }
    }
}

#[test]
fn a_wildcard_covers_exactly_one_label() {
    let name = "pod.svc.example";
    let table =
        [("pod.svc.example", true), ("*.svc.example", true), ("*.example", false), ("*.pod.svc.example", false)];
    for (pattern, expected) in table {
        assert_eq!(covers(pattern, name), expected, "{pattern}");
    }
}
