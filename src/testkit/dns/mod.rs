//! A DNS server that publishes Pods as CoreDNS does, and that can be stopped, paused, delayed or made to fail.
//!
//! [`zone`] contains the records, [`handler`] answers queries from them, and [`thread`] runs the sockets.

mod code;
mod handler;
mod queries;
mod thread;
mod zone;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_server::proto::rr::Name;

pub use code::ResponseCode;
use handler::{Counters, Mode, Shared};
pub use queries::Queries;
use thread::ServerThread;
use zone::Zone;

use super::{Error, lock, ports};
use crate::Endpoint;

/// The default name of the Pods' port in SRV records.
pub const DEFAULT_PORT_NAME: &str = "postgresql-port";

/// An authoritative DNS server on 127.0.0.1, over UDP and TCP on one port.
///
/// The server answers as CoreDNS does for headless Services: address records of the Service and of each Pod's name, SRV
/// records with additional address records, and NXDOMAIN for a Service without Pods. The order of the records changes
/// with every response.
///
/// The server has its own thread, so it responds even if the caller's runtime is busy or has ended. Dropping this value
/// stops the server.
///
/// ```
/// use podpool::{Endpoint, testkit::DnsServer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), podpool::testkit::Error> {
/// let service = "postgresql-svc.k8s-training.svc.cluster.local";
/// let dns = DnsServer::start("cluster.local").await?;
/// dns.add(service, Endpoint::named("postgresql-sfs-0", "127.0.0.2:5432".parse().unwrap()))?;
/// println!("nslookup -port={} {service} {}", dns.address().port(), dns.address().ip());
/// dns.stop().await; // the port is closed, as during a restart of CoreDNS
/// dns.restart().await?; // open again, on the same port
/// # Ok(())
/// # }
/// ```
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Mutex<Option<ServerThread>>,
}

impl DnsServer {
    /// Starts a server with one empty zone, such as `cluster.local`. The TTL of its records is 5 s.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for an invalid zone, [`Error::Io`] if no port can be opened.
    pub async fn start(zone: &str) -> Result<Self, Error> {
        let named = |source| Error::name(zone, "not a domain name", Some(source));
        let zone = Zone::new(zone, DEFAULT_PORT_NAME).map_err(named)?;
        let (udp, tcp) = ports::dns_sockets().map_err(|source| Error::io("bind the DNS server's port", source))?;
        let address = udp.local_addr().map_err(|source| Error::io("read the DNS server's port", source))?;
        let shared = Arc::new(Shared {
            zone: Mutex::new(zone),
            mode: Mutex::new(Mode::Answering),
            delay: Mutex::new(Duration::ZERO),
            counters: Counters::default(),
        });
        let thread = ServerThread::start(udp, tcp, Arc::clone(&shared)).await?;
        Ok(Self { address, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Returns the server's address for UDP and TCP. A restart does not change it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the Pods published under a Service, in the order in which they were added.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] if the Service's name is not in the zone.
    pub fn pods(&self, service: &str) -> Result<Vec<Endpoint>, Error> {
        let service = self.service(service)?;
        Ok(lock(&self.shared.zone).pods(&service).to_vec())
    }

    /// Replaces the Pods published under a Service. A Service without Pods does not exist (NXDOMAIN).
    ///
    /// # Errors
    ///
    /// [`Error::Name`] if the Service's name is not in the zone, or if a Pod's name is not a single label.
    pub fn set_pods(&self, service: &str, pods: impl IntoIterator<Item = Endpoint>) -> Result<(), Error> {
        let service = self.service(service)?;
        let pods = pods.into_iter().map(one_label).collect::<Result<Vec<_>, _>>()?;
        lock(&self.shared.zone).change(service, |published| *published = pods);
        Ok(())
    }

    /// Publishes a Pod under a Service. Does nothing if the Pod is already published.
    ///
    /// # Errors
    ///
    /// The same as for [`set_pods`](Self::set_pods).
    pub fn add(&self, service: &str, pod: Endpoint) -> Result<(), Error> {
        let (service, pod) = (self.service(service)?, one_label(pod)?);
        lock(&self.shared.zone).change(service, |published| {
            if !published.contains(&pod) {
                published.push(pod);
            }
        });
        Ok(())
    }

    /// Removes a Pod from a Service. Does nothing if the Pod is not published.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] if the Service's name is not in the zone.
    pub fn remove(&self, service: &str, pod: &Endpoint) -> Result<(), Error> {
        let service = self.service(service)?;
        lock(&self.shared.zone).change(service, |published| published.retain(|other| other != pod));
        Ok(())
    }

    /// Sets the TTL of all records and of negative responses, rounded up to whole seconds.
    pub fn set_ttl(&self, ttl: Duration) {
        lock(&self.shared.zone).set_ttl(ttl);
    }

    /// Sets the name of the Pods' port in SRV records. Default: [`DEFAULT_PORT_NAME`].
    pub fn set_port_name(&self, port_name: &str) {
        lock(&self.shared.zone).set_port_name(port_name);
    }

    /// Returns the name of the Pods' port in SRV records.
    #[must_use]
    pub fn port_name(&self) -> String {
        lock(&self.shared.zone).port_name().to_owned()
    }

    /// Sets the delay of every response. Default: none.
    pub fn set_delay(&self, delay: Duration) {
        *lock(&self.shared.delay) = delay;
    }

    /// Stops responding but keeps the port open, like a DNS server that hangs.
    pub fn pause(&self) {
        *lock(&self.shared.mode) = Mode::Paused;
    }

    /// Responds to every query with this code from now on.
    pub fn fail(&self, code: ResponseCode) {
        *lock(&self.shared.mode) = Mode::Failing(code);
    }

    /// Answers queries again after [`pause`](Self::pause) or [`fail`](Self::fail). Queries received during a pause
    /// remain unanswered.
    pub fn resume(&self) {
        *lock(&self.shared.mode) = Mode::Answering;
    }

    /// Returns the number of queries received since the server was created.
    #[must_use]
    pub fn queries(&self) -> Queries {
        self.shared.counters.read()
    }

    /// Closes the port and all TCP connections, so that new connections are refused. The records stay.
    pub async fn stop(&self) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            thread.stop().await;
        }
    }

    /// Reopens the port after [`stop`](Self::stop). Does nothing if the port is open.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if another process has taken the port.
    pub async fn restart(&self) -> Result<(), Error> {
        if self.is_running() {
            return Ok(());
        }
        let action = || format!("bind the DNS server's address {} again", self.address);
        let (udp, tcp) = ports::bind_dns(self.address).map_err(|source| Error::io(action(), source))?;
        let thread = ServerThread::start(udp, tcp, Arc::clone(&self.shared)).await?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// Returns true if the port is open.
    #[must_use]
    pub fn is_running(&self) -> bool {
        lock(&self.thread).is_some()
    }

    fn service(&self, service: &str) -> Result<Name, Error> {
        let refused = |reason, source| Error::name(service, reason, source);
        lock(&self.shared.zone)
            .service(service)
            .map_err(|source| refused("not a domain name", Some(source)))?
            .ok_or_else(|| refused("outside the DNS server's zone", None))
    }
}

impl fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsServer").field("address", &self.address).field("running", &self.is_running()).finish()
    }
}

/// Returns an error unless the Pod's host name is a single DNS label.
fn one_label(pod: Endpoint) -> Result<Endpoint, Error> {
    let host = zone::hostname(&pod);
    let refused = |source| Error::name(&host, "not a single DNS label", source);
    match Name::from_ascii(&host) {
        Ok(name) if name.num_labels() == 1 => Ok(pod),
        Ok(_) => Err(refused(None)),
        Err(source) => Err(refused(Some(source))),
    }
}

#[cfg(test)]
mod tests;
