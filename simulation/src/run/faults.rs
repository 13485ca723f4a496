//! The faults of a plan: each is begun at the start of its window and ended at its end.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Simulation, client, name_servers::around, operators::HOST, paths::Effect, secrets};
use crate::{
    adversary::{Fault, Host, Percent, StopMode, Window},
    dns::{self, Rule},
    network::Node,
    postgres::{Settings, Shutdown},
    properties::Event,
    spawn::Task,
};

/// Applies a fault.
pub(super) async fn apply(simulation: &Simulation, start: Instant, number: u64, window: Window) {
    sleep_until(start + window.start).await;
    let end = start + window.end;
    match &window.fault {
        Fault::Loss { .. }
        | Fault::Delay { .. }
        | Fault::Partition { .. }
        | Fault::HalfOpen { .. }
        | Fault::Reset { .. } => network(simulation, &window.fault, end).await,
        Fault::ServFail { .. }
        | Fault::NxDomain { .. }
        | Fault::Stale { .. }
        | Fault::Truncated { .. }
        | Fault::Silent { .. }
        | Fault::Late { .. }
        | Fault::Wrong { .. } => names(simulation, &window.fault, number, end).await,
        _ => match window.fault.family() {
            "server" => server(simulation, &window.fault, end).await,
            "operator" => operator(simulation, &window.fault, end).await,
            "kubernetes" => kubernetes(simulation, &window.fault, end).await,
            "secret" => secrets::apply(simulation, &window.fault, end).await,
            _ => others(simulation, &window.fault, end).await,
        },
    }
}

/// Returns the number of a host in the network. None if a Pod does not exist yet.
fn node(simulation: &Simulation, host: Host) -> Option<Node> {
    let name = if host == Host::Operator { HOST.to_owned() } else { host.to_string() };
    simulation.pods.paths.node(&name)
}

fn share(percent: Percent) -> f64 {
    f64::from(percent.0) / 100.0
}

async fn network(simulation: &Simulation, fault: &Fault, end: Instant) {
    let (from, to) = match fault {
        Fault::Loss { from, to, .. }
        | Fault::Delay { from, to, .. }
        | Fault::Partition { from, to, .. }
        | Fault::HalfOpen { from, to }
        | Fault::Reset { from, to } => (*from, *to),
        _ => return,
    };
    let (Some(from), Some(to)) = (node(simulation, from), node(simulation, to)) else { return };
    let pairs = |both: bool| if both { vec![(from, to), (to, from)] } else { vec![(from, to)] };
    let paths = &simulation.pods.paths;
    let network = simulation.world.network();
    let effect = match fault {
        Fault::Loss { both, share: lost, .. } => paths.begin(pairs(*both), Effect::Loss(share(*lost))),
        Fault::Delay { both, by, jitter, .. } => paths.begin(pairs(*both), Effect::Delay { by: *by, jitter: *jitter }),
        Fault::Partition { both, .. } => paths.begin(pairs(*both), Effect::Block),
        Fault::HalfOpen { .. } => {
            let severed = network.sever_connections(from, to);
            sleep_until(end).await;
            return network.restore_connections(&severed);
        }
        _ => return network.reset_connections(from, to),
    };
    sleep_until(end).await;
    paths.end(effect);
}

async fn names(simulation: &Simulation, fault: &Fault, number: u64, end: Instant) {
    let (server, rule) = match fault {
        Fault::ServFail { server, share } => (server, Some((dns::Fault::ServFail, *share))),
        Fault::NxDomain { server, share } => (server, Some((dns::Fault::NxDomain, *share))),
        Fault::Truncated { server, share } => (server, Some((dns::Fault::Truncated, *share))),
        Fault::Silent { server, share } => (server, Some((dns::Fault::Silent, *share))),
        Fault::Wrong { server, share } => {
            let kinds = [dns::Fault::Malformed, dns::Fault::Spoofed, dns::Fault::WrongId, dns::Fault::Duplicated];
            (server, Some((kinds[number as usize % kinds.len()].clone(), *share)))
        }
        Fault::Late { server, by } => (server, Some((dns::Fault::Late(around(*by)), Percent(100)))),
        Fault::Stale { server } => (server, None),
        _ => return,
    };
    let is_affected = |index: usize| server.is_none_or(|host| host == Host::NameServer(index as u32));
    let affected: Vec<_> = simulation.names.iter().enumerate().filter(|(index, _)| is_affected(*index)).collect();
    for (_, dns) in &affected {
        match &rule {
            Some((fault, share)) => {
                dns.begin(number, Rule { per_mille: share.0 * 10, ..Rule::every(fault.clone()) });
            }
            None => dns.set_available(false),
        }
    }
    sleep_until(end).await;
    for (_, dns) in affected {
        match rule {
            Some(_) => dns.end(number),
            None => dns.set_available(true),
        }
    }
}

async fn server(simulation: &Simulation, fault: &Fault, end: Instant) {
    let Some(Host::Pod(ordinal)) = fault.hosts().first().copied() else { return };
    let pods = &simulation.pods;
    let Some(pod) = pods.get(ordinal) else { return };
    let server = pod.server.clone();
    match fault {
        Fault::Crash { .. } => {
            pods.kill(ordinal);
            sleep_until(end).await;
            pods.revive(ordinal, pod.uid);
        }
        Fault::PowerLoss { .. } => {
            pods.cut_power(ordinal);
            sleep_until(end).await;
            pods.revive(ordinal, pod.uid);
        }
        Fault::Hang { .. } => {
            server.hang(true);
            sleep_until(end).await;
            server.hang(false);
        }
        Fault::Slow { by, .. } => {
            let change = |settings: &mut Settings, change: &dyn Fn(Duration) -> Duration| {
                for duration in [&mut settings.statement, &mut settings.login, &mut settings.replay] {
                    *duration = change(*duration);
                }
            };
            let factor = by.0;
            server.set(|settings| change(settings, &|duration| duration * factor));
            sleep_until(end).await;
            server.set(|settings| change(settings, &|duration| duration / factor));
        }
        Fault::Stop { mode, .. } => {
            server.stop(match mode {
                StopMode::Fast => Shutdown::Fast,
                StopMode::Smart => Shutdown::Smart,
                StopMode::Immediate => Shutdown::Immediate,
            });
            // The operator may start it earlier.
            sleep_until(end).await;
            server.start();
        }
        Fault::Full { .. } => {
            let (most, sessions) = (simulation.plan.topology.max_connections as usize, server.status().sessions);
            server.set(|settings| settings.max_connections = sessions.min(most));
            sleep_until(end).await;
            server.set(|settings| settings.max_connections = most);
        }
        Fault::ReadOnly { .. } => {
            server.set_read_only(true);
            pods.record_role(ordinal);
            sleep_until(end).await;
            server.set_read_only(false);
            pods.record_role(ordinal);
        }
        Fault::ReplayPaused { .. } => {
            server.pause_replay(true);
            sleep_until(end).await;
            server.pause_replay(false);
        }
        Fault::Promoted { .. } => server.promote(),
        Fault::Terminate { share: part, .. } => {
            let mut random = simulation.world.rng("terminated sessions");
            let pids: Vec<_> = server.pids().into_iter().filter(|_| random.f64() < share(*part)).collect();
            for client in 0..simulation.plan.topology.clients {
                let user = client::name(client);
                let sessions = pids.iter().filter(|pid| server.is_session_of(**pid, &user)).count() as u32;
                let on = pods.recorder.instance(ordinal);
                pods.recorder.record(Event::Terminated { client, on, sessions });
            }
            for pid in pids {
                server.terminate(pid);
            }
        }
        _ => {}
    }
}

async fn operator(simulation: &Simulation, fault: &Fault, end: Instant) {
    let operator = &simulation.operator;
    let task: Option<Task<'_>> = match fault {
        Fault::Failover {} => Some(Box::pin(operator.fail_over())),
        Fault::Switchover {} => Some(Box::pin(operator.switch_over())),
        Fault::RollingUpdate {} => Some(Box::pin(operator.update())),
        _ => None,
    };
    if let Some(task) = task {
        return task.await;
    }
    match fault {
        Fault::Scale { to } => {
            let scale = |to: u32| simulation.pods.kubernetes().with(|cluster, now| cluster.scale(now, to));
            // The operation has no effect while the API server is away.
            let is_scaled = scale(*to).is_ok();
            sleep_until(end).await;
            while is_scaled && scale(simulation.plan.topology.pods).is_err() {
                sleep(Duration::from_secs(1)).await;
            }
        }
        Fault::LeaseStoreLost {} => {
            operator.store.set_outage(true);
            sleep_until(end).await;
            operator.store.set_outage(false);
        }
        Fault::OperatorPaused {} => {
            operator.set_paused(true).await;
            sleep_until(end).await;
            operator.set_paused(false).await;
        }
        _ => {}
    }
}

async fn kubernetes(simulation: &Simulation, fault: &Fault, end: Instant) {
    let pods = &simulation.pods;
    let kubernetes = pods.kubernetes();
    let first = fault.hosts().first().copied();
    let ordinal = if let Some(Host::Pod(ordinal)) = first { ordinal } else { 0 };
    let uid = pods.get(ordinal).and_then(|pod| pod.uid);
    match fault {
        Fault::Unready { .. } => {
            pods.set_unready(ordinal, true);
            sleep_until(end).await;
            pods.set_unready(ordinal, false);
        }
        // The operations have no effect while the API server is away.
        Fault::Delete { .. } => {
            let _ = uid.map(|uid| kubernetes.with(|cluster, now| cluster.delete(now, uid)));
        }
        Fault::ForceDelete { .. } => {
            let _ = uid.map(|uid| kubernetes.with(|cluster, now| cluster.delete_by_force(now, uid)));
        }
        Fault::Move { .. } => {
            let Some(uid) = uid else { return };
            pods.kill(ordinal);
            kubernetes.with(|cluster, now| {
                // The container has ended, so that the new Pod is created at once.
                let _ = cluster.delete_by_force(now, uid);
                cluster.exited(now, uid);
            });
        }
        Fault::NodeLost { node } => {
            let name = simulation.nodes[*node as usize % simulation.nodes.len()].clone();
            let lost: Vec<_> = pods.all().into_values().filter(|pod| pod.node == name).collect();
            let lost: Vec<Node> = lost.iter().map(|pod| pod.host.node()).collect();
            let others = pods.paths.nodes().into_iter().filter(|node| !lost.contains(node));
            let pairs = others.flat_map(|other| lost.iter().flat_map(move |one| [(*one, other), (other, *one)]));
            let effect = pods.paths.begin(pairs.collect(), Effect::Block);
            kubernetes.with(|cluster, now| cluster.lose_node(now, &name));
            sleep_until(end).await;
            pods.paths.end(effect);
            kubernetes.with(|cluster, now| cluster.return_node(now, &name));
        }
        Fault::ApiServerLost {} => {
            let set = |available: bool| {
                kubernetes.with(|cluster, now| cluster.set_available(now, available));
                simulation.names.iter().for_each(|dns| dns.set_available(available));
                if simulation.operator.needs_api_server() {
                    simulation.operator.store.set_outage(!available);
                }
            };
            set(false);
            sleep_until(end).await;
            set(true);
        }
        _ => {}
    }
}

/// Applies faults of clients and clocks.
async fn others(simulation: &Simulation, fault: &Fault, end: Instant) {
    let pods = &simulation.pods;
    match fault {
        Fault::ClientPaused { client: Host::Client(number) } => {
            pause(simulation, *number, true);
            sleep_until(end).await;
            pause(simulation, *number, false);
        }
        Fault::ClientStarved { client: Host::Client(number), stopped, running } => {
            let mut random = simulation.world.rng("starved clients");
            while Instant::now() < end {
                pause(simulation, *number, true);
                sleep_until(end.min(Instant::now() + *stopped)).await;
                pause(simulation, *number, false);
                sleep(running.mul_f64(1.0 + random.f64())).await;
            }
        }
        Fault::Skew { host: Host::Client(number), by, ahead } => {
            let host = &simulation.clients[*number as usize].host;
            host.set_skew(*ahead, *by);
            sleep_until(end).await;
            host.set_skew(true, Duration::ZERO);
        }
        Fault::Skew { host: Host::Pod(ordinal), by, ahead } => {
            let Some(pod) = pods.get(*ordinal) else { return };
            let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            pod.server.set(|settings| settings.clock_skew = if *ahead { micros } else { -micros });
            sleep_until(end).await;
            pod.server.set(|settings| settings.clock_skew = 0);
        }
        _ => {}
    }
}

/// Stops or continues the process of a client.
fn pause(simulation: &Simulation, client: u32, paused: bool) {
    simulation.clients[client as usize].host.set_paused(paused);
    simulation.pods.recorder.record(Event::Paused { client, paused });
}

/// Returns the largest number of Pods that the faults of a plan lead to.
pub(super) fn most_pods(plan: &crate::adversary::Plan) -> u32 {
    let scaled = plan.faults.iter().filter_map(|window| match window.fault {
        Fault::Scale { to } => Some(to),
        _ => None,
    });
    scaled.chain([plan.topology.pods]).max().unwrap_or(plan.topology.pods)
}
