//! A DNS server that injects faults into its responses.
//!
//! Unlike `DnsServer`, which behaves like CoreDNS, [`FaultDns`] drops, delays, truncates and forges responses. Faults
//! apply to all queries, to one record type, or to the n-th query. The server logs every query. It listens on
//! 127.0.0.1, over UDP and TCP on one port.

mod answer;
mod fault;
mod record;
mod serve;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hickory_resolver::proto::{
    op::{Message, Query},
    rr::Name,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::{AbortHandle, JoinHandle},
    time::Instant,
};

pub use hickory_resolver::proto::rr::{Record, RecordType};

pub use self::{
    fault::{Fault, Packet, Tcp},
    record::{address, alias, pointer, service, weighted_service},
};
use self::{
    record::parse,
    serve::{serve_tcp, serve_udp},
};

/// The default TTL of records, in seconds. CoreDNS has the same default.
pub const TTL: u32 = 5;

/// A DNS server with injected faults. It runs on the caller's runtime.
///
/// Dropping this value stops the server but does not wait until the port is closed. [`stop`](FaultDns::stop) waits.
#[derive(Debug)]
pub struct FaultDns {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    records: Vec<Record>,
    faults: Vec<Rule>,
    log: Vec<Packet>,
    /// The fault of the last UDP query for each name and type. A TCP query for this name and type gets the fault too,
    /// because it repeats a UDP query whose response was truncated.
    last: Vec<((Name, RecordType), Fault)>,
    tcp: Vec<AbortHandle>,
}

#[derive(Debug)]
struct Rule {
    /// The record type of matching queries. `None`: every type.
    kind: Option<RecordType>,
    fault: Fault,
    /// Number of matching queries to skip before the fault applies.
    skip: usize,
    /// Number of further queries that get the fault.
    left: usize,
}

impl FaultDns {
    /// Starts a server without records on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// If no port can be opened.
    pub async fn start() -> io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts a server without records at this address. Port 0 selects a free port.
    ///
    /// # Errors
    ///
    /// If the port cannot be opened.
    pub async fn start_at(address: SocketAddr) -> io::Result<Self> {
        let mut tries = 0;
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind(address).await?;
            match TcpListener::bind(udp.local_addr()?).await {
                Ok(tcp) => break (udp, tcp),
                // Another program uses the TCP port with the number of this UDP port, so try another port.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 && tries < 20 => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let address = udp.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let tasks =
            vec![tokio::spawn(serve_udp(Arc::new(udp), shared.clone())), tokio::spawn(serve_tcp(tcp, shared.clone()))];
        Ok(Self { address, shared, tasks })
    }

    /// Returns the server's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the address records of `name`, a fully qualified name with a final dot. Their TTL is [`TTL`].
    ///
    /// # Panics
    ///
    /// If `name` is not a domain name, or an address is not an IP address.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let records = addresses.iter().map(|ip| address(name, TTL, ip)).collect();
        self.set_records(name, records);
    }

    /// Replaces the records of `name` and of all names below it.
    ///
    /// # Panics
    ///
    /// If `name` is not a domain name.
    pub fn set_records(&self, name: &str, records: Vec<Record>) {
        let zone = parse(name);
        let mut shared = self.shared();
        shared.records.retain(|record| !zone.zone_of(&record.name));
        shared.records.extend(records);
    }

    /// Applies a fault to every query from now on, and removes all earlier faults.
    pub fn always(&self, fault: Fault) {
        self.shared().faults = vec![Rule { kind: None, fault, skip: 0, left: usize::MAX }];
    }

    /// Applies a fault to every query for this record type from now on.
    pub fn on(&self, kind: RecordType, fault: Fault) {
        self.nth(Some(kind), 0, usize::MAX, fault);
    }

    /// Skips the next `skip` queries, and applies a fault to the `count` queries after them. If `kind` is given, only
    /// queries for that record type count. If several faults match a query, the most recently added one applies.
    pub fn nth(&self, kind: Option<RecordType>, skip: usize, count: usize, fault: Fault) {
        self.shared().faults.push(Rule { kind, fault, skip, left: count });
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.shared().faults.clear();
    }

    /// Returns the queries that were logged since the last call.
    pub fn take_log(&self) -> Vec<Packet> {
        std::mem::take(&mut self.shared().log)
    }

    /// Clears the log and removes used-up faults and closed connections, so that memory stays bounded in long tests.
    /// Returns the number of remaining faults.
    pub fn prune(&self) -> usize {
        let mut shared = self.shared();
        shared.log.clear();
        shared.faults.retain(|rule| rule.left > 0);
        shared.tcp.retain(|connection| !connection.is_finished());
        shared.faults.len()
    }

    /// Closes all open TCP connections.
    pub fn close_tcp(&self) {
        for connection in self.shared().tcp.drain(..) {
            connection.abort();
        }
    }

    /// Stops the server and returns when its port is closed.
    pub async fn stop(mut self) {
        self.close_tcp();
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // The task runs until it is aborted, so this always returns a cancellation error.
            let _ = task.await;
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FaultDns {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.close_tcp();
    }
}

impl Shared {
    /// Logs a query and returns it with the fault that applies. Returns `None` if the message has no question.
    fn receive(&mut self, request: &Message, tcp: bool) -> Option<(Query, Fault)> {
        let question = request.queries.first()?.clone();
        self.log.push(Packet {
            at: Instant::now(),
            tcp,
            name: question.name().to_ascii(),
            kind: question.query_type(),
            payload: request.edns.as_ref().map(|edns| edns.max_payload()),
            id: request.id,
        });
        let key = (question.name().to_lowercase(), question.query_type());
        if tcp && let Some((_, fault)) = self.last.iter().find(|(query, _)| *query == key) {
            return Some((question, fault.clone()));
        }
        let mut fault = None;
        for rule in self.faults.iter_mut().rev() {
            if rule.kind.is_some_and(|kind| kind != question.query_type()) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if fault.is_none() && rule.left > 0 {
                rule.left -= 1;
                fault = Some(rule.fault.clone());
            }
        }
        let fault = fault.unwrap_or(Fault::None);
        self.last.retain(|(query, _)| *query != key);
        self.last.push((key, fault.clone()));
        Some((question, fault))
    }
}
