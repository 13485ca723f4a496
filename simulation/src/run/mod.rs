//! Executes a plan: builds the world, applies the faults, records the history, and checks the properties.
//!
//! ```text
//! Plan ─▶ Simulation: Kubernetes ─▶ Pods (PostgreSQL, operator) ◀─ network ─▶ clients (podpool, callers)
//!                         └─▶ name servers (UDP, TCP) ◀────────────────────────┘
//!         faults ─▶ all of them ─▶ Recorder ─▶ History ─▶ properties
//! ```
//!
//! The servers and their operator are running, and every name server knows the Pods, before the plan's time begins.

mod caller;
mod client;
mod faults;
mod healed;
mod name_servers;
mod operators;
mod paths;
mod pods;
mod recorder;
mod secrets;
mod server_history;
mod setup;

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    task::spawn_local,
    time::{Instant, sleep, sleep_until},
};

use self::{
    client::Client, name_servers::Dns, operators::Operator, pods::Pods, secrets::Secrets, server_history::ServerHistory,
};
use crate::{
    adversary::Plan,
    properties::{self, Event, History, Violation},
    report::{Run, TraceEvent},
    world::{World, cpu_time},
};

/// Time after the pool is closed after which nothing may be left of it, besides the settings' time-outs.
const CLEARANCE: Duration = Duration::from_secs(5);

/// A plan that was executed.
#[derive(Debug)]
pub struct Finished {
    /// The plan.
    pub plan: Plan,
    /// What happened.
    pub history: History,
    /// The events of all hosts.
    pub events: Vec<TraceEvent>,
    /// The violations of all properties.
    pub violations: Vec<Violation>,
    /// The CPU time that the simulation has used.
    pub cpu: Duration,
    /// The simulated time, with the time before the start and after the end of the plan.
    pub simulated: Duration,
}

impl Finished {
    /// Returns the parts that reports need.
    #[must_use]
    pub fn report(&self) -> Run<'_> {
        Run { plan: &self.plan, events: &self.events, violations: &self.violations }
    }
}

/// The parts of a world that faults affect.
struct Simulation {
    plan: Plan,
    world: World,
    pods: Arc<Pods>,
    operator: Arc<Operator>,
    names: Vec<Dns>,
    /// The names of the nodes.
    nodes: Vec<String>,
    clients: Vec<Client>,
    secrets: Secrets,
}

/// Executes a plan on a thread of its own, and checks all properties.
///
/// # Panics
///
/// Panics if the servers do not start, or if the plan has settings that podpool rejects.
#[must_use]
pub fn run(plan: &Plan) -> Finished {
    let (seed, plan) = (plan.seed, plan.clone());
    World::run(seed, async move |world| {
        let began = cpu_time();
        let simulation = setup::build(&world, &plan).await;
        let (history, start) = execute(simulation).await;
        let violations = properties::check(&history);
        let shift = |entry: crate::world::Entry| TraceEvent {
            at: entry.at.saturating_sub(start),
            host: entry.host.to_string(),
            text: entry.text,
        };
        let events = world.trace().entries().into_iter().filter(|entry| entry.at >= start).map(shift).collect();
        let (cpu, simulated) = (cpu_time() - began, world.elapsed());
        Finished { plan, history, events, violations, cpu, simulated }
    })
}

/// Executes the plan of a simulation. Returns the history, and the time at which the plan began.
async fn execute(mut simulation: Simulation) -> (History, Duration) {
    let plan = simulation.plan.clone();
    simulation.pods.recorder.start();
    let (start, began) = (Instant::now(), simulation.world.elapsed());
    let start_client = |number| Client::start(&simulation.world, &plan, number, &simulation.pods);
    simulation.clients = (0..plan.topology.clients).map(start_client).collect();
    let simulation = Rc::new(simulation);
    let end = start + plan.duration();
    let callers = plan.callers.iter().enumerate().map(|(index, caller)| {
        let client = simulation.clients[caller.client as usize].clone();
        let random = simulation.world.rng(&format!("caller {index}"));
        client.host.clone().run(caller::run(client, index, caller.clone(), random, end))
    });
    let callers: Vec<_> = callers.collect();
    let healed = Rc::new(Cell::new(None));
    let mut tasks = Vec::new();
    for (number, window) in plan.faults.iter().cloned().enumerate() {
        let simulation = simulation.clone();
        tasks.push(spawn_local(async move { faults::apply(&simulation, start, number as u64, window).await }));
    }
    let (watched, time) = (simulation.clone(), healed.clone());
    tasks.push(spawn_local(async move {
        sleep_until(start + watched.plan.last_end()).await;
        healed::watch(&watched, &time).await;
    }));
    for caller in callers {
        // A caller ends at the end of the plan.
        caller.await.expect("a caller does not panic");
    }
    for task in tasks {
        task.abort();
        // Waits until the task has been dropped.
        let _ = task.await;
    }
    let mut simulation = Rc::into_inner(simulation).expect("the tasks with the simulation have been dropped");
    close(&mut simulation).await;
    (history(&simulation, healed.get()), began)
}

/// Closes the pools, drops them, and records what is left of them.
async fn close(simulation: &mut Simulation) {
    let mut hosts = Vec::new();
    for client in std::mem::take(&mut simulation.clients) {
        hosts.push((client.number, client.host.clone()));
        let host = client.host.clone();
        host.event("closes the pool");
        let closed = host.run(async move { client.pool.close().await });
        // The number of connections that were not returned in time is of no interest.
        let _ = closed.await;
    }
    let settings = &simulation.plan.settings;
    sleep(CLEARANCE + settings.tcp_user_timeout + settings.connect_timeout).await;
    for (client, host) in hosts {
        let (tasks, sockets) = (host.tasks() as u32, simulation.world.network().sockets(host.node()) as u32);
        let sessions = simulation.pods.sessions_of(&client::name(client));
        // Timers belong to tasks in this runtime, so none is left without a task.
        let closed = Event::Closed { client, tasks, timers: 0, sockets, sessions };
        simulation.pods.recorder.record(closed);
    }
}

/// Returns the history of a simulation that has ended.
fn history(simulation: &Simulation, healed: Option<Duration>) -> History {
    let recorder = &simulation.pods.recorder;
    let rows = simulation.pods.primary().map(|(_, pod)| server_history::rows(&pod.server));
    let servers = ServerHistory { recorder, history: simulation.pods.cluster.history(), rows: &rows };
    let mut own = recorder.take();
    servers.add_sessions(&mut own);
    let mut records = servers.commits();
    records.extend(servers.reads());
    records.extend(own);
    records.sort_by_key(|record| record.at);
    let end = records.last().map_or(Duration::ZERO, |record| record.at);
    History { plan: simulation.plan.clone(), healed, end, rows, records }
}
