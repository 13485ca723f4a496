//! One view of the Pods, as text or JSON.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use podpool::{Endpoint, EndpointStatus, Status};
use serde_json::{Value, json};

use crate::style;

/// The sessions and transactions of all clients on one Pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) sessions: i64,
    /// Transactions per second since the previous view.
    pub(crate) rate: Option<f64>,
}

type PerPod = HashMap<Endpoint, Traffic>;

pub(crate) fn text(clock: &str, status: &Status, traffic: &PerPod, events: &[String]) -> String {
    let mut out = format!("{clock}  {}", status.resolve.source);
    // Writing to a `String` cannot fail.
    let _ = match (&status.resolve.error, status.resolve.age) {
        (Some(error), _) => write!(out, "\nlookups fail: {error}"),
        (None, Some(age)) => write!(out, ", resolved {:.0} s ago", age.as_secs_f64()),
        (None, None) => write!(out, ", not resolved yet"),
    };
    out.push_str("\n\n");
    let rows: Vec<_> = status.endpoints.iter().map(|pod| row(pod, traffic)).collect();
    let header = ["POD", "ROLE", "STATE", "SESSIONS", "SHARE", "TX/S", "SHARE", "LAG", "LATENCY"];
    out.push_str(&style::table(header, &rows));
    for pod in &status.endpoints {
        if let Some(reason) = reason(pod) {
            let _ = writeln!(out, "  {reason}");
        }
    }
    if !events.is_empty() {
        out.push('\n');
        events.iter().rev().for_each(|event| out.push_str(&format!("{event}\n")));
    }
    out
}

fn row(pod: &EndpointStatus, traffic: &PerPod) -> [String; 9] {
    let found = traffic.get(&pod.endpoint);
    let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let percent =
        |of: &dyn Fn(&Traffic) -> Option<f64>| share(pod, traffic, of).map(|share| format!("{:.0} %", share * 100.0));
    [
        pod.endpoint.to_string(),
        pod.role.to_string(),
        state(pod).to_owned(),
        cell(found.map(|traffic| traffic.sessions.to_string())),
        cell(percent(&|traffic| Some(traffic.sessions as f64))),
        cell(found.and_then(|traffic| Some(format!("{:.0}", traffic.rate?)))),
        cell(percent(&|traffic| traffic.rate)),
        cell(pod.lag.map(|lag| format!("{:.1} s", lag.as_secs_f64()))),
        cell(pod.latency.map(|latency| format!("{:.1} ms", milliseconds(latency)))),
    ]
}

/// Returns the Pod's part of a sum over all Pods.
fn share(pod: &EndpointStatus, traffic: &PerPod, of: &dyn Fn(&Traffic) -> Option<f64>) -> Option<f64> {
    let total: f64 = traffic.values().filter_map(of).sum();
    let own = of(traffic.get(&pod.endpoint)?)?;
    (total > 0.0).then(|| own / total)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Returns the most important property of the Pod's state.
fn state(pod: &EndpointStatus) -> &'static str {
    match pod {
        _ if pod.fenced.is_some() => "fenced",
        _ if pod.detached => "detached",
        _ if pod.retained => "retained",
        _ if pod.late => "late",
        _ if pod.suspect => "suspect",
        _ => pod.state.as_str(),
    }
}

/// Returns the reason why the Pod is not used.
fn reason(pod: &EndpointStatus) -> Option<String> {
    let fenced = pod.fenced.as_ref().map(|fence| format!("{} is not used: {fence}", pod.endpoint));
    fenced.or_else(|| pod.last_failure.clone())
}

pub(crate) fn json(clock: &str, status: &Status, traffic: &PerPod, events: &[String]) -> Value {
    let pod = |pod: &EndpointStatus| {
        let found = traffic.get(&pod.endpoint);
        json!({
            "pod": pod.endpoint.to_string(), "role": pod.role.as_str(), "state": state(pod),
            "usable": pod.is_usable() && !pod.late, "timeline": pod.timeline, "reason": reason(pod),
            "sessions": found.map(|traffic| traffic.sessions),
            "session_share": share(pod, traffic, &|traffic| Some(traffic.sessions as f64)),
            "transactions_per_second": found.and_then(|traffic| traffic.rate),
            "transaction_share": share(pod, traffic, &|traffic| traffic.rate),
            "lag_seconds": pod.lag.map(|lag| lag.as_secs_f64()), "lag_bytes": pod.lag_bytes,
            "latency_ms": pod.latency.map(milliseconds), "slots": pod.server_connections,
        })
    };
    json!({
        "time": clock, "pods": status.endpoints.iter().map(pod).collect::<Vec<_>>(), "events": events,
        "resolve": {
            "source": status.resolve.source, "ok": status.resolve.ok, "error": status.resolve.error,
            "age_seconds": status.resolve.age.map(|age| age.as_secs_f64()),
        },
    })
}
