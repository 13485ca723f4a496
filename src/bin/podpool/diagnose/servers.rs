//! The steps `proxy` and `role`.

use std::{collections::BTreeSet, net::SocketAddr};

use podpool::{Address, Role, Target};

use super::{Finding, Severity, Step};
use crate::facts::{Facts, PodFacts, Server};

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    if facts.servers().next().is_none() {
        return Vec::new();
    }
    let mut findings = vec![proxy(facts)];
    findings.extend(clusters(facts));
    findings.extend(roles(facts));
    findings
}

/// Looks for anything between the client and the servers.
fn proxy(facts: &Facts) -> Finding {
    let pods = |has: &dyn Fn(&PodFacts, &Server) -> bool| -> Vec<_> {
        facts.servers().filter(|(pod, server)| has(pod, server)).map(|(pod, _)| pod.pod.clone()).collect()
    };
    let pooled = pods(&|_, server| server.pooled);
    if !pooled.is_empty() {
        let cause = "a connection pooler such as PgBouncer is between the client and the server: the process that \
                     serves the session is not the one that was announced at login";
        let remedy = "name the headless Service of the PostgreSQL Pods in the URL, so that the pool sees every Pod; or \
                      keep the pooler, with reset=none if it pools transactions, and see docs/pgbouncer.md: failovers \
                      behind it are noticed later, and its own limits are not visible here";
        return Finding::new(Step::Proxy, Severity::Warning, cause).on(pooled).remedy(remedy);
    }
    let forwarded = pods(&|pod, server| forwards(pod.address.as_ref(), server.own_address));
    if !forwarded.is_empty() {
        let cause = "the server's own address is not the one that was dialed: connections are forwarded, by kube-proxy \
                     (a Service that is not headless), `kubectl port-forward`, or another proxy";
        let severity = if facts.pods.len() == 1 { Severity::Warning } else { Severity::Note };
        let remedy = "name a headless Service in the URL, so that the pool connects to the Pods themselves";
        return Finding::new(Step::Proxy, severity, cause).on(forwarded).remedy(remedy);
    }
    Finding::new(Step::Proxy, Severity::Ok, "no connection pooler or port forwarding was detected")
}

fn forwards(dialed: Option<&Address>, own: Option<SocketAddr>) -> bool {
    matches!((dialed, own), (Some(Address::Tcp(dialed)), Some(own)) if dialed.ip().to_canonical() != own.ip()
        || dialed.port() != own.port())
}

/// Returns a finding if the Pods do not belong together.
fn clusters(facts: &Facts) -> Option<Finding> {
    let systems: BTreeSet<_> = facts.servers().filter_map(|(_, server)| server.system).collect();
    if systems.len() < 2 {
        return None;
    }
    let pods = facts.servers().filter_map(|(pod, server)| Some(format!("{}: {}", pod.pod, server.system?)));
    let cause = "the Pods belong to different database clusters (their system identifiers differ)";
    let remedy = "correct the selector of the Service, or the volume of the Pod that was initialized anew; the pool \
                  uses only the Pods of one cluster";
    Some(Finding::new(Step::Role, Severity::Error, cause).on(pods).remedy(remedy))
}

fn roles(facts: &Facts) -> Vec<Finding> {
    let target = facts.config.target();
    let of = |role| facts.servers().filter(move |(_, server)| server.role == role);
    let standbys = match of(Role::Standby).count() {
        1 => "1 standby".to_owned(),
        number => format!("{number} standbys"),
    };
    let primaries: Vec<_> = of(Role::Primary).collect();
    let finding = |severity, cause: String| Finding::new(Step::Role, severity, cause);
    let mut findings = Vec::new();
    match &*primaries {
        [] => findings.push(no_primary(facts, target)),
        [(pod, server)] => {
            let timeline = server.timeline.map(|timeline| format!(", timeline {timeline}")).unwrap_or_default();
            findings.push(finding(Severity::Ok, format!("{} is the primary{timeline}; {standbys}", pod.pod)));
            if server.read_only {
                let severity = if target == Target::ReadWrite { Severity::Error } else { Severity::Warning };
                let cause = "the primary is read-only by default (default_transaction_read_only is on)".to_owned();
                findings.push(finding(severity, cause).on([pod.pod.clone()]).remedy(
                    "if nobody has set it on purpose: `ALTER SYSTEM RESET default_transaction_read_only` or \
                     `ALTER DATABASE … RESET …`, then `SELECT pg_reload_conf()`",
                ));
            }
        }
        several => {
            let timeline =
                |server: &Server| server.timeline.map_or("unknown".to_owned(), |timeline| timeline.to_string());
            let pods = several.iter().map(|(pod, server)| format!("{}: timeline {}", pod.pod, timeline(server)));
            let cause = format!("{} primaries run at the same time (split brain)", several.len());
            findings.push(finding(Severity::Error, cause).on(pods).remedy(
                "keep the one with the highest timeline, which was promoted last. Stop the other, save the writes \
                 that only it has, and make it a standby again (pg_rewind, or the operator's command). \
                 The pool does not use a primary with a lower timeline",
            ));
        }
    }
    if of(Role::Standby).next().is_none() && matches!(target, Target::Standby | Target::ReadOnly) {
        let cause = format!("no Pod is a standby, but target_session_attrs={target} requires one");
        let remedy = format!("add a standby, or set target_session_attrs={}", Target::PreferStandby);
        findings.push(finding(Severity::Error, cause).remedy(remedy));
    }
    findings
}

fn no_primary(facts: &Facts, target: Target) -> Finding {
    let failed = facts.pods.iter().filter(|pod| pod.visit.is_err()).count();
    let servers = facts.pods.len() - failed;
    let cause = match failed {
        0 => format!("no Pod is the primary: {servers} of {servers} are standbys"),
        _ => format!("no Pod that can be used is the primary: {servers} are standbys, and {failed} cannot be used"),
    };
    if matches!(target, Target::Standby | Target::ReadOnly) {
        let cause = format!("{cause}; target_session_attrs={target} needs none");
        return Finding::new(Step::Role, Severity::Note, cause);
    }
    let remedy = match failed {
        0 => {
            "writes wait until a standby is promoted: read the log of the operator or of Patroni (`patronictl list`); \
              without one, promote the standby with the highest position: `SELECT pg_promote()`"
        }
        _ => {
            "writes wait for a primary: repair the Pods above first, because one of them may be the primary; if none \
              comes back, promote a standby (`SELECT pg_promote()`, or the operator's command)"
        }
    };
    Finding::new(Step::Role, Severity::Error, cause).remedy(remedy)
}
