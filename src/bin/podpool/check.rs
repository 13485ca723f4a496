//! The command `check`: gathers the facts, and prints what they mean.

use std::{process::ExitCode, time::Duration};

use podpool::{Config, Role};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    args::Fault,
    connect::{self, Visit},
    diagnose::{self, Severity},
    facts::Facts,
    lookup, report,
};

/// Time that a standby has to replay the position that the primary had when the check asked for it.
const CATCH_UP: Duration = Duration::from_millis(400);

pub(crate) async fn run(config: Config, json: bool) -> Result<ExitCode, Fault> {
    let began = Instant::now();
    let facts = gather(config).await;
    let findings = diagnose::diagnose(&facts);
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    if json {
        println!("{:#}", report::json(&facts, &findings, began.elapsed()));
    } else {
        print!("{}", report::text(&facts, &findings, began.elapsed()));
    }
    Ok(worst.exit_code())
}

/// Looks up all hosts and connects to all Pods, concurrently.
async fn gather(config: Config) -> Facts {
    let mut found = Vec::new();
    for entry in config.hosts() {
        found.push(lookup::look_up(&config, entry).await);
    }
    let mut visits = JoinSet::new();
    let mut hosts = Vec::new();
    for host in found {
        let config = config.clone().with_host(host.entry);
        match host.endpoints {
            None => drop(visits.spawn(connect::visit(config, None))),
            Some(pods) => {
                pods.into_iter().for_each(|pod| drop(visits.spawn(connect::visit(config.clone(), Some(pod)))))
            }
        }
        hosts.push(host.facts);
    }
    let mut visits = visits.join_all().await;
    visits.sort_by(|one, other| one.facts.pod.cmp(&other.facts.pod));
    await_replay(&mut visits).await;
    let mut pods = Vec::new();
    for visit in visits {
        pods.push(visit.end().await);
    }
    Facts { config, hosts, pods }
}

/// Waits until each standby has replayed the position that the primary has reported, and marks those that do not. A
/// position that was merely read earlier than the primary's is no lag.
async fn await_replay(visits: &mut [Visit]) {
    let servers = visits.iter().filter_map(|visit| visit.facts.server());
    let mut primaries = servers.filter(|server| server.role == Role::Primary).map(|server| server.position);
    // With several primaries, it is unknown which of them a standby follows.
    let (Some(Some(primary)), None) = (primaries.next(), primaries.next()) else { return };
    let deadline = Instant::now() + CATCH_UP;
    for visit in visits {
        let (Some(client), Ok(server)) = (&visit.client, &mut visit.facts.visit) else { continue };
        if server.role != Role::Standby {
            continue;
        }
        while server.position.is_some_and(|position| position < primary) {
            if Instant::now() >= deadline {
                server.behind = true;
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            server.position = connect::position(client).await;
        }
    }
}
