//! A name server whose answers follow the Pods, and that can be broken in the ways name servers break.

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
use thread::Running;
use zone::Zone;

use super::{Error, lock, ports};
use crate::Endpoint;

/// The name that the Pods' port has in SRV records, unless set otherwise.
pub const DEFAULT_PORT_NAME: &str = "postgresql-port";

/// An authoritative name server on 127.0.0.1, UDP and TCP on one port, that answers as CoreDNS does for headless
/// Services: addresses of the Service, SRV records with the addresses beside them, each Pod's own name, NXDOMAIN when
/// nobody is there. The order of the records changes from answer to answer.
///
/// It runs on a thread of its own, so it answers whatever the caller's runtime is doing, and ends when it is dropped.
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
/// dns.stop().await; // gone, as when CoreDNS is restarted
/// dns.restart().await?; // back, on the same port
/// # Ok(())
/// # }
/// ```
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

impl DnsServer {
    /// Starts a server that knows one zone, such as `cluster.local`, and nobody in it yet. Answers may be kept for 5 s.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] where the zone's name is not one, [`Error::Io`] where no port can be had.
    pub async fn start(zone: &str) -> Result<Self, Error> {
        let named = |source| Error::name(zone, "is not a domain name", Some(source));
        let zone = Zone::new(zone, DEFAULT_PORT_NAME).map_err(named)?;
        let (udp, tcp) = ports::dns_sockets().map_err(|source| Error::io("bind the name server's port", source))?;
        let address = udp.local_addr().map_err(|source| Error::io("read the name server's port", source))?;
        let shared = Arc::new(Shared {
            zone: Mutex::new(zone),
            mode: Mutex::new(Mode::Answering),
            delay: Mutex::new(Duration::ZERO),
            counters: Counters::default(),
        });
        let running = Running::start(udp, tcp, Arc::clone(&shared)).await?;
        Ok(Self { address, shared, running: Mutex::new(Some(running)) })
    }

    /// Where it listens, over UDP and TCP; the same for its whole life.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The Pods published under a Service, in the order in which they were added.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] where the Service's name is not one of this zone.
    pub fn pods(&self, service: &str) -> Result<Vec<Endpoint>, Error> {
        let service = self.service(service)?;
        Ok(lock(&self.shared.zone).pods(&service).to_vec())
    }

    /// Publishes exactly these Pods under a Service; none at all makes its name unknown.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] where the Service's name is not one of this zone or a Pod's name is not one label.
    pub fn set_pods(&self, service: &str, pods: impl IntoIterator<Item = Endpoint>) -> Result<(), Error> {
        let service = self.service(service)?;
        let pods = pods.into_iter().map(one_label).collect::<Result<Vec<_>, _>>()?;
        lock(&self.shared.zone).change(service, |published| *published = pods);
        Ok(())
    }

    /// Publishes one Pod more. One that is published already stays published once.
    ///
    /// # Errors
    ///
    /// As [`set_pods`](Self::set_pods).
    pub fn add(&self, service: &str, pod: Endpoint) -> Result<(), Error> {
        let (service, pod) = (self.service(service)?, one_label(pod)?);
        lock(&self.shared.zone).change(service, |published| {
            if !published.contains(&pod) {
                published.push(pod);
            }
        });
        Ok(())
    }

    /// Takes one Pod out of a Service; nothing happens where it is not in it.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] where the Service's name is not one of this zone.
    pub fn remove(&self, service: &str, pod: &Endpoint) -> Result<(), Error> {
        let service = self.service(service)?;
        lock(&self.shared.zone).change(service, |published| published.retain(|other| other != pod));
        Ok(())
    }

    /// Sets how long answers may be kept, those about names that do not exist too. DNS counts whole seconds: a part
    /// of a second counts as one.
    pub fn set_ttl(&self, ttl: Duration) {
        lock(&self.shared.zone).set_ttl(ttl);
    }

    /// Sets the name of the Pods' port in SRV records: [`DEFAULT_PORT_NAME`] unless set.
    pub fn set_port_name(&self, port_name: &str) {
        lock(&self.shared.zone).set_port_name(port_name);
    }

    /// The name of the Pods' port in SRV records.
    #[must_use]
    pub fn port_name(&self) -> String {
        lock(&self.shared.zone).port_name().to_owned()
    }

    /// Sets how long each question waits for its answer: not at all unless set.
    pub fn set_delay(&self, delay: Duration) {
        *lock(&self.shared.delay) = delay;
    }

    /// From now on receives and never answers, like a name server that hangs.
    pub fn pause(&self) {
        *lock(&self.shared.mode) = Mode::Paused;
    }

    /// From now on answers every question with this code.
    pub fn fail(&self, code: ResponseCode) {
        *lock(&self.shared.mode) = Mode::Failing(code);
    }

    /// Ends [`pause`](Self::pause) and [`fail`](Self::fail): answers as it should. What came while it was paused stays
    /// unanswered.
    pub fn resume(&self) {
        *lock(&self.shared.mode) = Mode::Answering;
    }

    /// How many questions it has received, in all its life.
    #[must_use]
    pub fn queries(&self) -> Queries {
        self.shared.counters.read()
    }

    /// Closes the sockets, and every TCP connection: the port answers "refused". The records stay.
    pub async fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(running) = running {
            running.stop().await;
        }
    }

    /// Opens the same port again after [`stop`](Self::stop); nothing happens where it is open.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where another process has taken the port meanwhile.
    pub async fn restart(&self) -> Result<(), Error> {
        if self.is_running() {
            return Ok(());
        }
        let what = || format!("bind the name server's port {} again", self.address);
        let (udp, tcp) = ports::bind_dns(self.address).map_err(|source| Error::io(what(), source))?;
        let running = Running::start(udp, tcp, Arc::clone(&self.shared)).await?;
        *lock(&self.running) = Some(running);
        Ok(())
    }

    /// Whether its port is open.
    #[must_use]
    pub fn is_running(&self) -> bool {
        lock(&self.running).is_some()
    }

    fn service(&self, service: &str) -> Result<Name, Error> {
        let refused = |reason, source| Error::name(service, reason, source);
        lock(&self.shared.zone)
            .service(service)
            .map_err(|source| refused("is not a domain name", Some(source)))?
            .ok_or_else(|| refused("is outside the name server's zone", None))
    }
}

impl fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsServer").field("address", &self.address).field("running", &self.is_running()).finish()
    }
}

/// A Pod's name becomes one label of its DNS name.
fn one_label(pod: Endpoint) -> Result<Endpoint, Error> {
    let host = zone::hostname(&pod);
    let refused = |source| Error::name(&host, "is not one label of a domain name", source);
    match Name::from_ascii(&host) {
        Ok(name) if name.num_labels() == 1 => Ok(pod),
        Ok(_) => Err(refused(None)),
        Err(source) => Err(refused(Some(source))),
    }
}

#[cfg(test)]
mod tests;
