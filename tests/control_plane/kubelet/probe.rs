//! Probes of containers.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{process::Command, time::timeout};

use crate::http::Connection;

/// A probe's check.
pub(super) enum Check {
    Command(Vec<String>),
    Get(SocketAddr, String),
}

/// The result of a probe after its thresholds.
pub(super) struct Thresholds {
    success: i32,
    failure: i32,
    /// Number of equal results: positive for successes, negative for failures.
    streak: i32,
}

impl Thresholds {
    pub(super) fn new(probe: &Probe) -> Self {
        Self { success: probe.success_threshold.unwrap_or(1), failure: probe.failure_threshold.unwrap_or(3), streak: 0 }
    }

    /// Adds a result. Returns the probe's new verdict, or `None` below the threshold.
    pub(super) fn add(&mut self, succeeded: bool) -> Option<bool> {
        self.streak = match succeeded {
            true => self.streak.max(0) + 1,
            false => self.streak.min(0) - 1,
        };
        match () {
            () if self.streak >= self.success => Some(true),
            () if -self.streak >= self.failure => Some(false),
            () => None,
        }
    }
}

pub(super) fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10)
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.map_or(default, |value| value.try_into().expect("a positive number")))
}

/// Returns a probe's check. Panics if no container uses this kind of probe yet.
pub(super) fn check(probe: &Probe, container: &Container, address: std::net::Ipv4Addr) -> Check {
    if let Some(exec) = &probe.exec {
        return Check::Command(exec.command.clone().unwrap_or_default());
    }
    let get = probe.http_get.as_ref().unwrap_or_else(|| panic!("unsupported probe: {probe:?}"));
    let port = match &get.port {
        IntOrString::Int(port) => *port,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let port = ports.find(|port| port.name.as_ref() == Some(name));
            port.unwrap_or_else(|| panic!("{} has no port {name}", container.name)).container_port
        }
    };
    let port = u16::try_from(port).expect("a port");
    Check::Get(SocketAddr::from((address, port)), get.path.clone().unwrap_or_else(|| "/".into()))
}

/// Runs a probe once. `command` returns a command in the container, or `None` if the container does not run.
pub(super) async fn run(probe: &Probe, check: &Check, command: impl Fn(&[String]) -> Option<Command>) -> bool {
    let result = async {
        match check {
            Check::Get(address, path) => http_get(*address, path).await.is_ok(),
            Check::Command(words) => match command(words) {
                Some(mut command) => {
                    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
                    status.await.is_ok_and(|status| status.success())
                }
                None => false,
            },
        }
    };
    timeout(seconds(probe.timeout_seconds, 1), result).await.unwrap_or(false)
}

/// Sends a request. Succeeds if the status is 2xx or 3xx.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> Result<(), String> {
    let get = async {
        let mut connection = Connection::open(address).await?;
        connection.send("GET", path, "").await?;
        connection.head().await
    };
    let head = get.await.map_err(|error: std::io::Error| format!("{address}{path}: {error}"))?;
    match head.status {
        200..400 => Ok(()),
        status => Err(format!("{address}{path}: {status}")),
    }
}
