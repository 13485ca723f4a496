//! The steps up to `login`, and the Pods that fail in them.

use std::io::ErrorKind;

use podpool::{
    Address, Phase, TlsReason,
    config::ssl::{SslMode, VerifiedName},
};

use super::{Finding, Severity, Step};
use crate::{
    facts::{Facts, Failure, PodFacts},
    service,
};

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for pod in &facts.pods {
        let Err(failure) = &pod.visit else { continue };
        let (step, cause, remedy) = explain(facts, failure);
        // Pods that fail for the same reason share a finding.
        match findings.iter_mut().find(|finding| finding.step == step && finding.cause == cause) {
            Some(_) if step == Step::Config => {}
            Some(finding) => finding.pods.push(pod.pod.clone()),
            None => {
                let pod = (step != Step::Config).then(|| pod.pod.clone());
                findings.push(Finding::new(step, Severity::Error, cause).on(pod).remedy(remedy));
            }
        }
    }
    for step in [Step::Tcp, Step::Tls, Step::Login] {
        let passed = facts.pods.iter().filter(|pod| has_passed(pod, step)).count();
        if passed > 0 {
            findings.push(passing(facts, step, passed));
        }
    }
    findings
}

/// Returns true if the Pod has passed the step.
fn has_passed(pod: &PodFacts, step: Step) -> bool {
    match &pod.visit {
        Ok(_) => true,
        // The step of an attempt that has not ended is unknown.
        Err(failure) => step_of(failure) > step && failure.phase != Some(Phase::Wait),
    }
}

/// Returns the step in which the Pod failed.
fn step_of(failure: &Failure) -> Step {
    match (failure.phase, failure.sqlstate.as_deref()) {
        (None, _) => Step::Config,
        (_, Some("53300")) => Step::Slots,
        (Some(Phase::Tcp), _) => Step::Tcp,
        (Some(Phase::Tls), _) => Step::Tls,
        (Some(Phase::Query), _) => Step::Role,
        _ => Step::Login,
    }
}

fn passing(facts: &Facts, step: Step, passed: usize) -> Finding {
    let pods = match facts.pods.len() {
        1 => "1 of 1 Pod".to_owned(),
        number => format!("{passed} of {number} Pods"),
    };
    match step {
        Step::Tcp => Finding::new(step, Severity::Ok, format!("{pods}: connections are accepted")),
        Step::Tls => tls(facts, &pods),
        _ => {
            let (user, dbname) = (facts.config.user(), facts.config.dbname());
            Finding::new(step, Severity::Ok, format!("{pods}: user `{user}` and database `{dbname}` are accepted"))
        }
    }
}

fn tls(facts: &Facts, pods: &str) -> Finding {
    let mode = facts.config.ssl_mode();
    let is_remote = |pod: &PodFacts| match &pod.address {
        Some(Address::Tcp(address)) => !address.ip().is_loopback(),
        _ => false,
    };
    let plain: Vec<_> = facts.servers().filter(|(_, server)| server.tls.is_none()).map(|(pod, _)| pod).collect();
    match facts.servers().find_map(|(_, server)| server.tls.as_deref()) {
        Some(tls) if plain.is_empty() => {
            Finding::new(Step::Tls, Severity::Ok, format!("{pods}: {tls} (sslmode={mode})"))
        }
        _ if plain.iter().any(|pod| is_remote(pod)) => {
            let cause = format!("connections are not encrypted (sslmode={mode})");
            Finding::new(Step::Tls, Severity::Note, cause)
                .on(plain.iter().map(|pod| pod.pod.clone()))
                .remedy("set sslmode=verify-full and sslrootcert, or security=strict, which refuses plain text")
        }
        _ if plain.is_empty() => Finding::new(Step::Tls, Severity::Ok, format!("{pods}: no failure (sslmode={mode})")),
        _ => Finding::new(Step::Tls, Severity::Ok, format!("not used, over loopback (sslmode={mode})")),
    }
}

/// Returns the step, the cause and the remedy of a failure.
fn explain(facts: &Facts, failure: &Failure) -> (Step, String, String) {
    let step = step_of(failure);
    let text = &failure.text;
    let (cause, remedy) = match step {
        Step::Config => ("the pool cannot be built".to_owned(), "correct the URL or the file that it names".to_owned()),
        Step::Tcp => tcp(facts, failure),
        Step::Tls => secure(facts, failure),
        Step::Slots => (
            "the server is full: all connection slots for ordinary users are in use".to_owned(),
            "find who holds them, as a superuser, for whom slots are reserved: `SELECT usename, application_name, \
             client_addr, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC`. Then lower \
             `pool_size` (or set `max_connections`) in the clients, or raise `max_connections` of the server"
                .to_owned(),
        ),
        Step::Role => (
            "the login succeeds, but a query fails".to_owned(),
            "execute it with psql on this Pod, and read the Pod's log".to_owned(),
        ),
        _ => login(facts, failure),
    };
    (step, format!("{cause}: {text}"), remedy)
}

fn tcp(facts: &Facts, failure: &Failure) -> (String, String) {
    let text = |cause: &str, remedy: &str| (cause.to_owned(), remedy.to_owned());
    match failure.io {
        Some(ErrorKind::ConnectionRefused) if facts.pods.iter().any(|pod| has_passed(pod, Step::Tcp)) => text(
            "no server listens on the port of this Pod",
            "PostgreSQL does not run in it: read its log (`kubectl logs`; `kubectl get pods -o wide` has the Pod of \
             each address), and start it. The pool uses the other Pods",
        ),
        Some(ErrorKind::ConnectionRefused) => (
            "no server listens on the port".to_owned(),
            format!(
                "the port in the URL is {}, and that of PostgreSQL is 5432 by default: compare it with the \
                 containerPort; if it is the same, PostgreSQL does not run (`kubectl logs`), or listens only on \
                 localhost (`listen_addresses`)",
                facts.config.port()
            ),
        ),
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => text(
            "there is no route to the Pod",
            "check the network of the node and of this machine: the addresses of Pods are usually reachable only from \
             inside the cluster",
        ),
        Some(ErrorKind::NotFound) => {
            text("there is no such socket", "the server does not run, or has another `unix_socket_directories` or port")
        }
        _ => text(
            "the Pod does not answer",
            "a NetworkPolicy or a firewall drops the packets, or the node is down (`kubectl get nodes`); from outside \
             of the cluster, Pods are usually not reachable",
        ),
    }
}

fn secure(facts: &Facts, failure: &Failure) -> (String, String) {
    let mode = facts.config.ssl_mode();
    let name = match facts.config.ssl().verified_name() {
        VerifiedName::Other(name) => name.to_string(),
        VerifiedName::Pod => format!("*.{}", facts.config.host()),
        _ => facts.config.host().to_string(),
    };
    let root = match facts.config.ssl().root_cert() {
        Some(root) => format!("sslrootcert={root}"),
        None => "sslrootcert is not set".to_owned(),
    };
    let (cause, remedy) = match failure.tls {
        Some(TlsReason::NotOffered) => (
            format!("sslmode={mode} requires TLS, but the server does not offer it"),
            "enable TLS on the server (`ssl=on`, with `ssl_cert_file` and `ssl_key_file`). Lower sslmode only if the \
             network is trusted"
                .to_owned(),
        ),
        Some(TlsReason::UnknownAuthority) => (
            format!("the server's certificate is signed by an unknown authority ({root})"),
            "set sslrootcert to the certificate of the authority that signed the server's certificate, from the same \
             Secret as the server's; after a change of the authority, mount the new one"
                .to_owned(),
        ),
        Some(TlsReason::WrongName) => (
            "the server's certificate is for another name".to_owned(),
            format!(
                "issue a certificate with the DNS name `{name}`, or set ssl_verify_name to a name that the certificate \
                 has"
            ),
        ),
        Some(TlsReason::Expired) => ("the server's certificate has expired".to_owned(), renew("issue a new one")),
        Some(TlsReason::NotYetValid) => (
            "the server's certificate is not valid yet".to_owned(),
            "compare the clocks of this machine and of the authority, or wait".to_owned(),
        ),
        Some(TlsReason::Revoked) => ("the server's certificate is revoked".to_owned(), renew("issue a new one")),
        Some(TlsReason::Refused) => (
            "the server ends the TLS handshake".to_owned(),
            "it requires or rejects a client certificate: set sslcert and sslkey to one that its `ssl_ca_file` has \
             signed"
                .to_owned(),
        ),
        _ => (
            "the TLS handshake fails".to_owned(),
            "read the server's log; a proxy between client and server must pass TLS through".to_owned(),
        ),
    };
    (cause, remedy)
}

fn renew(how: &str) -> String {
    format!("{how}, for example with cert-manager, and reload the server (`SELECT pg_reload_conf()`)")
}

fn login(facts: &Facts, failure: &Failure) -> (String, String) {
    let config = &facts.config;
    let (user, dbname) = (config.user(), config.dbname());
    let source = service::password_source(config);
    let is_plain = failure.text.contains("no encryption") || failure.text.contains("SSL off");
    match failure.sqlstate.as_deref() {
        Some("28P01") => (
            format!("the server rejects the password of user `{user}`"),
            format!(
                "the password comes from {source}: compare it with the Secret of the database; the user must exist \
                 with this password (`ALTER ROLE \"{user}\" PASSWORD '…'`)"
            ),
        ),
        Some("28000") if is_plain && config.ssl_mode() < SslMode::Require => (
            format!("the server requires TLS, but sslmode={} connects without it", config.ssl_mode()),
            "set sslmode=verify-full and sslrootcert (or at least sslmode=require)".to_owned(),
        ),
        Some("28000") => (
            format!("the server does not permit this login of user `{user}`"),
            format!(
                "pg_hba.conf needs a line for database `{dbname}`, user `{user}` and this client's address, with the \
                 right type (hostssl, hostnossl); or the role does not exist or has NOLOGIN"
            ),
        ),
        Some("3D000") => (
            format!("there is no database `{dbname}`"),
            format!(
                "correct the database in the URL's path (`psql -l` lists them), or create it: \
                 `CREATE DATABASE \"{dbname}\"`"
            ),
        ),
        Some("42501") => (
            format!("user `{user}` may not connect to database `{dbname}`"),
            format!("`GRANT CONNECT ON DATABASE \"{dbname}\" TO \"{user}\"`"),
        ),
        Some("57P03") => (
            "the server does not accept connections now".to_owned(),
            "it is starting, shutting down or recovering: wait, and follow its log (`kubectl logs -f`)".to_owned(),
        ),
        Some(_) => ("the server rejects the login".to_owned(), "read the server's log at this time".to_owned()),
        None if failure.phase == Some(Phase::Credentials) => (
            "there is no usable password".to_owned(),
            format!("the password comes from {source}: the file must exist, be readable and contain the password"),
        ),
        None if failure.phase == Some(Phase::Wait) => (
            "no connection is opened in time".to_owned(),
            "the server, the network or this machine is overloaded: compare with a longer connect_timeout, and look at \
             the processor time of the Pod and of this machine (CPU limits)"
                .to_owned(),
        ),
        None => (
            "the login fails".to_owned(),
            "the port may belong to another program than PostgreSQL, or require another authentication method"
                .to_owned(),
        ),
    }
}
