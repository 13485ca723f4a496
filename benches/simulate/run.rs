//! One run of one scenario with one policy.

use std::{collections::VecDeque, time::Duration};

use podpool::{
    balance::{LeastCost, LeastInFlight, PeakEwma, Random, Rng, RoundRobin},
    bench::SimulatedClient,
};

use crate::{
    pod::{Job, Pod, Sender},
    queue::Queue,
    scenario::{Fault, MEAN, Scenario},
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Choice {
    LeastCost,
    LeastInFlight,
    PeakEwma,
    RoundRobin,
    Random,
    /// One queue before the workers of all Pods, the fastest free one first: what no client can do.
    Central,
}

pub(crate) const CHOICES: [Choice; 5] =
    [Choice::LeastCost, Choice::LeastInFlight, Choice::PeakEwma, Choice::RoundRobin, Choice::Random];

impl Choice {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LeastCost => "LeastCost",
            Self::LeastInFlight => "LeastInFlight",
            Self::PeakEwma => "PeakEwma",
            Self::RoundRobin => "RoundRobin",
            Self::Random => "Random",
            Self::Central => "central queue",
        }
    }

    fn client(self, pods: usize, seed: u64) -> SimulatedClient {
        match self {
            Self::LeastCost | Self::Central => SimulatedClient::new(pods, LeastCost::new(), seed),
            Self::LeastInFlight => SimulatedClient::new(pods, LeastInFlight::new(), seed),
            Self::PeakEwma => SimulatedClient::new(pods, PeakEwma::new(), seed),
            Self::RoundRobin => SimulatedClient::new(pods, RoundRobin::new(), seed),
            Self::Random => SimulatedClient::new(pods, Random::new(), seed),
        }
    }
}

const TICK: u64 = 100_000_000;
const SECOND: f64 = 1e9;
const PROBE_TIMEOUT: u64 = 1_000_000_000;
const SUSPICION: u64 = 250_000_000;
/// A probe's work beside a statement's.
const PROBE: f64 = 0.1;
/// An error comes after this.
const FAILS_AFTER: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
enum Event {
    Arrival,
    Done { pod: usize, job: Job },
    Failed { pod: usize, job: Job },
    Tick { client: usize },
    Probe { client: usize, pod: usize, number: u64 },
    ProbeTimeout { client: usize, pod: usize, number: u64 },
    Joins,
}

/// What came out.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) choice: Choice,
    /// Milliseconds, sorted.
    latencies: Vec<f32>,
    pub(crate) errors: u64,
    /// Statements answered by each Pod.
    pub(crate) shares: Vec<u64>,
}

impl Outcome {
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let place = (self.latencies.len() as f64 * percent / 100.0) as usize;
        f64::from(self.latencies[place.min(self.latencies.len() - 1)])
    }

    pub(crate) fn error_rate(&self) -> f64 {
        self.errors as f64 / self.latencies.len() as f64
    }

    /// The greatest share beside the mean.
    pub(crate) fn max_to_mean(&self) -> f64 {
        let most = self.shares.iter().max().copied().unwrap_or_default();
        most as f64 * self.shares.len() as f64 / self.shares.iter().sum::<u64>() as f64
    }

    /// The share of the first Pod beside a fair one.
    pub(crate) fn first_share(&self) -> f64 {
        self.shares[0] as f64 * self.shares.len() as f64 / self.shares.iter().sum::<u64>() as f64
    }
}

struct Client {
    choice: SimulatedClient,
    /// Who waits for a connection: when he came, and the work he wants done.
    waiting: VecDeque<(u64, f64)>,
    pods: Vec<Watched>,
}

/// What a client knows of a Pod beside what the library knows.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    probe: u64,
    probing: bool,
    failed: bool,
    heard: u64,
    suspected: bool,
}

struct Simulation {
    scenario: Scenario,
    choice: Choice,
    now: u64,
    events: Queue<Event>,
    clients: Vec<Client>,
    pods: Vec<Pod>,
    /// Who comes when and what he wants: the same for every policy.
    arrivals: Rng,
    rng: Rng,
    central: VecDeque<Job>,
    latencies: Vec<f32>,
    errors: u64,
}

fn normal(rng: &mut Rng) -> f64 {
    let (u, v) = (1.0 - rng.unit(), rng.unit());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Log-normal with mean 1: the logarithm's deviation is 1.
fn spread(rng: &mut Rng) -> f64 {
    (normal(rng) - 0.5).exp()
}

pub(crate) fn run(scenario: Scenario, choice: Choice, seed: u64) -> Outcome {
    let late = matches!(scenario.fault, Fault::Joins { .. });
    let present = scenario.pods - usize::from(late);
    // Far from each other: the first numbers of seeds that are neighbours are neighbours too.
    let mut seeds = Rng::seeded(seed ^ 0xc11e);
    let mut simulation = Simulation {
        scenario,
        choice,
        now: 0,
        events: Queue::new(),
        clients: (0..scenario.clients)
            .map(|_| Client {
                choice: choice.client(present, seeds.below(usize::MAX) as u64),
                waiting: VecDeque::new(),
                pods: vec![Watched::default(); scenario.pods],
            })
            .collect(),
        pods: (0..scenario.pods).map(|_| Pod::default()).collect(),
        arrivals: Rng::seeded(seed),
        rng: Rng::seeded(seed ^ 0x5eed),
        central: VecDeque::new(),
        latencies: Vec::new(),
        errors: 0,
    };
    simulation.begin(present);
    simulation.into_outcome()
}

impl Simulation {
    fn begin(&mut self, present: usize) {
        for client in 0..self.clients.len() {
            for pod in 0..present {
                // Everybody has probed everybody before the first statement.
                let took = Duration::from_nanos((self.slowness(pod) * MEAN * PROBE) as u64);
                self.clients[client].choice.probed(pod, Some(took), Duration::ZERO);
                self.probe_later(client, pod);
            }
            let offset = (self.rng.unit() * TICK as f64) as u64;
            self.events.at(offset, Event::Tick { client });
        }
        if let Fault::Joins { at, .. } = self.scenario.fault {
            self.events.at((at * SECOND) as u64, Event::Joins);
        }
        self.events.at(0, Event::Arrival);
    }

    fn into_outcome(mut self) -> Outcome {
        while let Some((now, event)) = self.events.next() {
            if now as f64 > self.scenario.to * SECOND {
                break;
            }
            self.now = now;
            match event {
                Event::Arrival => self.arrival(),
                Event::Done { pod, job } => self.done(pod, job),
                Event::Failed { pod, job } => self.failed(pod, job),
                Event::Tick { client } => self.tick(client),
                Event::Probe { client, pod, number } => self.probe(client, pod, number),
                Event::ProbeTimeout { client, pod, number } => self.probed(client, pod, number, None),
                Event::Joins => self.joins(),
            }
        }
        // Whoever still waits has waited until now.
        let waiting: Vec<u64> = self.clients.iter().flat_map(|c| c.waiting.iter().map(|(came, _)| *came)).collect();
        waiting.into_iter().for_each(|came| self.count(came));
        self.latencies.sort_unstable_by(f32::total_cmp);
        let shares = self.pods.iter().map(|pod| pod.share).collect();
        Outcome { choice: self.choice, latencies: self.latencies, errors: self.errors, shares }
    }

    // === callers ===

    fn arrival(&mut self) {
        let gap = -(1.0 - self.arrivals.unit()).ln() / self.scenario.rate() * SECOND;
        self.events.at(self.now + gap as u64, Event::Arrival);
        let client = self.arrivals.below(self.clients.len());
        let mut work = MEAN * spread(&mut self.arrivals);
        let long = self.arrivals.unit() < 0.05;
        if self.scenario.long {
            work *= if long { 12.0 } else { 1.0 };
        }
        if self.choice == Choice::Central {
            let sender = Sender::Statement { client, came: self.now, sent: self.now };
            self.central.push_back(Job { sender, work });
            return self.serve_central();
        }
        self.clients[client].waiting.push_back((self.now, work));
        self.send(client);
    }

    /// Sends what waits, as far as there are connections.
    fn send(&mut self, client: usize) {
        while let Some(&(came, work)) = self.clients[client].waiting.front() {
            let Some(pod) = self.clients[client].choice.pick() else { return };
            self.clients[client].waiting.pop_front();
            let sender = Sender::Statement { client, came, sent: self.now };
            if self.clients[client].choice.in_flight(pod) == 1 {
                self.heard(client, pod);
            }
            let job = Job { sender, work };
            if self.is_failing(pod) {
                self.events.at(self.now + FAILS_AFTER, Event::Failed { pod, job });
            } else {
                self.pods[pod].push(job);
                self.serve(pod);
            }
        }
    }

    fn count(&mut self, came: u64) {
        if came as f64 >= self.scenario.from * SECOND {
            self.latencies.push((self.now - came) as f32 / 1e6);
        }
    }

    // === Pods ===

    fn slowness(&self, pod: usize) -> f64 {
        let now = self.now as f64 / SECOND;
        match self.scenario.fault {
            Fault::Slow { times, until } if pod == 0 && now < until => times,
            Fault::Joins { at, times, seconds } if pod == self.scenario.pods - 1 && now < at + seconds => times,
            _ => 1.0,
        }
    }

    fn is_failing(&self, pod: usize) -> bool {
        match self.scenario.fault {
            Fault::Breaks { at } | Fault::Fails { at } => pod == 0 && self.now as f64 >= at * SECOND,
            _ => false,
        }
    }

    /// When a stop that falls into this time is over, and how long it was.
    fn stop(&self, pod: usize, from: u64, to: u64) -> u64 {
        match self.scenario.fault {
            Fault::Stall { at, seconds } if pod == 0 => {
                let (at, length) = ((at * SECOND) as u64, (seconds * SECOND) as u64);
                let end = at + length;
                if from < at && to > at {
                    length
                } else if (at..end).contains(&from) {
                    end - from
                } else {
                    0
                }
            }
            _ => 0,
        }
    }

    fn serve(&mut self, pod: usize) {
        while let Some(job) = self.pods[pod].begin() {
            let end = self.now + (job.work * self.slowness(pod)) as u64;
            let end = end + self.stop(pod, self.now, end);
            self.events.at(end, Event::Done { pod, job });
        }
    }

    fn serve_central(&mut self) {
        while !self.central.is_empty() {
            let free = (0..self.pods.len()).filter(|&pod| self.pods[pod].is_free() && self.serves_central(pod));
            let Some(pod) = free.min_by(|&a, &b| self.slowness(a).total_cmp(&self.slowness(b))) else { return };
            let Some(job) = self.central.pop_front() else { return };
            self.pods[pod].push(job);
            self.serve(pod);
        }
    }

    fn serves_central(&self, pod: usize) -> bool {
        let absent = match self.scenario.fault {
            Fault::Joins { at, .. } => pod == self.scenario.pods - 1 && (self.now as f64) < at * SECOND,
            _ => false,
        };
        !absent && !self.is_failing(pod) && self.stop(pod, self.now, self.now) == 0
    }

    fn done(&mut self, pod: usize, job: Job) {
        self.pods[pod].end();
        match job.sender {
            Sender::Statement { client, came, sent } => {
                self.count(came);
                if came as f64 >= self.scenario.from * SECOND {
                    self.pods[pod].share += 1;
                }
                if self.choice == Choice::Central {
                    return self.serve_central();
                }
                let took = Duration::from_nanos(self.now - sent);
                self.heard(client, pod);
                self.clients[client].choice.answered(pod, took, false);
                self.send(client);
            }
            Sender::Probe { client, number, sent } => {
                self.heard(client, pod);
                self.probed(client, pod, number, Some(Duration::from_nanos(self.now - sent)));
            }
        }
        self.serve(pod);
    }

    fn failed(&mut self, pod: usize, job: Job) {
        let now = Duration::from_nanos(self.now);
        match job.sender {
            Sender::Statement { client, came, .. } => {
                self.count(came);
                if came as f64 >= self.scenario.from * SECOND {
                    self.errors += 1;
                }
                if matches!(self.scenario.fault, Fault::Breaks { .. }) {
                    self.clients[client].choice.broke(pod, now);
                } else {
                    self.heard(client, pod);
                    self.clients[client].choice.answered(pod, Duration::from_nanos(FAILS_AFTER), true);
                }
                self.send(client);
            }
            Sender::Probe { client, number, .. } => self.probed(client, pod, number, None),
        }
    }

    fn joins(&mut self) {
        let pod = self.scenario.pods - 1;
        for client in 0..self.clients.len() {
            self.clients[client].choice.resize(self.scenario.pods);
            // The name is looked up every five seconds.
            let at = self.now + (self.rng.unit() * 5.0 * SECOND) as u64;
            self.probe_at(client, pod, at);
        }
    }

    // === probes and upkeep ===

    fn heard(&mut self, client: usize, pod: usize) {
        let watched = &mut self.clients[client].pods[pod];
        (watched.heard, watched.suspected) = (self.now, false);
    }

    fn tick(&mut self, client: usize) {
        self.events.at(self.now + TICK, Event::Tick { client });
        let now = Duration::from_nanos(self.now);
        self.clients[client].choice.tick(Duration::from_nanos(TICK), now);
        if self.choice == Choice::Central {
            return;
        }
        for pod in 0..self.pods.len() {
            let watched = self.clients[client].pods[pod];
            let asked = watched.heard > 0 && self.clients[client].choice.in_flight(pod) > 0;
            if asked && !watched.suspected && !watched.probing && self.now - watched.heard >= SUSPICION {
                self.clients[client].pods[pod].suspected = true;
                self.probe_at(client, pod, self.now);
            }
        }
        self.send(client);
    }

    fn probe_later(&mut self, client: usize, pod: usize) {
        let Client { choice, pods, .. } = &self.clients[client];
        let interval = match () {
            () if pods[pod].failed || !choice.is_healthy(pod) => 1.0,
            () => (if choice.slowness(pod) > 1 { 2.0 } else { 5.0 }) * (0.8 + 0.4 * self.rng.unit()),
        };
        self.probe_at(client, pod, self.now + (interval * SECOND) as u64);
    }

    fn probe_at(&mut self, client: usize, pod: usize, at: u64) {
        let watched = &mut self.clients[client].pods[pod];
        watched.probe += 1;
        self.events.at(at, Event::Probe { client, pod, number: watched.probe });
    }

    fn probe(&mut self, client: usize, pod: usize, number: u64) {
        let watched = &mut self.clients[client].pods[pod];
        if watched.probe != number || self.choice == Choice::Central {
            return; // another one was sent instead
        }
        watched.probing = true;
        let job = Job {
            sender: Sender::Probe { client, number, sent: self.now },
            work: MEAN * PROBE * spread(&mut self.rng),
        };
        if self.is_failing(pod) && matches!(self.scenario.fault, Fault::Breaks { .. }) {
            return self.events.at(self.now + FAILS_AFTER, Event::Failed { pod, job });
        }
        self.events.at(self.now + PROBE_TIMEOUT, Event::ProbeTimeout { client, pod, number });
        self.pods[pod].push(job);
        self.serve(pod);
    }

    fn probed(&mut self, client: usize, pod: usize, number: u64, took: Option<Duration>) {
        let watched = &mut self.clients[client].pods[pod];
        if watched.probe != number || !watched.probing {
            return; // answered already, or too late
        }
        (watched.probing, watched.failed) = (false, took.is_none());
        self.clients[client].choice.probed(pod, took, Duration::from_nanos(self.now));
        self.probe_later(client, pod);
        self.send(client);
    }
}
