//! A name server that does wrong on purpose.
//!
//! Where the good server answers as CoreDNS does, this one drops, delays and forges, per record type and for the n-th
//! question, and logs every packet. It listens on 127.0.0.1, by UDP and TCP on one port.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        Name, RData,
        rdata::{A, AAAA, CNAME, SOA, SRV},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep},
};

pub use hickory_resolver::proto::rr::{Record, RecordType};

/// The TTL of every record unless told otherwise, in seconds: CoreDNS's own default.
pub const TTL: u32 = 5;

/// The size of UDP questions that it says it takes.
const UDP_PAYLOAD: u16 = 1232;

/// How a question is answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// As the records have it.
    None,
    /// Not at all.
    Drop,
    /// As the records have it, after this long.
    Delay(Duration),
    /// With this response code and nothing else: 1 FORMERR, 2 SERVFAIL, 3 NXDOMAIN, 4 NOTIMP, 5 REFUSED.
    Code(u16),
    /// NXDOMAIN with an SOA record of this TTL and minimum, in seconds.
    NoSuchName(u32),
    /// NODATA (no error, no record) with an SOA record of this TTL and minimum, in seconds.
    NoData(u32),
    /// As the records have it, under another id.
    WrongId,
    /// As the records have it, to another question.
    WrongQuestion,
    /// As the records have it, from another port.
    WrongSource,
    /// The right id and then rubbish.
    Garbage,
    /// A record of this address that belongs to another name, and nothing else.
    ForeignOwner(IpAddr),
    /// As the records have it, and one record more whose class is CHAOS.
    ForeignClass,
    /// By UDP only the first so many records, marked as truncated; TCP as told.
    Truncate(usize, Tcp),
    /// These records instead.
    Records(Vec<Record>),
    /// The question is lower-cased in the answer, as some servers do.
    LowerCase,
    /// As the records have it, but of a chain of aliases only the first.
    OneAlias,
    /// As the records have it, without the addresses that would come along with SRV records.
    NoGlue,
}

/// What becomes of a TCP connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tcp {
    /// The question is answered and the connection stays open.
    Answer,
    /// The connection is closed when a question comes.
    Close,
    /// The connection is closed with a reset when a question comes.
    Reset,
    /// Nothing is answered.
    Silent,
    /// The answer comes byte by byte, each after this long.
    Slow(Duration),
    /// The question is answered and the connection is closed.
    CloseAfter,
}

/// One packet that came.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Packet {
    /// When.
    pub at: Instant,
    /// Whether by TCP.
    pub tcp: bool,
    /// The name asked for, as it was written.
    pub name: String,
    /// The type asked for.
    pub kind: RecordType,
    /// The size of UDP answers that was asked for, where EDNS is used.
    pub payload: Option<u16>,
    /// The id of the question; the same for a repeat.
    pub id: u16,
}

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

/// An A or AAAA record.
///
/// # Panics
///
/// If `name` is not a name or `ip` not an address.
#[must_use]
pub fn address(name: &str, ttl: u32, ip: &str) -> Record {
    let data = match ip.parse().unwrap_or_else(|_| panic!("`{ip}` is not an IP address")) {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(parse(name), ttl, data)
}

/// A CNAME record.
///
/// # Panics
///
/// If either is not a name.
#[must_use]
pub fn alias(name: &str, target: &str) -> Record {
    Record::from_rdata(parse(name), TTL, RData::CNAME(CNAME(parse(target))))
}

/// An SRV record of priority 0 and weight 1.
///
/// # Panics
///
/// If either is not a name.
#[must_use]
pub fn service(name: &str, port: u16, target: &str) -> Record {
    weighted_service(name, 0, 1, port, target)
}

/// An SRV record of this priority and weight.
///
/// # Panics
///
/// If either is not a name.
#[must_use]
pub fn weighted_service(name: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    Record::from_rdata(parse(name), TTL, RData::SRV(SRV::new(priority, weight, port, parse(target))))
}

fn parse(name: &str) -> Name {
    let mut parsed = Name::from_ascii(name).unwrap_or_else(|error| panic!("`{name}` is not a name: {error}"));
    parsed.set_fqdn(true);
    parsed
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

    /// The answer as the records have it.
    fn answer(&self, request: &Message, question: &Query) -> Message {
        let mut response = reply(request, question);
        let mut owner = question.name().clone();
        // The chain of aliases, as an authoritative server follows it; a circle ends it.
        for _ in 0..16 {
            let alias =
                self.records.iter().find(|record| record.name == owner && record.record_type() == RecordType::CNAME);
            let Some((record, RData::CNAME(target))) = alias.map(|record| (record, &record.data)) else { break };
            if response.answers.contains(record) {
                break;
            }
            response.add_answer(record.clone());
            owner = target.0.clone();
        }
        let own = |record: &&Record| record.name == owner && record.record_type() == question.query_type();
        response.add_answers(self.records.iter().filter(own).cloned());
        if response.answers.is_empty() && !self.records.iter().any(|record| owner.zone_of(&record.name)) {
            // A wildcard record answers to every name that is not there (RFC 4592).
            let fits = |record: &&Record| record.name.is_wildcard() && record.name.base_name().zone_of(&owner);
            let typed = self.records.iter().filter(fits).filter(|record| record.record_type() == question.query_type());
            response.add_answers(typed.cloned().map(|mut record| {
                record.name = owner.clone();
                record
            }));
        }
        let targets: Vec<_> = response.answers.iter().filter_map(target).collect();
        let glue = self.records.iter().filter(|record| {
            matches!(record.record_type(), RecordType::A | RecordType::AAAA) && targets.contains(&record.name)
        });
        response.add_additionals(glue.cloned());
        if response.answers.is_empty() {
            let exists = self.records.iter().any(|record| question.name().zone_of(&record.name));
            response.metadata.response_code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
            response.add_authority(soa(TTL));
        }
        response
    }
}

fn target(record: &Record) -> Option<Name> {
    match &record.data {
        RData::SRV(service) => Some(service.target.clone()),
        _ => None,
    }
}

fn reply(request: &Message, question: &Query) -> Message {
    let mut response = Message::response(request.id, OpCode::Query);
    response.metadata.authoritative = true;
    response.add_query(question.clone());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        response.set_edns(edns);
    }
    response
}

fn soa(ttl: u32) -> Record {
    let data = SOA::new(parse("ns.dns.cluster.local."), parse("hostmaster.cluster.local."), 1, 7200, 1800, 86_400, ttl);
    Record::from_rdata(parse("cluster.local."), ttl, RData::SOA(data))
}

/// The messages that answer, as bytes.
fn response(shared: &Mutex<Shared>, request: &Message, question: &Query, fault: &Fault, tcp: bool) -> Option<Vec<u8>> {
    let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut message = shared.answer(request, question);
    match fault {
        Fault::Drop => return None,
        Fault::None | Fault::Delay(_) | Fault::WrongSource => {}
        Fault::Code(code) => {
            message = reply(request, question);
            message.metadata.response_code = ResponseCode::from(0, *code as u8);
        }
        Fault::NoSuchName(ttl) | Fault::NoData(ttl) => {
            message = reply(request, question);
            message.add_authority(soa(*ttl));
            if matches!(fault, Fault::NoSuchName(_)) {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
        }
        Fault::WrongId => message.metadata.id = request.id.wrapping_add(1),
        Fault::WrongQuestion => message.queries = vec![Query::query(parse("another.example."), question.query_type())],
        Fault::Garbage => {
            let mut bytes = request.id.to_be_bytes().to_vec();
            bytes.extend([0xff; 30]);
            return Some(bytes);
        }
        Fault::ForeignOwner(ip) => message.answers = vec![address("elsewhere.example.", TTL, &ip.to_string())],
        Fault::ForeignClass => {
            if let Some(mut record) = message.answers.first().cloned() {
                record.dns_class = hickory_resolver::proto::rr::DNSClass::CH;
                message.add_answer(record);
            }
        }
        Fault::Truncate(keep, _) if !tcp => {
            message.answers.truncate(*keep);
            message.additionals.clear();
            message.metadata.truncation = true;
        }
        Fault::Truncate(..) => {}
        Fault::Records(records) => message.answers = records.clone(),
        Fault::OneAlias => {
            if message.answers.first().is_some_and(|record| record.record_type() == RecordType::CNAME) {
                message.answers.truncate(1);
            }
        }
        Fault::NoGlue => message.additionals.clear(),
        Fault::LowerCase => {
            message.queries = vec![Query::query(question.name().to_lowercase(), question.query_type())];
        }
    }
    let mut bytes = encode(&message)?;
    // An answer larger than asked for is cut as CoreDNS cuts it: what fits, marked as truncated.
    let limit = request.edns.as_ref().map_or(512, |edns| usize::from(edns.max_payload()).max(512));
    while !tcp && bytes.len() > limit {
        message.metadata.truncation = true;
        message.additionals.clear();
        let keep = (message.answers.len() * limit / bytes.len()).min(message.answers.len().saturating_sub(1));
        message.answers.truncate(keep);
        bytes = encode(&message)?;
    }
    Some(bytes)
}

/// The message in bytes. Address records of the very name asked for point back to the question, as CoreDNS writes them
/// (16 bytes each for IPv4); hickory's encoder stops compressing after a while.
fn encode(message: &Message) -> Option<Vec<u8>> {
    let [question] = &message.queries[..] else { return message.to_vec().ok() };
    let plain = |record: &Record| {
        record.name == *question.name() && matches!(record.record_type(), RecordType::A | RecordType::AAAA)
    };
    if !message.authorities.is_empty() || !message.additionals.is_empty() || !message.answers.iter().all(plain) {
        return message.to_vec().ok();
    }
    let mut head = message.clone();
    head.answers.clear();
    head.edns = None;
    let mut bytes = head.to_vec().ok()?;
    // The number of answers stands in bytes 6 and 7, that of additional records in 10 and 11, and the question's name
    // begins at byte 12 (RFC 1035 section 4.1.1).
    bytes[6..8].copy_from_slice(&u16::try_from(message.answers.len()).ok()?.to_be_bytes());
    bytes[11] = u8::from(message.edns.is_some());
    for record in &message.answers {
        let address = match &record.data {
            RData::A(ip) => ip.octets().to_vec(),
            RData::AAAA(ip) => ip.octets().to_vec(),
            _ => return None,
        };
        bytes.extend([0xc0, 12]);
        bytes.extend(u16::from(record.record_type()).to_be_bytes());
        bytes.extend(u16::from(record.dns_class).to_be_bytes());
        bytes.extend(record.ttl.to_be_bytes());
        bytes.extend(u16::try_from(address.len()).ok()?.to_be_bytes());
        bytes.extend(address);
    }
    if message.edns.is_some() {
        // The root, type OPT, the payload size as class, no flags, no options (RFC 6891 section 6.1.2).
        bytes.extend([0, 0, 41]);
        bytes.extend(UDP_PAYLOAD.to_be_bytes());
        bytes.extend([0; 6]);
    }
    Some(bytes)
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Mutex<Shared>>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        let taken = shared.lock().unwrap_or_else(PoisonError::into_inner).take(&request, false);
        let Some((question, fault)) = taken else { continue };
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            if let Fault::Delay(delay) = fault {
                sleep(delay).await;
            }
            let Some(bytes) = response(&shared, &request, &question, &fault, false) else { return };
            // Whoever asked may be gone; then nobody misses the answer.
            let _ = match fault {
                Fault::WrongSource => match UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await {
                    Ok(other) => other.send_to(&bytes, peer).await,
                    Err(error) => Err(error),
                },
                _ => socket.send_to(&bytes, peer).await,
            };
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                // The end of one connection is no concern of the others.
                let _ = serve_connection(stream, shared).await;
            }
        });
        shared.lock().unwrap_or_else(PoisonError::into_inner).tcp.push(task.abort_handle());
    }
}

async fn serve_connection(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await?;
        let Ok(request) = Message::from_vec(&buffer) else { continue };
        let taken = shared.lock().unwrap_or_else(PoisonError::into_inner).take(&request, true);
        let Some((question, fault)) = taken else { continue };
        if let Fault::Delay(delay) = fault {
            sleep(delay).await;
        }
        let then = if let Fault::Truncate(_, tcp) = fault { tcp } else { Tcp::Answer };
        match then {
            Tcp::Close => return Ok(()),
            Tcp::Reset => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            Tcp::Silent => continue,
            Tcp::Answer | Tcp::CloseAfter | Tcp::Slow(_) => {}
        }
        let Some(body) = response(&shared, &request, &question, &fault, true) else { continue };
        // Length and body in one write: two would wait for each other (Nagle's algorithm and the delayed ACK).
        let length = u16::try_from(body.len()).map_err(io::Error::other)?;
        let bytes = [&length.to_be_bytes()[..], &body].concat();
        if let Tcp::Slow(each) = then {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                sleep(each).await;
            }
        } else {
            stream.write_all(&bytes).await?;
        }
        if then == Tcp::CloseAfter {
            return Ok(());
        }
    }
}
