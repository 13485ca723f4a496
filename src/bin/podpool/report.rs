//! Prints the result of a check as text or JSON.

use std::{fmt::Write as _, time::Duration};

use podpool::Role;
use serde_json::{Value, json};

use crate::{
    diagnose::{Finding, Severity},
    facts::{Facts, PodFacts, Server},
    service, style,
};

pub(crate) fn text(facts: &Facts, findings: &[Finding], took: Duration) -> String {
    let mut out = format!("podpool check {}\n\n", service::url(&facts.config));
    for finding in findings {
        let severity = style::color(&format!("{:<8}", finding.severity.as_str()), color(finding.severity));
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "{severity} {:<8} {}", finding.step.as_str(), finding.cause);
        for pod in &finding.pods {
            let _ = writeln!(out, "{:18}- {pod}", "");
        }
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(out, "{:18}remedy: {remedy}", "");
        }
    }
    if !facts.pods.is_empty() {
        let rows: Vec<_> = facts.pods.iter().map(row).collect();
        let _ = write!(out, "\n{}", style::table(["POD", "ROLE", "SESSIONS", "TLS", "TIMELINE", "TIME"], &rows));
    }
    let _ = writeln!(out, "\n{} in {took:.2?}", verdict(findings));
    out
}

fn color(severity: Severity) -> u8 {
    match severity {
        Severity::Ok => 32,
        Severity::Note => 36,
        Severity::Warning => 33,
        Severity::Error => 31,
    }
}

fn verdict(findings: &[Finding]) -> String {
    let number = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    match (number(Severity::Error), number(Severity::Warning)) {
        (0, 0) => "no problem found".to_owned(),
        (errors, warnings) => format!("errors: {errors}, warnings: {warnings}"),
    }
}

fn row(pod: &PodFacts) -> [String; 6] {
    let cell = |value: &dyn Fn(&Server) -> Option<String>| pod.server().and_then(value).unwrap_or_else(|| "-".into());
    [
        pod.pod.clone(),
        cell(&|server| Some(server.role.to_string())),
        cell(&|server| Some(format!("{} of {}", server.sessions, server.ordinary_slots()))),
        cell(&|server| server.tls.as_deref().map(|tls| tls.split(' ').next().unwrap_or(tls).to_owned())),
        cell(&|server| server.timeline.map(|timeline| timeline.to_string())),
        format!("{:.0?}", Duration::from_millis(pod.took.as_millis().try_into().unwrap_or(u64::MAX))),
    ]
}

pub(crate) fn json(facts: &Facts, findings: &[Finding], took: Duration) -> Value {
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    let finding = |finding: &Finding| {
        json!({
            "step": finding.step.as_str(), "severity": finding.severity.as_str(), "pods": finding.pods,
            "cause": finding.cause, "remedy": finding.remedy,
        })
    };
    json!({
        "url": service::url(&facts.config),
        "result": worst.as_str(),
        "seconds": took.as_secs_f64(),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "pods": facts.pods.iter().map(pod).collect::<Vec<_>>(),
    })
}

fn pod(pod: &PodFacts) -> Value {
    let common = json!({
        "pod": pod.pod, "address": pod.address.as_ref().map(ToString::to_string), "seconds": pod.took.as_secs_f64(),
    });
    let specific = match &pod.visit {
        Err(failure) => json!({
            "error": failure.text, "phase": failure.phase.map(|phase| phase.as_str()), "sqlstate": failure.sqlstate,
        }),
        Ok(server) => json!({
            "role": server.role.as_str(), "version": server.version, "timeline": server.timeline,
            "system_identifier": server.system.map(|system| system.to_string()), "tls": server.tls,
            "sessions": server.sessions, "max_connections": server.max_connections, "reserved": server.reserved,
            "slots": server.slots, "position": server.position,
            "behind": (server.role == Role::Standby).then_some(server.behind),
            "clock_seconds": server.clock, "own_address": server.own_address.map(|address| address.to_string()),
        }),
    };
    match (common, specific) {
        (Value::Object(mut common), Value::Object(specific)) => {
            common.extend(specific);
            Value::Object(common)
        }
        (common, _) => common,
    }
}
