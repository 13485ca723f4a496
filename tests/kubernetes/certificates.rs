//! Tests the Job that creates the certificates: runs its scripts, with the installed openssl and a stand-in for
//! kubectl.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    common::programs::programs,
    lookup::{AUTHORITY, CERTIFICATE, JOB, NAMESPACE, containers, service_name, template, value},
    read::Manifests,
};

const KUBECTL: &str = include_str!("kubectl.sh");

/// A stand-in for a cluster in which the Job runs.
pub(crate) struct Cluster {
    folder: TempDir,
    manifests: Manifests,
}

impl Cluster {
    /// Returns `None` and prints the reason if openssl is not installed.
    pub(crate) fn new() -> Option<Self> {
        programs(["openssl"])?;
        let (folder, manifests) = (TempDir::new().expect("the folder is created"), Manifests::read());
        for name in ["bin", "scripts", "store"] {
            fs::create_dir(folder.path().join(name)).expect("the folder is created");
        }
        for (name, text) in manifests.config_maps[JOB].data.as_ref().expect("the ConfigMap has files") {
            fs::write(folder.path().join("scripts").join(name), text).expect("the script is written");
        }
        let kubectl = folder.path().join("bin/kubectl");
        fs::write(&kubectl, KUBECTL).expect("the program is written");
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).expect("the program is executable");
        Some(Self { folder, manifests })
    }

    /// Runs the containers of the Job's Pod one after the other. Calls `before` with the name of each container first.
    /// Returns the error output of the container that failed.
    pub(crate) fn run(&self, mut before: impl FnMut(&str)) -> Result<(), String> {
        let work = TempDir::new().expect("the folder is created");
        for container in containers(template(&self.manifests, JOB)) {
            before(&container.name);
            let [shell, script] = &container.command.as_ref().expect("the container has a command")[..] else {
                panic!("{}: expected a shell and a script", container.name)
            };
            let script = self.folder.path().join(script.trim_start_matches('/'));
            let path = env::join_paths(
                [self.folder.path().join("bin")]
                    .into_iter()
                    .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
            );
            let mut command = Command::new(shell);
            command.arg(script).env("PATH", path.expect("the paths are valid")).env("WORK", work.path());
            command.env("STORE", self.store()).env("NAMESPACE", NAMESPACE).env("SERVICE", value(container, "SERVICE"));
            let output = command.output().expect("the script starts");
            if !output.status.success() {
                return Err(format!("{}: {}", container.name, String::from_utf8_lossy(&output.stderr)));
            }
        }
        Ok(())
    }

    /// Runs the Job, which must succeed.
    pub(crate) fn create(&self) {
        self.run(|_| {}).expect("the Job succeeds");
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Returns the folder with the files of a Secret.
    pub(crate) fn secret(&self, name: &str) -> PathBuf {
        self.store().join(name)
    }

    /// Returns the value of a key of a Secret.
    pub(crate) fn read(&self, name: &str, key: &str) -> String {
        fs::read_to_string(self.secret(name).join(key)).expect("the Secret has the key")
    }

    /// Returns all Secrets with their keys and values.
    fn secrets(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let entries = |folder: &Path| {
            let entries = fs::read_dir(folder).expect("the folder is readable").map(|entry| entry.unwrap());
            entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path())).collect::<Vec<_>>()
        };
        let secrets = entries(&self.store()).into_iter().filter(|(_, path)| path.is_dir());
        let file = |(name, path)| (name, fs::read_to_string(path).expect("the file is readable"));
        secrets.map(|(name, path)| (name, entries(&path).into_iter().map(file).collect())).collect()
    }

    /// Returns the number of calls of kubectl with this verb.
    fn calls(&self, verb: &str) -> usize {
        let calls = fs::read_to_string(self.store().join("calls")).expect("the list is readable");
        calls.lines().filter(|call| call.contains(&format!(" {verb} "))).count()
    }
}

/// Runs openssl with these arguments. Returns its output.
fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

#[test]
fn scripts_are_valid_shell() {
    let manifests = Manifests::read();
    for config_map in manifests.config_maps.values() {
        for (name, text) in config_map.data.iter().flatten().filter(|(name, _)| name.ends_with(".sh")) {
            let shell = text.lines().next().and_then(|line| line.strip_prefix("#!/bin/")).expect("a shell");
            let output = Command::new(shell).args(["-n", "-c", text]).output().expect("the shell starts");
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn job_creates_certificates_for_the_verified_names() {
    let Some(cluster) = Cluster::new() else { return };
    cluster.create();
    let secrets = cluster.secrets();
    let keys = |name: &str| secrets[name].keys().map(|key| &**key).collect::<Vec<_>>();
    assert_eq!(secrets.keys().collect::<Vec<_>>(), [AUTHORITY, CERTIFICATE]);
    assert_eq!(
        (keys(AUTHORITY), keys(CERTIFICATE)),
        (vec!["tls.crt", "tls.key"], vec!["ca.crt", "tls.crt", "tls.key"])
    );
    assert_eq!(secrets[CERTIFICATE]["ca.crt"], secrets[AUTHORITY]["tls.crt"]);
    assert_ne!(secrets[CERTIFICATE]["tls.key"], secrets[AUTHORITY]["tls.key"]);

    let folder = cluster.secret(CERTIFICATE);
    let service = service_name();
    let names = openssl(&folder, &["x509", "-in", "tls.crt", "-noout", "-ext", "subjectAltName"]);
    assert!(names.trim_end().ends_with(&format!("DNS:{service}, DNS:*.{service}")), "{names}");
    for name in [&service, &format!("postgresql-sfs-0.{service}")] {
        openssl(
            &folder,
            &["verify", "-CAfile", "ca.crt", "-purpose", "sslserver", "-verify_hostname", name, "tls.crt"],
        );
    }
    // The certificate cannot sign others, and the authority cannot sign further authorities.
    let text = openssl(&folder, &["x509", "-in", "tls.crt", "-noout", "-ext", "basicConstraints,extendedKeyUsage"]);
    assert!(text.contains("CA:FALSE") && text.contains("TLS Web Server Authentication"), "{text}");
    let text = openssl(&folder, &["x509", "-in", "ca.crt", "-noout", "-ext", "basicConstraints"]);
    assert!(text.contains("CA:TRUE, pathlen:0"), "{text}");
    // 800 days in seconds.
    openssl(&folder, &["x509", "-in", "tls.crt", "-noout", "-checkend", "69120000"]);
}

#[test]
fn job_never_changes_an_existing_secret() {
    let Some(cluster) = Cluster::new() else { return };
    cluster.create();
    let first = cluster.secrets();
    cluster.create();
    assert_eq!((cluster.secrets(), cluster.calls("create")), (first.clone(), 2));

    // Without the Secret of the servers, the existing authority signs a new certificate.
    fs::remove_dir_all(cluster.secret(CERTIFICATE)).expect("the Secret is deleted");
    cluster.create();
    let renewed = cluster.secrets();
    assert_eq!(renewed[AUTHORITY], first[AUTHORITY]);
    assert_eq!(renewed[CERTIFICATE]["ca.crt"], first[CERTIFICATE]["ca.crt"]);
    assert_ne!(renewed[CERTIFICATE]["tls.crt"], first[CERTIFICATE]["tls.crt"]);
    openssl(&cluster.secret(CERTIFICATE), &["verify", "-CAfile", "ca.crt", "tls.crt"]);

    // Another run of the Job creates the Secret while this one runs.
    fs::remove_dir_all(cluster.secret(CERTIFICATE)).expect("the Secret is deleted");
    let other = cluster.secret(CERTIFICATE);
    let failed = cluster.run(|container| {
        if container == "store" {
            fs::create_dir(&other).expect("the Secret is created");
            fs::write(other.join("tls.crt"), "other").expect("the Secret is created");
        }
    });
    assert!(failed.is_err_and(|error| error.contains("already exists")));
    assert_eq!(cluster.read(CERTIFICATE, "tls.crt"), "other");
    cluster.create();
    assert_eq!(cluster.read(CERTIFICATE, "tls.crt"), "other");
}

#[test]
fn job_creates_nothing_if_the_api_server_does_not_respond() {
    let Some(cluster) = Cluster::new() else { return };
    fs::write(cluster.store().join("unreachable"), "").expect("the file is written");
    let failed = cluster.run(|_| {});
    assert!(failed.is_err_and(|error| error.starts_with("load: ")));
    assert!(cluster.secrets().is_empty());
    fs::remove_file(cluster.store().join("unreachable")).expect("the file is removed");
    cluster.create();
    assert_eq!(cluster.secrets().len(), 2);
}
