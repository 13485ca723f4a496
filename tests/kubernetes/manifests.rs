//! Tests that the manifests agree with each other: names, ports, selectors, volumes and the database URL.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use podpool::{
    Config,
    config::{Discovery, Host},
};

use crate::{
    lookup::{
        CERTIFICATE, CONFIG, MICROSERVICE, NAMESPACE, PORT, SERVICE, SET, container, containers, includes, port,
        selects, service_name, template, value,
    },
    read::{Manifests, spec},
};

#[test]
fn all_objects_are_in_the_namespace() {
    let manifests = Manifests::read();
    assert_eq!(manifests.namespaces.keys().collect::<Vec<_>>(), [NAMESPACE]);
    for (kind, namespace) in &manifests.all {
        let expected = if kind == "Namespace" { None } else { Some(NAMESPACE) };
        assert_eq!(namespace.as_deref(), expected, "{kind}");
    }
}

#[test]
fn headless_service_selects_only_the_statefulset_pods() {
    let manifests = Manifests::read();
    let service = manifests.services[SERVICE].spec.as_ref().unwrap();
    assert_eq!(service.cluster_ip.as_deref(), Some("None"));
    let set = manifests.stateful_sets[SET].spec.as_ref().unwrap();
    assert_eq!(set.service_name.as_deref(), Some(SERVICE));
    assert_eq!(set.replicas, Some(3));
    let [service_port] = &service.ports.as_ref().unwrap()[..] else { panic!("expected one port") };
    assert_eq!(service_port.name.as_deref(), Some(PORT));
    // 5432 is the pool's default port.
    assert_eq!(service_port.port, 5432);
    // kube-proxy does not handle headless Services, so the port is not translated and must equal the container's.
    assert_eq!(port(spec(&set.template), service_port.target_port.as_ref().unwrap()), Some(service_port.port));
    for (name, pod) in manifests.pods() {
        let selector = service.selector.as_ref().expect("the Service has a selector");
        assert_eq!(includes(selector, pod), name == SET, "whether the Service selects the Pods of {name}");
    }
}

#[test]
fn selectors_match_only_their_own_pods() {
    let manifests = Manifests::read();
    let mut selectors: Vec<(&str, &str, &LabelSelector)> = Vec::new();
    for (name, set) in &manifests.stateful_sets {
        selectors.push((name, "selector", &set.spec.as_ref().unwrap().selector));
    }
    for (name, deployment) in &manifests.deployments {
        selectors.push((name, "selector", &deployment.spec.as_ref().unwrap().selector));
    }
    for (name, owner) in [("postgresql-pdb", SET), ("microservice-pdb", MICROSERVICE)] {
        selectors.push((owner, name, manifests.budgets[name].spec.as_ref().unwrap().selector.as_ref().unwrap()));
    }
    assert_eq!(manifests.budgets.len(), 2);
    for (owner, source, selector) in selectors {
        for (name, pod) in manifests.pods() {
            assert_eq!(
                selects(selector, pod),
                name == owner,
                "whether the {source} of {owner} selects the Pods of {name}"
            );
        }
    }
    for (name, service) in &manifests.services {
        let service = service.spec.as_ref().unwrap();
        let selector = service.selector.as_ref().expect("the Service has a selector");
        let mut selected = manifests.pods().into_values().filter(|pod| includes(selector, pod));
        let pod = selected.next().unwrap_or_else(|| panic!("{name} selects no Pods"));
        assert!(selected.next().is_none(), "{name} selects the Pods of two workloads");
        service.ports.iter().flatten().for_each(|service| {
            let target = service.target_port.as_ref().expect("the port has a target port");
            assert!(port(spec(pod), target).is_some(), "{name}: no container has the port {target:?}");
        });
    }
}

#[test]
fn mounted_volumes_and_referenced_keys_exist() {
    let manifests = Manifests::read();
    for (name, template) in manifests.pods() {
        let pod = spec(template);
        let claims =
            manifests.stateful_sets.get(name).and_then(|set| set.spec.as_ref()?.volume_claim_templates.as_ref());
        let claims = claims.into_iter().flatten().map(|claim| claim.metadata.name.clone().unwrap());
        let mut volumes: Vec<String> = claims.collect();
        for volume in pod.volumes.iter().flatten() {
            volumes.push(volume.name.clone());
            if let Some(source) = &volume.config_map {
                assert!(manifests.config_maps.contains_key(&source.name), "{name}: ConfigMap {}", source.name);
            }
            let Some(source) = &volume.secret else { continue };
            let secret = source.secret_name.as_ref().unwrap();
            let keys: Vec<&str> = match manifests.secrets.get(secret) {
                Some(secret) => secret.string_data.as_ref().unwrap().keys().map(|key| &**key).collect(),
                // Created by the Job or by cert-manager.
                None if secret == CERTIFICATE => vec!["ca.crt", "tls.crt", "tls.key"],
                None => panic!("{name}: no Secret {secret}"),
            };
            for item in source.items.iter().flatten() {
                assert!(keys.contains(&&*item.key), "{name}: no {} in {secret}", item.key);
            }
        }
        for container in containers(template) {
            for mount in container.volume_mounts.iter().flatten() {
                assert!(volumes.contains(&mount.name), "{name}: {} mounts {}", container.name, mount.name);
                // Kubernetes does not update files that are mounted with `subPath`.
                assert!(mount.sub_path.is_none() && mount.sub_path_expr.is_none(), "{name}: {}", mount.name);
            }
        }
    }
    // Every file in the ConfigMap and every key in the Secret is used, and every file and key that is used exists.
    let (config, secrets) = (&manifests.config_maps[CONFIG], &manifests.secrets["postgresql-secret"]);
    let (config, secrets) = (config.data.as_ref().unwrap(), secrets.string_data.as_ref().unwrap());
    let set = containers(template(&manifests, SET));
    let words = set.flat_map(|container| container.command.iter().flatten()).map(String::as_str);
    let text = words.chain(config.values().map(|text| &**text)).collect::<Vec<_>>().join("\n");
    let after = |prefix: &str| -> Vec<String> {
        let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        text.split(prefix).skip(1).map(name).collect()
    };
    let files = after("/etc/postgresql/");
    assert!(files.iter().all(|file| config.contains_key(file)), "{files:?}");
    assert!(config.keys().all(|key| files.contains(key)), "some of these files are not used: {:?}", config.keys());
    let mut read = after("$SECRETS/");
    read.extend(after("$(secret "));
    read.retain(|key| key != "1" && !key.is_empty());
    assert!(
        secrets.keys().all(|key| read.contains(key)),
        "some of these keys are not used: {:?}; used: {read:?}",
        secrets.keys()
    );
    assert!(read.iter().all(|key| secrets.contains_key(key)), "{read:?}");
}

#[test]
fn database_url_matches_the_service_and_the_database_user() {
    let manifests = Manifests::read();
    let microservice = container(template(&manifests, MICROSERVICE));
    let config: Config = value(microservice, "DATABASE_URL").parse().expect("the URL parses");
    assert!(config.validate().is_ok());
    let set = container(template(&manifests, SET));
    let Host::Service(host) = config.host() else { panic!("{:?}", config.host()) };
    assert_eq!(host.as_str(), service_name());
    assert_eq!(value(set, "SERVICE"), service_name());
    assert_eq!(*config.discovery(), Discovery::Srv { port_name: PORT.to_owned() });
    assert_eq!((config.user(), config.dbname()), (value(set, "APP_USER"), value(set, "APP_DATABASE")));
}

#[test]
fn database_containers_share_variables_and_volumes() {
    let manifests = Manifests::read();
    let pod = spec(template(&manifests, SET));
    let [prepare] = &pod.init_containers.as_ref().unwrap()[..] else { panic!("expected one init container") };
    let server = &pod.containers[0];
    assert_eq!((&prepare.image, &prepare.env), (&server.image, &server.env));
    assert_eq!(prepare.volume_mounts, server.volume_mounts);
    assert!(server.command.as_ref().unwrap().contains(&"--cluster-name=$(POD_NAME)".to_owned()));
    // The data is on the persistent volume, so that it outlives the Pod.
    let mounts = server.volume_mounts.as_ref().unwrap();
    let data = mounts.iter().find(|mount| mount.name == "data").expect("the volume is mounted").mount_path.clone();
    assert!(value(server, "PGDATA").starts_with(&(data.clone() + "/")));
    let conf = manifests.config(CONFIG, "postgresql.conf");
    assert!(conf.contains(&format!("include_if_exists = '{data}/primary.conf'")));
}
