//! Readiness: publishes the Pods whose Patroni reports that they are ready.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::{interval, timeout},
};
use tracing::warn;

use crate::{Endpoint, testkit::DnsServer, time::Duration};

/// Interval between two checks of a Pod, and the timeout of a check.
const PERIOD: Duration = Duration::from_secs(1);

/// Number of consecutive failed checks after which a Pod is not ready. This is Kubernetes' default.
const FAILURES: u32 = 3;

/// A task that checks each Pod like the kubelet does: `GET /readiness` of Patroni. Dropping it ends the checks.
#[derive(Debug)]
pub(super) struct Readiness {
    task: JoinHandle<()>,
    enabled: Arc<AtomicBool>,
}

impl Readiness {
    /// Starts the checks of Pods, each with the address of its REST API.
    pub(super) fn start(dns: &Arc<DnsServer>, service: &str, pods: Vec<(Endpoint, SocketAddr)>) -> Self {
        let enabled = Arc::new(AtomicBool::new(true));
        let mut checks = JoinSet::new();
        for (pod, api) in pods {
            checks.spawn(follow(Arc::clone(dns), service.to_owned(), pod, api, Arc::clone(&enabled)));
        }
        let task = tokio::spawn(async move { while checks.join_next().await.is_some() {} });
        Self { task, enabled }
    }

    /// Makes DNS follow the checks, or leaves it unchanged.
    pub(super) fn set_enabled(&self, enabled: bool) {
        // Relaxed: the flag orders no other memory access.
        self.enabled.store(enabled, Ordering::Relaxed);
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(dns: Arc<DnsServer>, service: String, pod: Endpoint, api: SocketAddr, enabled: Arc<AtomicBool>) {
    let (mut failed, mut ticks) = (FAILURES, interval(PERIOD));
    loop {
        ticks.tick().await;
        failed = if status(api, "readiness").await == Some(200) { 0 } else { failed.saturating_add(1) };
        // Relaxed: see `set_enabled`.
        let changed = match failed {
            _ if !enabled.load(Ordering::Relaxed) => Ok(()),
            0 => dns.add(&service, pod.clone()),
            1..FAILURES => Ok(()),
            _ => dns.remove(&service, &pod),
        };
        if let Err(error) = changed {
            warn!(%error, %pod, "cannot publish the readiness of a Pod of the local Patroni cluster");
        }
    }
}

/// Sends a GET request to Patroni's REST API and returns the status of the response, or `None` if there is no response
/// in time.
pub(super) async fn status(api: SocketAddr, path: &str) -> Option<u16> {
    let request = format!("GET /{path} HTTP/1.0\r\nConnection: close\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(api).await?;
        stream.write_all(request.as_bytes()).await?;
        // "HTTP/1.0 200"
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        std::io::Result::Ok(line)
    };
    let line = timeout(PERIOD, exchange).await.ok()?.ok()?;
    std::str::from_utf8(&line[9..]).ok()?.parse().ok()
}
