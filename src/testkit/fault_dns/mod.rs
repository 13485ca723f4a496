//! A name server that does wrong on purpose.
//!
//! Where the good server answers as CoreDNS does, this one drops, delays and forges, per record type and for the n-th
//! question, and logs every packet. It listens on 127.0.0.1, by UDP and TCP on one port.

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

/// The TTL of every record unless told otherwise, in seconds: CoreDNS's own default.
pub const TTL: u32 = 5;

/// The server. Dropping it stops it a little later; [`stop`](FaultDns::stop) stops it at once.
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
    /// How the last UDP question of a name and type was answered: by TCP the same question comes again.
    last: Vec<((Name, RecordType), Fault)>,
    tcp: Vec<AbortHandle>,
}

#[derive(Debug)]
struct Rule {
    kind: Option<RecordType>,
    fault: Fault,
    /// Questions it lets pass first, and how many it is for then.
    skip: usize,
    left: usize,
}

impl FaultDns {
    /// Starts on a free port of 127.0.0.1 with no records.
    ///
    /// # Errors
    ///
    /// If no port can be opened.
    pub async fn start() -> io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts at this address; with port 0 on a free one.
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
                // Another program has that port by TCP: take another one.
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes these the addresses of `name` (absolute, with its last dot), each with the TTL [`TTL`].
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let records = addresses.iter().map(|ip| address(name, TTL, ip)).collect();
        self.set_records(name, records);
    }

    /// Makes these the only records that belong to `name` and the names below it.
    pub fn set_records(&self, name: &str, records: Vec<Record>) {
        let zone = parse(name);
        let mut shared = self.shared();
        shared.records.retain(|record| !zone.zone_of(&record.name));
        shared.records.extend(records);
    }

    /// Every question is answered so from now on; what was set before is forgotten.
    pub fn always(&self, fault: Fault) {
        self.shared().faults = vec![Rule { kind: None, fault, skip: 0, left: usize::MAX }];
    }

    /// Every question of this type is answered so from now on.
    pub fn on(&self, kind: RecordType, fault: Fault) {
        self.nth(Some(kind), 0, usize::MAX, fault);
    }

    /// After `skip` more questions (of this type, where one is given) the next `count` are answered so. Of several that
    /// fit, the one set last counts.
    pub fn nth(&self, kind: Option<RecordType>, skip: usize, count: usize, fault: Fault) {
        self.shared().faults.push(Rule { kind, fault, skip, left: count });
    }

    /// Answers as the records have it again.
    pub fn heal(&self) {
        self.shared().faults.clear();
    }

    /// Takes the log: every packet since it was last taken.
    pub fn take_log(&self) -> Vec<Packet> {
        std::mem::take(&mut self.shared().log)
    }

    /// Forgets what is over: the log, faults that are used up, connections that are closed. Returns how many faults are
    /// left.
    pub fn forget(&self) -> usize {
        let mut shared = self.shared();
        shared.log.clear();
        shared.faults.retain(|rule| rule.left > 0);
        shared.tcp.retain(|connection| !connection.is_finished());
        shared.faults.len()
    }

    /// Closes every TCP connection that is open.
    pub fn close_tcp(&self) {
        for connection in self.shared().tcp.drain(..) {
            connection.abort();
        }
    }

    /// Stops it: its port is closed when this returns.
    pub async fn stop(mut self) {
        self.close_tcp();
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Its only end is the abort.
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
    /// Logs the question and says how it is answered.
    fn take(&mut self, request: &Message, tcp: bool) -> Option<(Query, Fault)> {
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
        if tcp && let Some((_, fault)) = self.last.iter().find(|(asked, _)| *asked == key) {
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
        self.last.retain(|(asked, _)| *asked != key);
        self.last.push((key, fault.clone()));
        Some((question, fault))
    }
}
