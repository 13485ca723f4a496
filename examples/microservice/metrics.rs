use std::fmt::{Display, Write as _};

use axum::{extract::State, http::header, response::IntoResponse};
use podpool::{EndpointStatus, Pool, Role, State as PodState, Status};

use crate::{app::App, endpoints::address};

const STATES: [PodState; 4] = [PodState::Probing, PodState::Healthy, PodState::Ejected, PodState::Draining];
const ROLES: [Role; 3] = [Role::Primary, Role::Standby, Role::Unknown];

/// The pool in Prometheus' text format.
pub(crate) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let mut text = Text(String::new());
    let status = app.pool.status();
    pods(&mut text, &app.pool, &status);
    resolution(&mut text, &status);
    counters(&mut text, &status);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0)
}

fn pods(text: &mut Text, pool: &Pool, status: &Status) {
    let addresses: Vec<_> = status.endpoints.iter().map(|pod| address(pool, &pod.endpoint)).collect();
    let pods = || addresses.iter().map(String::as_str).zip(&status.endpoints);
    let mut one = |name, kind, help, value: fn(&EndpointStatus) -> Option<f64>| {
        text.family(name, kind, help);
        for (addr, pod) in pods() {
            let labels = [("addr", addr), ("pod", pod.endpoint.name().unwrap_or_default())];
            if let Some(value) = value(pod) {
                text.sample(name, &labels, value);
            }
        }
    };
    let up = |pod: &EndpointStatus| Some(f64::from(u8::from(pod.is_usable())));
    one("podpool_endpoint_up", "gauge", "Whether the Pod serves.", up);
    one("podpool_endpoint_open", "gauge", "Open connections to the Pod.", |pod| Some(pod.open as f64));
    one("podpool_endpoint_idle", "gauge", "Open connections that nobody has borrowed.", |pod| Some(pod.idle as f64));
    one("podpool_endpoint_in_use", "gauge", "Open connections that are lent out.", |pod| Some(pod.in_use as f64));
    one("podpool_endpoint_waiting", "gauge", "Callers for whom the Pod would do.", |pod| Some(pod.waiting as f64));
    one("podpool_endpoint_picks_total", "counter", "Checkouts since the Pod was added.", |pod| Some(pod.picks as f64));
    one("podpool_endpoint_lag_bytes", "gauge", "Write-ahead log that a standby has not replayed yet.", |pod| {
        pod.lag_bytes.map(|bytes| bytes as f64)
    });
    one("podpool_endpoint_latency_seconds", "gauge", "How long the Pod takes to answer a statement.", |pod| {
        pod.latency.map(|latency| latency.as_secs_f64())
    });
    let mut one_of = |name, help, label, words: &[&str], is: fn(&EndpointStatus) -> &'static str| {
        text.family(name, "gauge", help);
        for (addr, pod) in pods() {
            for word in words {
                let labels = [("addr", addr), ("pod", pod.endpoint.name().unwrap_or_default()), (label, *word)];
                text.sample(name, &labels, u8::from(*word == is(pod)));
            }
        }
    };
    let states = STATES.map(PodState::as_str);
    let roles = ROLES.map(Role::as_str);
    let (state, role) = (|pod: &EndpointStatus| pod.state.as_str(), |pod: &EndpointStatus| pod.role.as_str());
    one_of("podpool_endpoint_state", "1 for the state that the Pod is in.", "state", &states, state);
    one_of("podpool_endpoint_role", "1 for the role that the Pod has.", "role", &roles, role);
}

fn resolution(text: &mut Text, status: &Status) {
    let resolve = &status.resolve;
    text.family("podpool_resolve_age_seconds", "gauge", "Since the last good answer to the Service's name.");
    if let Some(age) = resolve.age {
        text.sample("podpool_resolve_age_seconds", &[], age.as_secs_f64());
    }
    text.single("podpool_resolve_ok", "gauge", "Whether the last answer was a good one.", u64::from(resolve.ok));
    text.single("podpool_resolve_failures", "gauge", "Failures in a row since the last good answer.", resolve.failures);
}

fn counters(text: &mut Text, status: &Status) {
    let count = &status.counters;
    for (name, help, value) in [
        ("podpool_resolve_answers_total", "Good answers to the Service's name.", count.resolve_ok),
        ("podpool_resolve_failures_total", "Failures to resolve the Service's name.", count.resolve_failed),
        ("podpool_waits_total", "Checkouts that found nothing idle, or something to ping first.", count.waits),
        ("podpool_timeouts_total", "Checkouts that reached their deadline.", count.timeouts),
        ("podpool_connections_opened_total", "Connections opened.", count.opened),
        ("podpool_connections_failed_total", "Connections that could not be opened.", count.open_failed),
        ("podpool_connections_closed_total", "Connections closed.", count.closed),
        ("podpool_connections_settled_total", "Connections that came back in the middle of something.", count.recycled),
        ("podpool_connections_discarded_total", "Connections not lent out again.", count.discarded),
        ("podpool_retries_total", "Pieces of work that were done again.", count.retries),
    ] {
        text.single(name, "counter", help, value);
    }
}

/// A text in the format, as it grows.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        if labels.is_empty() {
            return self.line(format_args!("{name} {value}"));
        }
        let labels: Vec<_> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("a string takes everything");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
