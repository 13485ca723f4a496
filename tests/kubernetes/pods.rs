//! Tests the Pods' probes, grace periods, security settings and image.

use std::{fs, time::Duration};

use k8s_openapi::api::core::v1::{Container, Probe};
use podpool::config::Limits;

use crate::{
    lookup::{
        MICROSERVICE, NAMESPACE, PORT, SET, container, containers, grace_period, named, port, pre_stop, template, value,
    },
    read::{FOLDER, Manifests, spec},
};

// Source files of the microservice that define its time limits and routes.
const DRAIN: &str = include_str!("../../examples/microservice/drain.rs");
const QUERY: &str = include_str!("../../examples/microservice/query.rs");
const APP: &str = include_str!("../../examples/microservice/app.rs");

/// Returns the number in the definition `const NAME: … = …(number)…;` or `const NAME: … = number;`.
fn constant(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.trim_start().starts_with(&format!("const {name}:")));
    let value = line.and_then(|line| line.split_once('=')).unwrap_or_else(|| panic!("no constant {name}")).1;
    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("the constant is a number")
}

#[test]
fn probes_use_existing_ports_and_routes() {
    let manifests = Manifests::read();
    let (set, microservice) = (template(&manifests, SET), template(&manifests, MICROSERVICE));
    let probes = |container: &Container| -> Vec<Probe> {
        let probes = [&container.startup_probe, &container.liveness_probe, &container.readiness_probe];
        probes.map(|probe| probe.clone().expect("the container has three probes")).to_vec()
    };
    for probe in probes(container(set)) {
        let command = probe.exec.expect("the probe runs a command").command.unwrap();
        assert_eq!(command[0], "pg_isready");
        assert!(command.contains(&format!("--port={}", port(spec(set), &named(PORT)).expect("the Pod has the port"))));
        let timeout =
            command.iter().find_map(|word| word.strip_prefix("--timeout=")).expect("pg_isready has a timeout");
        assert!(
            timeout.parse::<i32>().unwrap() < probe.timeout_seconds.unwrap(),
            "expected pg_isready to time out before the probe"
        );
    }
    let listen = value(container(microservice), "LISTEN_ADDR");
    let listen: std::net::SocketAddr = listen.parse().expect("LISTEN_ADDR is an address");
    assert!(listen.ip().is_unspecified(), "the kubelet cannot connect to a loopback address");
    for (probe, path) in probes(container(microservice)).into_iter().zip(["/healthz", "/healthz", "/readyz"]) {
        let http = probe.http_get.expect("the probe sends a request");
        assert_eq!(http.path.as_deref(), Some(path));
        assert!(APP.contains(&format!(".route(\"{path}\", get(")), "{path}");
        assert_eq!(port(spec(microservice), &http.port), Some(i32::from(listen.port())));
    }
}

#[test]
fn grace_periods_are_long_enough_for_a_graceful_shutdown() {
    let manifests = Manifests::read();
    let limits = Limits::default();
    let microservice = template(&manifests, MICROSERVICE);
    let longest_request = limits.acquire_timeout
        + Duration::from_millis(constant(QUERY, "SLEEP_MAX_MS"))
        + Duration::from_secs(constant(APP, "STATEMENT_TIMEOUT"));
    let closing = Duration::from_secs(constant(DRAIN, "MAX_CLOSING"));
    let needed = pre_stop(container(microservice)) + longest_request + closing + limits.close_timeout;
    let available = grace_period(spec(microservice));
    assert!(available >= needed, "expected at least {needed:?}, got {available:?}");
    // A database Pod leaves DNS when its preStop hook begins. The pool resolves the name again after at most 1.1 times
    // `refresh_max`, and confirms the removal within 5 s.
    let set = template(&manifests, SET);
    let noticed = limits.refresh_max.mul_f64(1.1) + Duration::from_secs(5) + limits.dns_timeout;
    let pre_stop = pre_stop(container(set));
    assert!(pre_stop >= noticed, "expected at least {noticed:?}, got {pre_stop:?}");
    assert!(
        grace_period(spec(set)) >= pre_stop + Duration::from_secs(60),
        "expected at least a minute for the shutdown checkpoint"
    );
}

#[test]
fn pods_meet_the_restricted_security_standard() {
    let manifests = Manifests::read();
    let enforced = manifests.namespaces[NAMESPACE].metadata.labels.as_ref().unwrap();
    assert_eq!(enforced["pod-security.kubernetes.io/enforce"], "restricted");
    for (name, template) in manifests.pods() {
        let pod = spec(template);
        let security = pod.security_context.as_ref().expect("the Pod has a security context");
        assert_eq!(security.run_as_non_root, Some(true), "{name}");
        assert_ne!(security.run_as_user.expect("the Pod has a user"), 0, "{name}");
        assert_eq!(security.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault", "{name}");
        assert_eq!(pod.automount_service_account_token, Some(false), "{name}");
        for container in containers(template) {
            let security = container.security_context.as_ref().expect("the container has a security context");
            assert_eq!(security.allow_privilege_escalation, Some(false), "{name}");
            assert_eq!(security.read_only_root_filesystem, Some(true), "{name}");
            assert_eq!(security.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".to_owned()]), "{name}");
            let resources = container.resources.as_ref().expect("the container has resources");
            let (requests, limits) = (resources.requests.as_ref().unwrap(), resources.limits.as_ref().unwrap());
            assert!(requests.contains_key("cpu") && requests.contains_key("memory"), "{name}");
            assert!(limits.contains_key("memory"), "{name}");
        }
    }
}

#[test]
fn deployment_uses_the_image_that_the_dockerfile_builds() {
    let manifests = Manifests::read();
    let dockerfile = fs::read_to_string(format!("{FOLDER}/Dockerfile")).expect("the Dockerfile is readable");
    let argument = |instruction: &str| {
        let line = dockerfile.lines().rfind(|line| line.starts_with(instruction));
        line.unwrap_or_else(|| panic!("no {instruction}"))[instruction.len()..].trim().to_owned()
    };
    let pod = template(&manifests, MICROSERVICE);
    let image = format!("podpool-microservice:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container(pod).image.as_deref(), Some(&*image));
    assert!(dockerfile.contains(&format!("docker build -f examples/kubernetes/Dockerfile -t {image} .")));
    let security = spec(pod).security_context.as_ref().unwrap();
    let user = format!("{}:{}", security.run_as_user.unwrap(), security.run_as_group.unwrap());
    assert_eq!(argument("USER"), user);
    assert_eq!(argument("EXPOSE"), port(spec(pod), &named("http")).expect("the Pod has the port").to_string());
    assert_eq!(argument("FROM"), "scratch");
    assert!(dockerfile.contains("--example microservice"));
}
