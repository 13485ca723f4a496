//! One run of one scenario with one strategy: callers, clients and Pods.

use std::{collections::VecDeque, time::Duration};

use podpool::balance::Rng;

use crate::{
    client::{Client, Probing, Waiter},
    outcome::Outcome,
    pod::{Job, Origin, Pod},
    queue::Queue,
    scenario::{Fault, MEAN, Scenario},
    strategy::Strategy,
};

/// Nanoseconds per second.
pub(crate) const SECOND: f64 = 1e9;
/// Time from sending a job to its failure on a failing Pod, in nanoseconds.
pub(crate) const FAILS_AFTER: u64 = 1_000_000;
/// Interval between two ticks of a client, in nanoseconds.
pub(crate) const TICK: u64 = 100_000_000;
/// Mean service time of a probe, relative to that of a statement.
pub(crate) const PROBE_WORK: f64 = 0.1;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Arrival,
    Done {
        pod: usize,
        job: Job,
    },
    /// The response to a job arrives at its client.
    Response {
        pod: usize,
        job: Job,
    },
    Failed {
        pod: usize,
        job: Job,
    },
    Tick {
        client: usize,
    },
    Probe {
        client: usize,
        pod: usize,
        number: u64,
    },
    ProbeTimeout {
        client: usize,
        pod: usize,
        number: u64,
    },
    Joins,
}

pub(crate) struct Simulation {
    pub(crate) scenario: Scenario,
    pub(crate) strategy: Strategy,
    /// Time since the start, in nanoseconds.
    pub(crate) now: u64,
    pub(crate) events: Queue<Event>,
    pub(crate) clients: Vec<Client>,
    pub(crate) pods: Vec<Pod>,
    /// Random numbers for the arrivals of callers and the work of their statements. They depend only on the seed, so
    /// every strategy gets the same statements at the same times.
    arrivals: Rng,
    pub(crate) rng: Rng,
    central: VecDeque<Job>,
    latencies: Vec<f32>,
    errors: u64,
}

fn normal(rng: &mut Rng) -> f64 {
    let (u, v) = (1.0 - rng.unit(), rng.unit());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Returns a random factor with a log-normal distribution. The mean is 1, and the standard deviation of the logarithm
/// is 1.
pub(crate) fn spread(rng: &mut Rng) -> f64 {
    (normal(rng) - 0.5).exp()
}

pub(crate) fn run(scenario: Scenario, strategy: Strategy, seed: u64) -> Outcome {
    let late = matches!(scenario.fault, Fault::Joins { .. });
    let present = scenario.pods - usize::from(late);
    // Give each client a random seed. With consecutive seeds, the first random numbers of the clients would be close to
    // each other.
    let mut seeds = Rng::seeded(seed ^ 0xc11e);
    let mut simulation = Simulation {
        scenario,
        strategy,
        now: 0,
        events: Queue::new(),
        clients: (0..scenario.clients)
            .map(|_| Client {
                pool: strategy.client(present, seeds.below(usize::MAX) as u64),
                waiting: VecDeque::new(),
                probing: vec![Probing::default(); scenario.pods],
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
                // Assume that every client has probed every Pod before the first statement.
                let took = Duration::from_nanos((self.slowness(pod) * MEAN * PROBE_WORK) as u64);
                self.clients[client].pool.probed(pod, Some(took), Duration::ZERO);
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
                Event::Response { pod, job } => self.response(pod, job),
                Event::Failed { pod, job } => self.failed(pod, job),
                Event::Tick { client } => self.tick(client),
                Event::Probe { client, pod, number } => self.probe(client, pod, number),
                Event::ProbeTimeout { client, pod, number } => self.probed(client, pod, number, None),
                Event::Joins => self.joins(),
            }
        }
        // The latency of a caller that is still waiting is the time that it has waited so far.
        let waiting: Vec<u64> = self.clients.iter().flat_map(|c| c.waiting.iter().map(|w| w.arrived)).collect();
        waiting.into_iter().for_each(|arrived| self.record(arrived));
        self.latencies.sort_unstable_by(f32::total_cmp);
        let shares = self.pods.iter().map(|pod| pod.completed).collect();
        Outcome { strategy: self.strategy, latencies: self.latencies, errors: self.errors, shares }
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
        if self.scenario.short {
            work /= 10.0;
        }
        if self.strategy == Strategy::CentralQueue {
            let origin = Origin::Statement { client, arrived: self.now, sent: self.now };
            self.central.push_back(Job { origin, work });
            return self.serve_central();
        }
        self.clients[client].waiting.push_back(Waiter { arrived: self.now, work });
        self.send(client);
    }

    /// Sends the statements of waiting callers while connections are available.
    pub(crate) fn send(&mut self, client: usize) {
        while let Some(&Waiter { arrived, work }) = self.clients[client].waiting.front() {
            let Some(pod) = self.clients[client].pool.pick() else { return };
            self.clients[client].waiting.pop_front();
            let origin = Origin::Statement { client, arrived, sent: self.now };
            if self.clients[client].pool.in_flight(pod) == 1 {
                // The Pod was idle, so its time without a response starts now.
                self.responded(client, pod);
            }
            let job = Job { origin, work };
            if self.is_failing(pod) {
                self.events.at(self.now + FAILS_AFTER, Event::Failed { pod, job });
            } else {
                self.pods[pod].push(job);
                self.serve(pod);
            }
        }
    }

    /// Records the latency of a statement that ends now, unless its caller arrived before the measured interval.
    fn record(&mut self, arrived: u64) {
        if self.is_measured(arrived) {
            self.latencies.push((self.now - arrived) as f32 / 1e6);
        }
    }

    fn is_measured(&self, arrived: u64) -> bool {
        arrived as f64 >= self.scenario.from * SECOND
    }

    // === Pods ===

    /// Returns the factor by which a job that starts on this Pod now takes longer than usual.
    fn slowness(&self, pod: usize) -> f64 {
        let now = self.now as f64 / SECOND;
        match self.scenario.fault {
            Fault::Slow { times, until } if pod == 0 && now < until => times,
            Fault::Joins { at, times, seconds } if pod == self.scenario.pods - 1 && now < at + seconds => times,
            Fault::Returns { until, times, seconds, .. } if pod == 0 && (until..until + seconds).contains(&now) => {
                times
            }
            Fault::Cold { times, until } if now < until => times,
            _ => 1.0,
        }
    }

    pub(crate) fn is_failing(&self, pod: usize) -> bool {
        match self.scenario.fault {
            Fault::Returns { at, until, .. } => pod == 0 && (at..until).contains(&(self.now as f64 / SECOND)),
            Fault::Breaks { at } | Fault::Fails { at } => pod == 0 && self.now as f64 >= at * SECOND,
            _ => false,
        }
    }

    /// Returns the time for which a stall of the Pod interrupts a job that would otherwise run from `from` to `to`, in
    /// nanoseconds.
    fn stall(&self, pod: usize, from: u64, to: u64) -> u64 {
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

    /// Starts queued jobs on the free workers of a Pod.
    pub(crate) fn serve(&mut self, pod: usize) {
        while let Some(job) = self.pods[pod].begin() {
            let end = self.now + (job.work * self.slowness(pod)) as u64;
            let end = end + self.stall(pod, self.now, end);
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
        !absent && !self.is_failing(pod) && self.stall(pod, self.now, self.now) == 0
    }

    fn done(&mut self, pod: usize, job: Job) {
        self.pods[pod].end();
        match self.scenario.fault {
            Fault::Far { millis } if pod == 0 => {
                let arrives = self.now + (millis * 1e6) as u64;
                self.events.at(arrives, Event::Response { pod, job });
            }
            _ => self.response(pod, job),
        }
        if self.strategy == Strategy::CentralQueue {
            self.serve_central();
        } else {
            self.serve(pod);
        }
    }

    fn response(&mut self, pod: usize, job: Job) {
        match job.origin {
            Origin::Statement { client, arrived, sent } => {
                self.record(arrived);
                if self.is_measured(arrived) {
                    self.pods[pod].completed += 1;
                }
                if self.strategy == Strategy::CentralQueue {
                    return;
                }
                let took = Duration::from_nanos(self.now - sent);
                self.responded(client, pod);
                self.clients[client].pool.answered(pod, took, false);
                self.send(client);
            }
            Origin::Probe { client, number, sent } => {
                self.responded(client, pod);
                self.probed(client, pod, number, Some(Duration::from_nanos(self.now - sent)));
            }
        }
    }

    fn failed(&mut self, pod: usize, job: Job) {
        let now = Duration::from_nanos(self.now);
        match job.origin {
            Origin::Statement { client, arrived, .. } => {
                self.record(arrived);
                if self.is_measured(arrived) {
                    self.errors += 1;
                }
                if self.scenario.fault.breaks_connections() {
                    self.clients[client].pool.broke(pod, now);
                } else {
                    self.responded(client, pod);
                    self.clients[client].pool.answered(pod, Duration::from_nanos(FAILS_AFTER), true);
                }
                self.send(client);
            }
            Origin::Probe { client, number, .. } => self.probed(client, pod, number, None),
        }
    }

    fn joins(&mut self) {
        let pod = self.scenario.pods - 1;
        for client in 0..self.clients.len() {
            self.clients[client].pool.resize(self.scenario.pods);
            // Each client discovers the new Pod at its next DNS lookup. Clients look up the Service every five seconds,
            // at different times.
            let at = self.now + (self.rng.unit() * 5.0 * SECOND) as u64;
            self.probe_at(client, pod, at);
        }
    }
}
