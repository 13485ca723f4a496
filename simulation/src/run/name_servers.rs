//! The name servers on their hosts: CoreDNS, with a NodeLocal cache in front of it if the plan says so.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep},
};

use crate::{
    adversary::{DnsCache, Topology},
    dns::{Answers, CacheSettings, CoreDns, CoreDnsSettings, Faulty, NameServer, NodeLocal, Replicas, Rule, Transport},
    kubernetes::Change,
    world::{Host, World},
};

/// The Service name that the clients resolve.
pub(super) const SERVICE: &str = "postgresql.shop.svc.cluster.local";

/// A name server with or without a NodeLocal cache.
enum Server {
    Cached(NodeLocal<Replicas>),
    Direct(Replicas),
}

impl Server {
    fn replicas(&mut self) -> &mut Replicas {
        match self {
            Self::Cached(server) => server.upstream(),
            Self::Direct(server) => server,
        }
    }
}

impl NameServer for Server {
    fn answer(&mut self, now: Instant, question: &[u8], transport: Transport) -> Answers {
        match self {
            Self::Cached(server) => server.answer(now, question, transport),
            Self::Direct(server) => server.answer(now, question, transport),
        }
    }
}

struct State {
    server: Faulty<Server>,
    /// The faults that apply now, by their number.
    rules: Vec<(u64, Rule)>,
}

/// A name server on its host. Clones refer to the same name server.
#[derive(Clone)]
pub(super) struct Dns {
    pub(super) host: Host,
    state: Arc<Mutex<State>>,
}

/// Returns the address of a name server.
pub(super) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 53 + number as u8)
}

impl Dns {
    /// Starts a name server.
    pub(super) fn start(world: &World, topology: &Topology, number: u32) -> Self {
        let name = format!("dns-{number}");
        let host = world.host(&name, &[address(number).into()]);
        let (now, mut random) = (Instant::now(), world.rng(&name));
        let settings = match topology.dns_cache {
            DnsCache::None => CoreDnsSettings::kubeadm(now),
            DnsCache::CoreDns | DnsCache::NodeLocal => CoreDnsSettings::cache_30(now),
        };
        let settings = CoreDnsSettings { ttl: topology.ttl, ..settings };
        let core = Replicas::new(vec![CoreDns::start(now, settings, [], true, random.fork())], random.fork());
        let server = match topology.dns_cache {
            DnsCache::NodeLocal => Server::Cached(NodeLocal::new(core, CacheSettings::NODE_LOCAL, random.fork())),
            DnsCache::None | DnsCache::CoreDns => Server::Direct(core),
        };
        let state = State { server: Faulty::new(server, random), rules: Vec::new() };
        let dns = Self { host, state: Arc::new(Mutex::new(state)) };
        dns.serve_datagrams(address(number).into());
        dns.serve_streams(address(number).into());
        dns
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, question: &[u8], transport: Transport) -> Answers {
        self.lock().server.answer(Instant::now(), question, transport)
    }

    fn serve_datagrams(&self, address: IpAddr) {
        let socket = Arc::new(self.host.bind_udp((address, 53).into()).expect("the port of a new host is free"));
        let dns = self.clone();
        self.host.run(async move {
            loop {
                // A message that a query's sender has refused is no reason to stop.
                let Ok((question, source)) = socket.receive().await else { continue };
                for (delay, answer) in dns.answer(&question, Transport::Udp) {
                    let socket = socket.clone();
                    dns.host.run(async move {
                        sleep(delay).await;
                        // An answer that cannot be sent is lost, like one that the network loses.
                        let _ = socket.send_to(&answer, source);
                    });
                }
            }
        });
    }

    fn serve_streams(&self, address: IpAddr) {
        let listener = self.host.listen((address, 53).into()).expect("the port of a new host is free");
        let dns = self.clone();
        self.host.run(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let dns = dns.clone();
                dns.host.clone().run(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; length.into()];
                        if stream.read_exact(&mut question).await.is_err() {
                            return;
                        }
                        for (delay, answer) in dns.answer(&question, Transport::Tcp) {
                            sleep(delay).await;
                            let length = (answer.len() as u16).to_be_bytes();
                            if stream.write_all(&[&length, answer.as_slice()].concat()).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
    }

    /// Takes a change that the API server makes.
    pub(super) fn observe(&self, now: Instant, change: &Change) {
        self.lock().server.server().replicas().observe(now, change);
    }

    /// Takes that the API server goes away or comes back for this name server.
    pub(super) fn set_available(&self, available: bool) {
        self.lock().server.server().replicas().set_available(Instant::now(), available);
    }

    /// Begins a fault.
    pub(super) fn begin(&self, number: u64, rule: Rule) {
        let mut state = self.lock();
        state.rules.push((number, rule));
        state.apply();
    }

    /// Ends a fault.
    pub(super) fn end(&self, number: u64) {
        let mut state = self.lock();
        state.rules.retain(|(other, _)| *other != number);
        state.apply();
    }

    /// Returns true if the answers name exactly these addresses of Pods, for the record types that clients ask for.
    pub(super) fn names(&self, pods: &BTreeSet<IpAddr>, uses_srv: bool, port_name: &str) -> bool {
        let ask = |name: &str, kind| {
            let mut question = Message::query();
            let name = Name::from_ascii(format!("{name}.")).expect("a valid name");
            question.queries.push(Query::query(name, kind));
            let question = question.to_vec().expect("a valid question");
            let answers = self.lock().server.server().answer(Instant::now(), &question, Transport::Tcp);
            answers.first().and_then(|(_, answer)| Message::from_vec(answer).ok())
        };
        let mut found = BTreeSet::new();
        let mut add = |answer: Option<Message>| {
            let Some(answer) = answer else { return 0 };
            let records = answer.answers.iter().chain(&answer.additionals);
            found.extend(records.filter_map(|record| match &record.data {
                RData::A(address) => Some(IpAddr::from(address.0)),
                RData::AAAA(address) => Some(IpAddr::from(address.0)),
                _ => None,
            }));
            answer.answers.len()
        };
        if uses_srv {
            let count = add(ask(&format!("_{port_name}._tcp.{SERVICE}"), RecordType::SRV));
            // Each target may have an address of each family.
            return found == *pods && count * 2 >= pods.len();
        }
        add(ask(SERVICE, RecordType::A));
        add(ask(SERVICE, RecordType::AAAA));
        found == *pods
    }
}

impl State {
    fn apply(&mut self) {
        self.server.set_rules(self.rules.iter().map(|(_, rule)| rule.clone()).collect());
    }
}

/// Returns a range of delays around a mean.
pub(super) fn around(mean: Duration) -> std::ops::RangeInclusive<Duration> {
    mean.mul_f64(0.8)..=mean.mul_f64(1.2)
}
