//! The steps `dns` and `service`.

use podpool::{config::Discovery, discovery::ResolveErrorKind};

use super::{Finding, Severity, Step};
use crate::facts::{Answer, Facts, HostFacts, LookupFailure};

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for host in &facts.hosts {
        match &host.lookup {
            None => findings.push(Finding::new(Step::Dns, Severity::Ok, format!("{} needs no lookup", host.host))),
            Some(Err(failure)) => findings.push(failed(facts, host, failure)),
            Some(Ok(answer)) => {
                findings.push(found(answer));
                findings.push(service(host, answer));
            }
        }
    }
    findings
}

fn found(answer: &Answer) -> Finding {
    let Answer { name, server, pods, ttl, .. } = answer;
    let source = match server {
        Some(server) => format!("name server {server}, valid for {} s", ttl.as_secs_f64().round()),
        None => "the hosts file or a reserved name, without DNS".to_owned(),
    };
    let addresses = match pods {
        1 => "1 address".to_owned(),
        number => format!("{number} addresses"),
    };
    Finding::new(Step::Dns, Severity::Ok, format!("{name} has {addresses} ({source})"))
}

/// Returns whether the name leads to the Pods themselves.
fn service(host: &HostFacts, answer: &Answer) -> Finding {
    let finding = |severity, cause: &str| Finding::new(Step::Service, severity, cause);
    match answer.cluster_ip {
        Some(ip) => Finding::new(
            Step::Service,
            Severity::Warning,
            format!(
                "{ip} is the ClusterIP of the Service, which is not headless: kube-proxy chooses the Pod of each \
                 connection, so the pool cannot tell the Pods apart, and a connection for writes may reach a standby"
            ),
        )
        .remedy(format!(
            "use a headless Service with the same selector (`clusterIP: None`), and its name in the URL; check with \
             `kubectl get service {}`: the column CLUSTER-IP must be `None`",
            kubectl(&host.host)
        )),
        None if answer.server.is_none() => finding(Severity::Ok, "the name is local"),
        None if answer.pods == 1 => finding(Severity::Ok, "the only address is not known to be a ClusterIP"),
        None => finding(Severity::Ok, "the name has an address for each Pod"),
    }
}

fn failed(facts: &Facts, host: &HostFacts, failure: &LookupFailure) -> Finding {
    let service = kubectl(&host.host);
    let reachable = "kube-system's CoreDNS Pods must run, and NetworkPolicies must allow UDP and TCP port 53; the name \
                     servers are those in /etc/resolv.conf, or the parameter `nameservers`";
    let remedy = match failure.kind {
        ResolveErrorKind::NoSuchName => format!(
            "correct the name or the namespace in the URL (`kubectl get service {service}`). A headless Service \
             without a ready Pod has no records either (`kubectl get pods`). Outside of the cluster, its names \
             exist only on its own name server: set the parameter `nameservers`"
        ),
        ResolveErrorKind::NoAddress => match facts.config.discovery() {
            Discovery::Srv { port_name } => format!(
                "the Service needs a port named `{port_name}` and a ready Pod: compare with \
                 `kubectl get service {service} -o yaml`"
            ),
            _ => format!("the Service has no ready Pod: compare its selector (`kubectl describe service {service}`)"),
        },
        ResolveErrorKind::Timeout | ResolveErrorKind::Io => format!("the name server does not respond: {reachable}"),
        ResolveErrorKind::NoNameServer => format!("no name server can be used: {reachable}"),
        ResolveErrorKind::ServerFailure(_) => {
            "the name server fails: read the log of CoreDNS (`kubectl logs -n kube-system -l k8s-app=kube-dns`)"
                .to_owned()
        }
        _ => format!("compare with `podpool resolve {}` and with the log of the name server", host.host),
    };
    Finding::new(Step::Dns, Severity::Error, format!("the name cannot be resolved: {}", failure.text)).remedy(remedy)
}

/// Returns the arguments that select the Service in kubectl: its name and, if the host contains it, its namespace.
fn kubectl(host: &str) -> String {
    let mut labels = host.trim_end_matches('.').split('.');
    match (labels.next(), labels.next()) {
        (Some(service), Some(namespace)) => format!("{service} -n {namespace}"),
        (Some(service), None) => service.to_owned(),
        _ => host.to_owned(),
    }
}
