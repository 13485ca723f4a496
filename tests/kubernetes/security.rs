//! Tests that passwords and keys are mounted as files, and that the servers accept only TLS connections of known users.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Container, PodTemplateSpec, SecretVolumeSource},
    rbac::v1::PolicyRule,
};
use podpool::{
    Config,
    config::ssl::{ChannelBinding, RootCert, SslMode, VerifiedName},
};

use crate::{
    lookup::{AUTHORITY, CERTIFICATE, CONFIG, JOB, MICROSERVICE, SET, container, containers, template, value},
    read::{Manifests, spec},
};

/// Returns the Secret that is mounted at this path in a container.
fn mounted<'a>(template: &'a PodTemplateSpec, container: &Container, path: &str) -> &'a SecretVolumeSource {
    let mount = container.volume_mounts.iter().flatten().find(|mount| mount.mount_path == path);
    let mount = mount.unwrap_or_else(|| panic!("nothing is mounted at {path}"));
    let volume = spec(template).volumes.iter().flatten().find(|volume| volume.name == mount.name);
    volume.and_then(|volume| volume.secret.as_ref()).unwrap_or_else(|| panic!("no Secret is mounted at {path}"))
}

/// Returns the files of a mounted Secret. `None` if all of its keys are mounted.
fn files(secret: &SecretVolumeSource) -> Option<Vec<&str>> {
    Some(secret.items.as_ref()?.iter().map(|item| &*item.path).collect())
}

/// Returns the lines of a configuration file without comments, split into words.
fn lines(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn no_password_is_in_an_environment_variable() {
    let manifests = Manifests::read();
    let secrets = manifests.secrets.values().flat_map(|secret| secret.string_data.iter().flatten());
    let passwords: Vec<_> = secrets.map(|(_, password)| password).collect();
    assert_eq!(passwords.len(), 3);
    for (name, template) in manifests.pods() {
        for container in containers(template) {
            assert!(container.env_from.is_none(), "{name}");
            for variable in container.env.iter().flatten() {
                let source = variable.value_from.as_ref().and_then(|source| source.secret_key_ref.as_ref());
                assert!(source.is_none(), "{name}: {} is from a Secret", variable.name);
                let text = variable.value.as_deref().unwrap_or_default();
                assert!(passwords.iter().all(|password| !text.contains(&**password)), "{name}: {}", variable.name);
            }
        }
    }
}

#[test]
fn microservice_verifies_the_servers_and_reads_its_password_from_a_file() {
    let manifests = Manifests::read();
    let microservice = template(&manifests, MICROSERVICE);
    let main = container(microservice);
    let url = value(main, "DATABASE_URL");
    let config: Config = url.parse().expect("the URL parses");
    assert!(config.password().is_none());
    assert_eq!(config.ssl_mode(), SslMode::VerifyFull);
    assert_eq!(config.ssl().channel_binding(), ChannelBinding::Require);
    assert_eq!(*config.ssl().verified_name(), VerifiedName::Service);
    let split = |path: &str| path.rsplit_once('/').map(|(folder, file)| (folder.to_owned(), file.to_owned()));
    let ca = config.ssl().root_cert().and_then(RootCert::path).expect("the certificate of the authority is in a file");
    let (folder, file) = split(&ca.display().to_string()).expect("a path");
    let certificate = mounted(microservice, main, &folder);
    assert_eq!(certificate.secret_name.as_deref(), Some(CERTIFICATE));
    // Only the certificate of the authority, not the private key of the servers.
    assert_eq!((files(certificate), &*file), (Some(vec!["ca.crt"]), "ca.crt"));

    let password = config.password_file().expect("the password is in a file").display().to_string();
    let (folder, file) = split(&password).expect("a path");
    let secret = mounted(microservice, main, &folder);
    // Only this password, not those of the superuser and of replication.
    assert_eq!(files(secret), Some(vec![&*file]));
    assert_eq!(file, "app-password");
    for secret in [certificate, secret] {
        assert_eq!(secret.default_mode, Some(0o440));
    }
    // The files belong to root and to this group.
    let security = spec(microservice).security_context.as_ref().expect("the Pod has a security context");
    assert_eq!(security.fs_group, security.run_as_group);
}

#[test]
fn servers_use_the_mounted_certificate() {
    let manifests = Manifests::read();
    let conf = lines(manifests.config(CONFIG, "postgresql.conf"));
    let settings: BTreeMap<_, _> =
        conf.iter().filter(|line| line[1] == "=").map(|line| (line[0], line[2].trim_matches('\''))).collect();
    assert_eq!(settings["ssl"], "on");
    assert!(["TLSv1.2", "TLSv1.3"].contains(&settings["ssl_min_protocol_version"]));
    assert_eq!(settings["password_encryption"], "scram-sha-256");
    let set = template(&manifests, SET);
    let folder = value(container(set), "TLS");
    assert_eq!(settings["ssl_cert_file"], format!("{folder}/tls.crt"));
    assert_eq!(settings["ssl_key_file"], format!("{folder}/tls.key"));
    for container in containers(set) {
        let secret = mounted(set, container, folder);
        assert_eq!((secret.secret_name.as_deref(), files(secret)), (Some(CERTIFICATE), None), "{}", container.name);
        // PostgreSQL rejects a private key that belongs to root and has more permissions (manual, "Secure TCP/IP
        // Connections with SSL").
        assert_eq!(secret.default_mode, Some(0o640), "{}", container.name);
    }
    let security = spec(set).security_context.as_ref().expect("the Pod has a security context");
    assert_eq!(security.fs_group, security.run_as_group);
    // prepare.sh connects to other Pods.
    let prepare = manifests.config(CONFIG, "prepare.sh");
    assert!(prepare.contains("sslmode=verify-full sslrootcert=$TLS/ca.crt channel_binding=require"));
    assert!(!prepare.contains("--host=\"$1\""));
}

#[test]
fn pg_hba_accepts_only_tls_and_scram_from_known_users() {
    let manifests = Manifests::read();
    let set = container(template(&manifests, SET));
    let rules = lines(manifests.config(CONFIG, "pg_hba.conf"));
    let mut accepted = Vec::new();
    for rule in &rules {
        match **rule {
            ["local", "all", "postgres", "peer"] | ["hostnossl" | "host", "all", "all", "all", "reject"] => {}
            ["hostssl", database, user, "all", "scram-sha-256"] => accepted.push((database, user)),
            _ => panic!("unexpected rule: {rule:?}"),
        }
    }
    let application = (value(set, "APP_DATABASE"), value(set, "APP_USER"));
    assert_eq!(accepted, [application, ("replication", "replicator"), ("postgres", "replicator")]);
    assert_eq!(rules.last().expect("a rule")[..], ["host", "all", "all", "all", "reject"]);
}

#[test]
fn certificate_job_may_only_create_secrets_and_read_its_own() {
    let manifests = Manifests::read();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let rule = |verb: &str, names: Option<&[&str]>| PolicyRule {
        api_groups: Some(words(&[""])),
        resources: Some(words(&["secrets"])),
        resource_names: names.map(words),
        verbs: words(&[verb]),
        ..PolicyRule::default()
    };
    let expected = [rule("create", None), rule("get", Some(&[AUTHORITY, CERTIFICATE]))];
    assert_eq!(manifests.roles.keys().collect::<Vec<_>>(), [JOB]);
    assert_eq!(manifests.roles[JOB].rules.as_deref(), Some(&expected[..]));
    let binding = &manifests.role_bindings[JOB];
    assert_eq!((&*binding.role_ref.kind, &*binding.role_ref.name), ("Role", JOB));
    let [subject] = &binding.subjects.as_ref().expect("a subject")[..] else { panic!("expected one subject") };
    assert_eq!((&*subject.kind, &*subject.name), ("ServiceAccount", JOB));
    assert!(manifests.accounts.contains_key(JOB));
    let job = template(&manifests, JOB);
    assert_eq!(spec(job).service_account_name.as_deref(), Some(JOB));
    // Only the containers that run kubectl have the token.
    for container in containers(job) {
        let token = container.volume_mounts.iter().flatten().any(|mount| mount.name == "token");
        assert_eq!(token, container.image.as_deref().is_some_and(|image| image.contains("kubectl")), "{container:?}");
    }
    for (name, template) in manifests.pods() {
        let secrets = spec(template).volumes.iter().flatten().filter_map(|volume| volume.secret.as_ref());
        for secret in secrets {
            assert_ne!(secret.secret_name.as_deref(), Some(AUTHORITY), "{name} mounts the key of the authority");
        }
        assert!(name == JOB || spec(template).service_account_name.is_none(), "{name}");
    }
}
