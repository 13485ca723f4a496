use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::properties::{CallId, Event, Instance, Record, Role};

/// The records of a simulation while it runs. Clones share the records.
#[derive(Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The start of the plan. Unknown while the world is being set up; until then, all records are those of time zero.
    start: Option<Instant>,
    records: Vec<Record>,
    last_call: u64,
    last_id: i64,
    /// The Pod of each address, the last one if several had it.
    addresses: BTreeMap<IpAddr, Instance>,
    /// The addresses of each Pod over time, by ordinal.
    moves: BTreeMap<u32, Vec<(Duration, Instance)>>,
    roles: BTreeMap<Instance, Option<Role>>,
}

impl State {
    fn now(&self) -> Duration {
        self.start.map_or(Duration::ZERO, |start| start.elapsed())
    }

    fn record(&mut self, event: Event) {
        let at = self.now();
        self.records.push(Record { at, event });
    }
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Declares that the plan starts now.
    pub(super) fn start(&self) {
        self.lock().start = Some(Instant::now());
    }

    /// Returns the start of the plan.
    pub(super) fn started(&self) -> Instant {
        self.lock().start.unwrap_or_else(Instant::now)
    }

    /// Returns the time since the start of the plan.
    pub(super) fn now(&self) -> Duration {
        self.lock().now()
    }

    /// Appends an event.
    pub(super) fn record(&self, event: Event) {
        self.lock().record(event);
    }

    /// Returns a number for the next call.
    pub(super) fn next_call(&self) -> CallId {
        let mut state = self.lock();
        state.last_call += 1;
        CallId(state.last_call)
    }

    /// Returns so many ids that no other call inserts.
    pub(super) fn next_ids(&self, count: usize) -> Vec<i64> {
        let mut state = self.lock();
        let first = state.last_id + 1;
        state.last_id += count as i64;
        (first..=state.last_id).collect()
    }

    /// Records that a Pod has other addresses from now on.
    pub(super) fn moved(&self, pod: u32, addresses: &[IpAddr]) {
        let mut state = self.lock();
        let now = state.now();
        let moves = state.moves.entry(pod).or_default();
        let on = Instance { pod, incarnation: moves.len() as u32 };
        moves.push((now, on));
        let former = moves.iter().rev().nth(1).map(|(_, former)| *former);
        state.addresses.extend(addresses.iter().map(|address| (*address, on)));
        if let Some(former) = former.filter(|former| state.roles.get(former).is_some_and(Option::is_some)) {
            state.roles.insert(former, None);
            state.record(Event::Role { on: former, role: None });
        }
    }

    /// Returns the Pod of an address.
    pub(super) fn pod_at(&self, address: IpAddr) -> Option<Instance> {
        self.lock().addresses.get(&address).copied()
    }

    /// Returns the present instance of a Pod.
    pub(super) fn instance(&self, pod: u32) -> Instance {
        let state = self.lock();
        let last = state.moves.get(&pod).and_then(|moves| moves.last());
        last.map_or(Instance { pod, incarnation: 0 }, |(_, on)| *on)
    }

    /// Returns the instance of a Pod at a time.
    pub(super) fn instance_at(&self, pod: u32, at: Duration) -> Instance {
        let state = self.lock();
        let moves = state.moves.get(&pod).map_or(&[][..], Vec::as_slice);
        let current = moves.iter().rev().find(|(since, _)| *since <= at).or(moves.first());
        current.map_or(Instance { pod, incarnation: 0 }, |(_, on)| *on)
    }

    /// Records the role of a Pod's server, if it has changed.
    pub(super) fn role(&self, pod: u32, role: Option<Role>) {
        let on = self.instance(pod);
        let mut state = self.lock();
        if state.roles.insert(on, role) != Some(role) {
            state.record(Event::Role { on, role });
        }
    }

    /// Removes and returns all records.
    pub(super) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.lock().records)
    }
}
