//! The periodic work of the clients: ticks, which update the state of the pool, and probes, which check the health of
//! the Pods.

use std::time::Duration;

use crate::{
    client::Client,
    pod::{Job, Origin},
    scenario::MEAN,
    simulation::{Event, FAILS_AFTER, PROBE_WORK, SECOND, Simulation, TICK, spread},
    strategy::Strategy,
};

/// Time after which a probe without a response fails, in nanoseconds.
const PROBE_TIMEOUT: u64 = 1_000_000_000;
/// Time without a response after which a Pod with statements in flight is probed immediately, in nanoseconds.
const UNRESPONSIVE_AFTER: u64 = 250_000_000;

impl Simulation {
    /// Records a response from a Pod. This restarts the time after which the Pod counts as unresponsive.
    pub(crate) fn responded(&mut self, client: usize, pod: usize) {
        let probing = &mut self.clients[client].probing[pod];
        (probing.last_response, probing.suspected) = (self.now, false);
    }

    pub(crate) fn tick(&mut self, client: usize) {
        self.events.at(self.now + TICK, Event::Tick { client });
        let now = Duration::from_nanos(self.now);
        self.clients[client].pool.tick(Duration::from_nanos(TICK), now);
        if self.strategy == Strategy::CentralQueue {
            return;
        }
        for pod in 0..self.pods.len() {
            let probing = self.clients[client].probing[pod];
            let in_use = probing.last_response > 0 && self.clients[client].pool.in_flight(pod) > 0;
            let unresponsive = in_use && self.now - probing.last_response >= UNRESPONSIVE_AFTER;
            if unresponsive && !probing.suspected && !probing.in_flight {
                self.clients[client].probing[pod].suspected = true;
                self.probe_at(client, pod, self.now);
            }
        }
        self.send(client);
    }

    /// Schedules the next periodic probe of a Pod.
    pub(crate) fn probe_later(&mut self, client: usize, pod: usize) {
        let Client { pool, probing, .. } = &self.clients[client];
        let interval = if probing[pod].failed || !pool.is_healthy(pod) {
            1.0
        } else {
            (if pool.slowness(pod) > 1 { 2.0 } else { 5.0 }) * (0.8 + 0.4 * self.rng.unit())
        };
        self.probe_at(client, pod, self.now + (interval * SECOND) as u64);
    }

    /// Schedules a probe of a Pod. Cancels a scheduled probe that has not been sent.
    pub(crate) fn probe_at(&mut self, client: usize, pod: usize, at: u64) {
        let probing = &mut self.clients[client].probing[pod];
        probing.number += 1;
        self.events.at(at, Event::Probe { client, pod, number: probing.number });
    }

    /// Sends a scheduled probe.
    pub(crate) fn probe(&mut self, client: usize, pod: usize, number: u64) {
        let probing = &mut self.clients[client].probing[pod];
        if probing.number != number || self.strategy == Strategy::CentralQueue {
            return; // superseded by a later probe, or not needed with a central queue
        }
        probing.in_flight = true;
        let job = Job {
            origin: Origin::Probe { client, number, sent: self.now },
            work: MEAN * PROBE_WORK * spread(&mut self.rng),
        };
        if self.is_failing(pod) && self.scenario.fault.breaks_connections() {
            return self.events.at(self.now + FAILS_AFTER, Event::Failed { pod, job });
        }
        self.events.at(self.now + PROBE_TIMEOUT, Event::ProbeTimeout { client, pod, number });
        self.pods[pod].push(job);
        self.serve(pod);
    }

    /// Reports the duration of a probe to the client's pool, or its failure if `took` is `None`.
    pub(crate) fn probed(&mut self, client: usize, pod: usize, number: u64, took: Option<Duration>) {
        let probing = &mut self.clients[client].probing[pod];
        if probing.number != number || !probing.in_flight {
            return; // the probe has already ended, or a later one has been scheduled instead
        }
        (probing.in_flight, probing.failed) = (false, took.is_none());
        self.clients[client].pool.probed(pod, took, Duration::from_nanos(self.now));
        self.probe_later(client, pod);
        self.send(client);
    }
}
