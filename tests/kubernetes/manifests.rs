//! Names, ports, selectors, probes and times, checked against each other.

use std::{collections::BTreeMap, fs, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::{Container, EnvVar, PodSpec, PodTemplateSpec, Probe},
        networking::v1::{NetworkPolicyPeer, NetworkPolicyPort},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use podpool::{
    Config,
    config::{Discovery, Host, Limits},
};

use crate::read::{FOLDER, Manifests, labels, spec};

/// The names that the documents use.
const NAMESPACE: &str = "k8s-training";
const SERVICE: &str = "postgresql-svc";
const SET: &str = "postgresql-sfs";
const PORT: &str = "postgresql-port";

/// The microservice's own times, where it keeps them.
const DRAIN: &str = include_str!("../../examples/microservice/drain.rs");
const QUERY: &str = include_str!("../../examples/microservice/query.rs");
const APP: &str = include_str!("../../examples/microservice/app.rs");

/// The number in `const NAME: … = …(number)…;` or `= number;`.
fn constant(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.trim_start().starts_with(&format!("const {name}:")));
    let value = line.and_then(|line| line.split_once('=')).unwrap_or_else(|| panic!("no constant {name}")).1;
    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn template<'a>(manifests: &'a Manifests, name: &str) -> &'a PodTemplateSpec {
    manifests.pods().get(name).copied().unwrap_or_else(|| panic!("nothing starts {name}"))
}

fn container(template: &PodTemplateSpec) -> &Container {
    let [container] = &spec(template).containers[..] else { panic!("expected one container") };
    container
}

/// The number of a port that may be given by its name.
fn port(pod: &PodSpec, port: &IntOrString) -> i32 {
    let ports = pod.containers.iter().flat_map(|container| container.ports.iter().flatten());
    match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = ports.filter(|port| port.name.as_ref() == Some(name));
            ports.next().unwrap_or_else(|| panic!("no container has a port {name}")).container_port
        }
    }
}

fn variable<'a>(container: &'a Container, name: &str) -> &'a EnvVar {
    let found = container.env.iter().flatten().find(|variable| variable.name == name);
    found.unwrap_or_else(|| panic!("{} has no variable {name}", container.name))
}

fn value<'a>(container: &'a Container, name: &str) -> &'a str {
    variable(container, name).value.as_deref().unwrap_or_else(|| panic!("{name} has no value of its own"))
}

fn selects(selector: &LabelSelector, pod: &PodTemplateSpec) -> bool {
    assert!(selector.match_expressions.is_none(), "not known to this test: {selector:?}");
    includes(selector.match_labels.as_ref().unwrap_or(&BTreeMap::new()), pod)
}

fn includes(selector: &BTreeMap<String, String>, pod: &PodTemplateSpec) -> bool {
    selector.iter().all(|(label, value)| labels(pod).get(label) == Some(value))
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().expect("not negative"))
}

fn pre_stop(container: &Container) -> Duration {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    seconds(hook.and_then(|hook| hook.sleep.as_ref()).expect("preStop sleeps").seconds)
}

fn grace(pod: &PodSpec) -> Duration {
    seconds(pod.termination_grace_period_seconds.expect("a grace period of its own"))
}

#[test]
fn everything_is_in_the_one_namespace() {
    let manifests = Manifests::read();
    assert_eq!(manifests.namespaces.keys().collect::<Vec<_>>(), [NAMESPACE]);
    for (kind, namespace) in &manifests.all {
        let expected = if kind == "Namespace" { None } else { Some(NAMESPACE) };
        assert_eq!(namespace.as_deref(), expected, "{kind}");
    }
}

#[test]
fn the_service_is_headless_and_stands_for_the_pods_of_the_set() {
    let manifests = Manifests::read();
    let service = manifests.services[SERVICE].spec.as_ref().unwrap();
    assert_eq!(service.cluster_ip.as_deref(), Some("None"));
    let set = manifests.stateful_sets[SET].spec.as_ref().unwrap();
    assert_eq!(set.service_name.as_deref(), Some(SERVICE));
    assert_eq!(set.replicas, Some(3));
    let [service_port] = &service.ports.as_ref().unwrap()[..] else { panic!("expected one port") };
    assert_eq!(service_port.name.as_deref(), Some(PORT));
    // What the pool is not told, it takes from the URL or from libpq: 5432.
    assert_eq!(service_port.port, 5432);
    // A headless Service has no proxy that could change the number.
    assert_eq!(port(spec(&set.template), service_port.target_port.as_ref().unwrap()), service_port.port);
    for (name, pod) in manifests.pods() {
        let selector = service.selector.as_ref().expect("a selector");
        assert_eq!(includes(selector, pod), name == SET, "the Service and the Pods of {name}");
    }
}

#[test]
fn selectors_select_their_own_pods_and_no_others() {
    let manifests = Manifests::read();
    let mut selectors: Vec<(&str, &str, &LabelSelector)> = Vec::new();
    for (name, set) in &manifests.stateful_sets {
        selectors.push((name, "its own selector", &set.spec.as_ref().unwrap().selector));
    }
    for (name, deployment) in &manifests.deployments {
        selectors.push((name, "its own selector", &deployment.spec.as_ref().unwrap().selector));
    }
    for (name, owner) in [("postgresql-pdb", SET), ("microservice-pdb", "microservice")] {
        selectors.push((owner, name, manifests.budgets[name].spec.as_ref().unwrap().selector.as_ref().unwrap()));
    }
    assert_eq!(manifests.budgets.len(), 2);
    for (owner, what, selector) in selectors {
        for (name, pod) in manifests.pods() {
            assert_eq!(selects(selector, pod), name == owner, "{owner}: {what} and the Pods of {name}");
        }
    }
    for (name, service) in &manifests.services {
        let service = service.spec.as_ref().unwrap();
        let selector = service.selector.as_ref().expect("a selector");
        let mut selected = manifests.pods().into_values().filter(|pod| includes(selector, pod));
        let pod = selected.next().unwrap_or_else(|| panic!("{name} selects nobody"));
        assert!(selected.next().is_none(), "{name} selects two kinds of Pods");
        service.ports.iter().flatten().for_each(|service| {
            port(spec(pod), service.target_port.as_ref().expect("a target port"));
        });
    }
}

#[test]
fn what_a_pod_mounts_and_reads_is_there() {
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
            if let Some(source) = &volume.secret {
                assert!(manifests.secrets.contains_key(source.secret_name.as_ref().unwrap()), "{name}: {source:?}");
            }
        }
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            for mount in container.volume_mounts.iter().flatten() {
                assert!(volumes.contains(&mount.name), "{name}: {} mounts {}", container.name, mount.name);
            }
            for variable in container.env.iter().flatten() {
                let source = variable.value_from.as_ref().and_then(|source| source.secret_key_ref.as_ref());
                let Some(source) = source else { continue };
                let secret = manifests.secrets[&source.name].string_data.as_ref().unwrap();
                assert!(secret.contains_key(&source.key), "{name}: no {} in {}", source.key, source.name);
            }
        }
    }
    // The files of the configuration, and the secrets, by the paths under which they are asked for.
    let (config, secrets) = (&manifests.config_maps["postgresql-config"], &manifests.secrets["postgresql-secret"]);
    let (config, secrets) = (config.data.as_ref().unwrap(), secrets.string_data.as_ref().unwrap());
    let pod = spec(template(&manifests, SET));
    let set = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let words = set.flat_map(|container| container.command.iter().flatten()).map(String::as_str);
    let text = words.chain(config.values().map(|text| &**text)).collect::<Vec<_>>().join("\n");
    let after = |prefix: &str| -> Vec<String> {
        let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        text.split(prefix).skip(1).map(name).collect()
    };
    let files = after("/etc/postgresql/");
    assert!(files.iter().all(|file| config.contains_key(file)), "{files:?}");
    assert!(config.keys().all(|key| files.contains(key)), "not asked for: {:?}", config.keys());
    let mut read = after("$SECRETS/");
    read.extend(after("$(secret "));
    read.retain(|key| key != "1" && !key.is_empty());
    assert!(secrets.keys().all(|key| read.contains(key)), "not asked for: {:?}, {read:?}", secrets.keys());
    assert!(read.iter().all(|key| secrets.contains_key(key)), "{read:?}");
}

#[test]
fn the_database_url_means_the_service_its_port_and_the_user_that_the_set_makes() {
    let manifests = Manifests::read();
    let microservice = container(template(&manifests, "microservice"));
    let password = variable(microservice, "APP_PASSWORD").value_from.as_ref().and_then(|v| v.secret_key_ref.as_ref());
    let password = password.expect("from a Secret");
    let password = &manifests.secrets[&password.name].string_data.as_ref().unwrap()[&password.key];
    let config: Config =
        value(microservice, "DATABASE_URL").replace("$(APP_PASSWORD)", password).parse().expect("a URL");
    let set = container(template(&manifests, SET));
    let Host::Service(host) = config.host() else { panic!("{:?}", config.host()) };
    assert_eq!(host.as_str(), format!("{SERVICE}.{NAMESPACE}.svc.cluster.local"));
    assert_eq!(value(set, "SERVICE"), SERVICE);
    assert_eq!(*config.discovery(), Discovery::Srv { port_name: PORT.to_owned() });
    assert_eq!((config.user(), config.dbname()), (value(set, "APP_USER"), value(set, "APP_DATABASE")));
    assert!(config.password().is_some());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    assert!(!password.is_empty() && password.chars().all(plain), "it would have to be written in another way in a URL");
}

#[test]
fn the_containers_of_a_database_pod_share_their_variables_and_paths() {
    let manifests = Manifests::read();
    let pod = spec(template(&manifests, SET));
    let [prepare] = &pod.init_containers.as_ref().unwrap()[..] else { panic!("expected one init container") };
    let server = &pod.containers[0];
    assert_eq!((&prepare.image, &prepare.env), (&server.image, &server.env));
    assert_eq!(prepare.volume_mounts, server.volume_mounts);
    assert!(server.command.as_ref().unwrap().contains(&"--cluster-name=$(POD_NAME)".to_owned()));
    // The data lies in the claimed volume, or it is gone with the Pod.
    let mounts = server.volume_mounts.as_ref().unwrap();
    let data = mounts.iter().find(|mount| mount.name == "data").expect("a mount").mount_path.clone();
    assert!(value(server, "PGDATA").starts_with(&(data.clone() + "/")));
    let conf = &manifests.config_maps["postgresql-config"].data.as_ref().unwrap()["postgresql.conf"];
    assert!(conf.contains(&format!("include_if_exists = '{data}/primary.conf'")));
}

#[test]
fn probes_ask_what_is_there() {
    let manifests = Manifests::read();
    let server = container(template(&manifests, SET));
    let microservice = template(&manifests, "microservice");
    let probes = |container: &Container| -> Vec<Probe> {
        let probes = [&container.startup_probe, &container.liveness_probe, &container.readiness_probe];
        probes.map(|probe| probe.clone().expect("three probes")).to_vec()
    };
    for probe in probes(server) {
        let command = probe.exec.expect("a command").command.unwrap();
        assert_eq!(command[0], "pg_isready");
        assert!(command.contains(&format!("--port={}", port(spec(template(&manifests, SET)), &named(PORT)))));
        let own = command.iter().find_map(|word| word.strip_prefix("--timeout=")).expect("a time-out");
        assert!(own.parse::<i32>().unwrap() < probe.timeout_seconds.unwrap(), "its own time-out comes first");
    }
    let listen = value(container(microservice), "LISTEN_ADDR");
    let listen: std::net::SocketAddr = listen.parse().expect("an address");
    assert!(listen.ip().is_unspecified(), "kubelet does not come from loopback");
    for (probe, path) in probes(container(microservice)).into_iter().zip(["/healthz", "/healthz", "/readyz"]) {
        let http = probe.http_get.expect("a request");
        assert_eq!(http.path.as_deref(), Some(path));
        assert!(APP.contains(&format!(".route(\"{path}\", get(")), "{path}");
        assert_eq!(port(spec(microservice), &http.port), i32::from(listen.port()));
    }
}

fn named(name: &str) -> IntOrString {
    IntOrString::String(name.to_owned())
}

#[test]
fn a_pod_has_the_time_that_its_end_takes() {
    let manifests = Manifests::read();
    let limits = Limits::default();
    let microservice = template(&manifests, "microservice");
    let longest = limits.acquire_timeout
        + Duration::from_millis(constant(QUERY, "SLEEP_MAX_MS"))
        + Duration::from_secs(constant(APP, "PATIENCE"));
    let cut = Duration::from_secs(constant(DRAIN, "LIMIT"));
    let needed = pre_stop(container(microservice)) + longest + cut + limits.close_timeout;
    assert!(grace(spec(microservice)) >= needed, "{:?} and {needed:?}", grace(spec(microservice)));
    // A database Pod leaves DNS when preStop begins. The pool asks again after at most `refresh_max` and a tenth, and
    // once more a second later before it believes.
    let set = template(&manifests, SET);
    let known = limits.refresh_max.mul_f64(1.1) + Duration::from_secs(1) + limits.dns_timeout;
    assert!(pre_stop(container(set)) >= known, "{known:?}");
    assert!(grace(spec(set)) >= pre_stop(container(set)) + Duration::from_secs(60), "time for a shutdown's checkpoint");
}

#[test]
fn everybody_runs_as_the_strictest_standard_for_pods_wants() {
    let manifests = Manifests::read();
    let enforced = manifests.namespaces[NAMESPACE].metadata.labels.as_ref().unwrap();
    assert_eq!(enforced["pod-security.kubernetes.io/enforce"], "restricted");
    for (name, template) in manifests.pods() {
        let pod = spec(template);
        let security = pod.security_context.as_ref().expect("a security context");
        assert_eq!(security.run_as_non_root, Some(true), "{name}");
        assert_ne!(security.run_as_user.expect("a user"), 0, "{name}");
        assert_eq!(security.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault", "{name}");
        assert_eq!(pod.automount_service_account_token, Some(false), "{name}");
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            let security = container.security_context.as_ref().expect("a security context");
            assert_eq!(security.allow_privilege_escalation, Some(false), "{name}");
            assert_eq!(security.read_only_root_filesystem, Some(true), "{name}");
            assert_eq!(security.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".to_owned()]), "{name}");
            let resources = container.resources.as_ref().expect("resources");
            let (requests, limits) = (resources.requests.as_ref().unwrap(), resources.limits.as_ref().unwrap());
            assert!(requests.contains_key("cpu") && requests.contains_key("memory"), "{name}");
            assert!(limits.contains_key("memory"), "{name}");
        }
    }
}

/// Whether one side of the policies lets a Pod talk to `to`, or hear from `from`, at a port.
struct Traffic<'a> {
    manifests: &'a Manifests,
}

impl Traffic<'_> {
    fn leaves(&self, from: &PodTemplateSpec, to: &PodTemplateSpec, number: i32) -> bool {
        self.rules(from, "Egress").any(|(peers, ports)| reaches(&peers, to) && opens(&ports, to, number))
    }

    fn arrives(&self, from: &PodTemplateSpec, to: &PodTemplateSpec, number: i32) -> bool {
        self.rules(to, "Ingress").any(|(peers, ports)| reaches(&peers, from) && opens(&ports, to, number))
    }

    /// The rules that hold for a Pod; there is at least one policy, or everything would be allowed.
    fn rules(
        &self,
        pod: &PodTemplateSpec,
        direction: &str,
    ) -> impl Iterator<Item = (Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)> {
        let policies = self.manifests.policies.values().filter_map(|policy| policy.spec.as_ref());
        let everybody = LabelSelector::default();
        let held: Vec<_> = policies
            .filter(|policy| policy.policy_types.as_ref().unwrap().iter().any(|it| it == direction))
            .filter(|policy| selects(policy.pod_selector.as_ref().unwrap_or(&everybody), pod))
            .collect();
        assert!(!held.is_empty(), "no policy for {:?}, {direction}", labels(pod));
        let mut rules = Vec::new();
        for policy in held {
            if direction == "Egress" {
                let egress = policy.egress.iter().flatten();
                rules.extend(egress.map(|r| (r.to.clone().unwrap_or_default(), r.ports.clone().unwrap_or_default())));
            } else {
                let ingress = policy.ingress.iter().flatten();
                rules
                    .extend(ingress.map(|r| (r.from.clone().unwrap_or_default(), r.ports.clone().unwrap_or_default())));
            }
        }
        rules.into_iter()
    }
}

fn reaches(peers: &[NetworkPolicyPeer], pod: &PodTemplateSpec) -> bool {
    peers.iter().any(|peer| match (&peer.pod_selector, &peer.namespace_selector) {
        (Some(selector), None) => selects(selector, pod),
        // Every namespace, ours too.
        (None, Some(namespaces)) => *namespaces == LabelSelector::default(),
        _ => false,
    })
}

fn opens(ports: &[NetworkPolicyPort], pod: &PodTemplateSpec, number: i32) -> bool {
    ports.iter().any(|open| open.protocol.as_deref() == Some("TCP") && port_of(pod, open) == Some(number))
}

fn port_of(pod: &PodTemplateSpec, open: &NetworkPolicyPort) -> Option<i32> {
    let ports = spec(pod).containers.iter().flat_map(|container| container.ports.iter().flatten());
    match open.port.as_ref()? {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            ports.filter(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port).next()
        }
    }
}

#[test]
fn policies_let_through_what_is_needed_and_no_more() {
    let manifests = Manifests::read();
    let traffic = Traffic { manifests: &manifests };
    let (set, microservice) = (template(&manifests, SET), template(&manifests, "microservice"));
    let both = |from, to, number| (traffic.leaves(from, to, number), traffic.arrives(from, to, number));
    assert_eq!(both(microservice, set, 5432), (true, true));
    assert_eq!(both(set, set, 5432), (true, true));
    assert_eq!(both(microservice, set, 5433), (false, false));
    assert_eq!(both(set, microservice, 8080), (false, true), "only the cluster's own requests");
    for pod in [set, microservice] {
        let dns = traffic.rules(pod, "Egress").any(|(peers, ports)| {
            let open = |protocol: &str| {
                let fifty_three = Some(IntOrString::Int(53));
                ports.iter().any(|port| port.protocol.as_deref() == Some(protocol) && port.port == fifty_three)
            };
            let label = |selector: &Option<LabelSelector>, label: &str| {
                selector.as_ref().and_then(|it| it.match_labels.as_ref()?.get(label).cloned())
            };
            let server = |peer: &NetworkPolicyPeer| {
                label(&peer.pod_selector, "k8s-app").as_deref() == Some("kube-dns")
                    && label(&peer.namespace_selector, "kubernetes.io/metadata.name").as_deref() == Some("kube-system")
            };
            open("UDP") && open("TCP") && peers.iter().any(server)
        });
        assert!(dns, "{:?} cannot ask DNS", labels(pod));
    }
}

#[test]
fn the_image_is_the_one_that_is_deployed() {
    let manifests = Manifests::read();
    let dockerfile = fs::read_to_string(format!("{FOLDER}/Dockerfile")).expect("a Dockerfile");
    let word = |instruction: &str| {
        let line = dockerfile.lines().rfind(|line| line.starts_with(instruction));
        line.unwrap_or_else(|| panic!("no {instruction}"))[instruction.len()..].trim().to_owned()
    };
    let pod = template(&manifests, "microservice");
    let image = format!("podpool-microservice:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container(pod).image.as_deref(), Some(&*image));
    assert!(dockerfile.contains(&format!("docker build -f examples/kubernetes/Dockerfile -t {image} .")));
    let security = spec(pod).security_context.as_ref().unwrap();
    let user = format!("{}:{}", security.run_as_user.unwrap(), security.run_as_group.unwrap());
    assert_eq!(word("USER"), user);
    assert_eq!(word("EXPOSE"), port(spec(pod), &named("http")).to_string());
    assert_eq!(word("FROM"), "scratch");
    assert!(dockerfile.contains("--example microservice"));
}
