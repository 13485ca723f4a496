//! The state of the network: hosts, links, sockets, and the packets on their way.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    endpoint::Endpoint,
    failure::Failure,
    link::Link,
    packet::{Content, Packet, Segment},
    udp::UdpState,
};

/// The state of the network.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) hosts: Vec<HostState>,
    pub(super) addresses: BTreeMap<IpAddr, usize>,
    pub(super) listeners: BTreeMap<SocketAddr, Listener>,
    /// The endpoints by their number, which is never used again.
    pub(super) endpoints: BTreeMap<u64, Endpoint>,
    /// The numbers of the endpoints, by local and remote address.
    pub(super) pairs: BTreeMap<(SocketAddr, SocketAddr), u64>,
    pub(super) udp: BTreeMap<SocketAddr, UdpState>,
    pub(super) default_link: Link,
    pub(super) links: BTreeMap<(usize, usize), Link>,
    /// The connections whose packets are all lost, by source and destination.
    pub(super) severed: BTreeSet<(SocketAddr, SocketAddr)>,
    pub(super) rng: fastrand::Rng,
    /// Number of packets that were sent.
    pub(super) packets: u64,
    /// The events by their time, and in the order in which they were scheduled.
    events: BTreeMap<(Instant, u64), Event>,
    next_number: u64,
    /// The task that processes the events, and the time until which it sleeps.
    pub(super) driver: Option<Waker>,
    pub(super) sleeps_until: Option<Instant>,
    /// Wakers to call after the lock has been released.
    pub(super) woken: Vec<Waker>,
    /// Wakers to drop after the lock has been released, because that may drop a task with its sockets.
    pub(super) retired: Vec<Waker>,
}

/// A host, as the network knows it.
#[derive(Debug)]
pub(super) struct HostState {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) is_up: bool,
    next_port: u16,
}

/// A listening socket.
#[derive(Debug, Default)]
pub(super) struct Listener {
    pub(super) host: usize,
    /// The number of the listener, which is never used again.
    pub(super) number: u64,
    /// The numbers of the endpoints whose handshake is complete.
    pub(super) ready: VecDeque<u64>,
    pub(super) waker: Option<Waker>,
}

#[derive(Debug)]
pub(super) enum Event {
    Arrival(Box<Packet>),
    /// The deadlines of an endpoint are checked.
    Timer(u64),
}

impl Core {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hosts: Vec::new(),
            addresses: BTreeMap::new(),
            listeners: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            pairs: BTreeMap::new(),
            udp: BTreeMap::new(),
            default_link: Link::default(),
            links: BTreeMap::new(),
            severed: BTreeSet::new(),
            rng: fastrand::Rng::with_seed(seed),
            packets: 0,
            events: BTreeMap::new(),
            next_number: 0,
            driver: None,
            sleeps_until: None,
            woken: Vec::new(),
            retired: Vec::new(),
        }
    }

    pub(super) fn add_host(&mut self, addresses: &[IpAddr]) -> usize {
        let host = self.hosts.len();
        self.hosts.push(HostState { addresses: Vec::new(), is_up: true, next_port: 32768 });
        self.set_addresses(host, addresses);
        host
    }

    /// Replaces the addresses of a host. Its sockets keep theirs, but packets to an old address no longer arrive.
    pub(super) fn set_addresses(&mut self, host: usize, addresses: &[IpAddr]) {
        self.addresses.retain(|_, owner| *owner != host);
        for address in addresses {
            let previous = self.addresses.insert(*address, host);
            assert!(previous.is_none(), "two hosts have the address {address}");
        }
        self.hosts[host].addresses = addresses.to_vec();
    }

    /// Returns a number that is greater than all numbers returned before.
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Returns the host's address for packets to `peer`.
    pub(super) fn local_address(&self, host: usize, peer: IpAddr) -> Result<IpAddr, Failure> {
        let addresses = &self.hosts[host].addresses;
        if addresses.contains(&peer) {
            return Ok(peer);
        }
        addresses.iter().find(|address| address.is_ipv4() == peer.is_ipv4()).copied().ok_or(Failure::Unreachable)
    }

    /// Returns an unused local address for a socket. `local` may leave the address and the port to the host.
    pub(super) fn choose_local(
        &mut self,
        host: usize,
        local: Option<SocketAddr>,
        peer: SocketAddr,
    ) -> Result<SocketAddr, Failure> {
        let address = match local.filter(|local| !local.ip().is_unspecified()) {
            Some(local) if !self.hosts[host].addresses.contains(&local.ip()) => {
                return Err(Failure::AddressNotAvailable);
            }
            Some(local) => local.ip(),
            None => self.local_address(host, peer.ip())?,
        };
        let is_free = |core: &Self, port| {
            let local = SocketAddr::new(address, port);
            !core.pairs.contains_key(&(local, peer)) && !core.udp.contains_key(&local)
        };
        if let Some(port) = local.map(|local| local.port()).filter(|port| *port != 0) {
            return if is_free(self, port) { Ok(SocketAddr::new(address, port)) } else { Err(Failure::AddressInUse) };
        }
        for _ in 32768..=60999 {
            let port = self.hosts[host].next_port;
            self.hosts[host].next_port = if port == 60999 { 32768 } else { port + 1 };
            if is_free(self, port) {
                return Ok(SocketAddr::new(address, port));
            }
        }
        Err(Failure::AddressNotAvailable)
    }

    /// Sends a packet. Returns its time of arrival unless it is lost. It arrives at `earliest` at the earliest.
    pub(super) fn send(&mut self, host: usize, packet: Packet, now: Instant, earliest: Instant) -> Option<Instant> {
        self.packets += 1;
        let is_severed =
            matches!(packet.content, Content::Tcp(_)) && self.severed.contains(&(packet.source, packet.destination));
        if !self.hosts[host].is_up || is_severed {
            return None;
        }
        let destination = *self.addresses.get(&packet.destination.ip())?;
        if destination == host {
            self.schedule(now.max(earliest), Event::Arrival(packet.into()));
            return Some(now.max(earliest));
        }
        let link = *self.links.get(&(host, destination)).unwrap_or(&self.default_link);
        if link.loses(&mut self.rng) {
            return None;
        }
        let arrival = (now + link.delay(&mut self.rng)).max(earliest);
        if link.duplicates > 0.0 && matches!(packet.content, Content::Udp(_)) && self.rng.f64() < link.duplicates {
            let again = now + link.delay(&mut self.rng) + Duration::from_millis(1);
            self.schedule(again, Event::Arrival(packet.clone().into()));
        }
        self.schedule(arrival, Event::Arrival(packet.into()));
        Some(arrival)
    }

    /// Answers a segment for which there is no endpoint.
    pub(super) fn refuse(&mut self, host: usize, packet: &Packet, segment: &Segment, now: Instant) {
        if segment.rst {
            return;
        }
        let reply =
            Segment { rst: true, number: segment.ack.unwrap_or(0), ack: Some(segment.end()), ..Segment::default() };
        let (source, destination) = (packet.destination, packet.source);
        self.send(host, Packet { source, destination, content: Content::Tcp(reply) }, now, now);
    }

    /// Processes an event at `at`.
    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        let number = self.number();
        self.events.insert((at, number), event);
        if self.sleeps_until.is_none_or(|until| at < until) {
            self.sleeps_until = Some(at);
            self.woken.extend(self.driver.take());
        }
    }

    /// Removes the next event if it is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Event> {
        let next = self.events.first_entry().filter(|next| next.key().0 <= now)?;
        Some(next.remove())
    }

    /// Returns the time of the next event.
    pub(super) fn next_event(&self) -> Option<Instant> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Processes a packet that arrives at the address of its destination.
    pub(super) fn arrive(&mut self, packet: Packet, now: Instant) {
        let Some(&host) = self.addresses.get(&packet.destination.ip()) else { return };
        if !self.hosts[host].is_up {
            return;
        }
        match &packet.content {
            Content::Tcp(_) => self.receive_segment(host, packet, now),
            Content::Udp(_) | Content::PortUnreachable => self.receive_datagram(host, packet, now),
        }
    }
}

/// Stores the waker of a task. The previous waker is dropped after the lock has been released.
pub(super) fn store(slot: &mut Option<Waker>, cx: &Context<'_>, retired: &mut Vec<Waker>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => retired.extend(slot.replace(cx.waker().clone())),
    }
}
