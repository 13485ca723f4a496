//! The steps `lag` and `clock`.

use std::time::Duration;

use podpool::Role;

use super::{Finding, Severity, Step};
use crate::facts::{Facts, PodFacts, Server};

/// Lag that is worth a warning if the URL sets no `max_lag`.
const LAG: Duration = Duration::from_secs(5);
/// Lag in bytes that is worth a warning if the URL sets no `max_lag_bytes`.
const LAG_BYTES: u64 = 64 << 20;
/// Difference of clocks that is worth a warning, in seconds.
const SKEW: f64 = 1.0;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = lag(facts);
    findings.extend(clock(facts));
    findings
}

fn lag(facts: &Facts) -> Vec<Finding> {
    let mut primaries = facts.servers().filter(|(_, server)| server.role == Role::Primary);
    // Without a primary, or with several, there is no position to compare with.
    let (Some((_, primary)), None) = (primaries.next(), primaries.next()) else { return Vec::new() };
    let Some(primary) = primary.position else { return Vec::new() };
    let standbys: Vec<_> = facts.servers().filter(|(_, server)| server.role == Role::Standby).collect();
    let behind: Vec<_> = standbys.iter().filter(|(_, server)| server.behind).collect();
    let findings: Vec<_> = behind.iter().map(|(pod, server)| late(facts, pod, server, primary)).collect();
    if !findings.is_empty() || standbys.is_empty() {
        return findings;
    }
    vec![Finding::new(Step::Lag, Severity::Ok, "every standby has replayed the primary's position")]
}

fn late(facts: &Facts, pod: &PodFacts, server: &Server, primary: i64) -> Finding {
    let limits = facts.config.limits();
    let bytes = (primary - server.position.unwrap_or_default()).unsigned_abs();
    let since =
        server.replayed_ago.map(|ago| format!(", and its last transaction is {ago:.1?} old")).unwrap_or_default();
    let (why, remedy) = if server.paused {
        ("its replay is paused", "resume it on this Pod: `SELECT pg_wal_replay_resume()`")
    } else if !server.receiving {
        (
            "it receives nothing from its upstream server",
            "read the standby's log: `primary_conninfo`, the replication user's password, or a removed WAL segment \
             (then copy the standby again; a replication slot prevents it)",
        )
    } else {
        (
            "it receives, but has not replayed",
            "look for long queries on the standby (max_standby_streaming_delay), a bulk load on the primary, or a slow \
             disk (`SELECT * FROM pg_stat_replication` on the primary shows where the delay is)",
        )
    };
    let is_late = server.replayed_ago.is_some_and(|ago| ago >= limits.max_lag.unwrap_or(LAG))
        || bytes >= limits.max_lag_bytes.unwrap_or(LAG_BYTES);
    let severity = if is_late || server.paused || !server.receiving { Severity::Warning } else { Severity::Note };
    let effect = match (limits.max_lag, limits.max_lag_bytes) {
        (None, None) => "reads on it are stale, because neither max_lag nor max_lag_bytes is set",
        _ => "the pool does not read from a standby that exceeds max_lag or max_lag_bytes",
    };
    let cause = format!("the standby is {bytes} bytes behind the primary{since}: {why}; {effect}");
    Finding::new(Step::Lag, severity, cause).on([pod.pod.clone()]).remedy(remedy)
}

fn clock(facts: &Facts) -> Option<Finding> {
    let skew = |server: &Server| (server.clock.abs() - server.round_trip.as_secs_f64() / 2.0).max(0.0);
    let servers: Vec<_> = facts.servers().collect();
    let largest = servers.iter().map(|(_, server)| skew(server)).fold(0.0, f64::max);
    if servers.is_empty() {
        return None;
    }
    if largest < SKEW {
        let cause = format!("the servers' clocks differ from this machine's by less than {SKEW} s");
        return Some(Finding::new(Step::Clock, Severity::Ok, cause));
    }
    let clocks = || servers.iter().map(|(_, server)| server.clock);
    let spread = clocks().fold(f64::MIN, f64::max) - clocks().fold(f64::MAX, f64::min);
    let wrong = servers.iter().filter(|(_, server)| skew(server) >= SKEW);
    let pods = wrong.map(|(pod, server)| format!("{}: {:+.1} s", pod.pod, server.clock));
    let (cause, remedy) = if spread < SKEW && servers.len() > 1 {
        (
            "all servers' clocks agree with each other, but not with this machine's clock",
            "synchronize the clock of this machine (chrony, systemd-timesyncd)",
        )
    } else {
        (
            "the server's clock differs from this machine's",
            "synchronize the clocks of the nodes (chrony, systemd-timesyncd): logs, certificates and now() depend on \
             them; the pool itself measures lag with the client's clock",
        )
    };
    Some(Finding::new(Step::Clock, Severity::Warning, cause).on(pods).remedy(remedy))
}
