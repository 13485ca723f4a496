//! The step `slots`: connections in use, and those that the clients may open.

use super::{Finding, Severity, Step};
use crate::facts::{Facts, Server};

/// Part of the slots in use from which a server counts as almost full.
const ALMOST_FULL: f64 = 0.85;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let servers: Vec<_> = facts.servers().collect();
    if servers.is_empty() {
        return findings;
    }
    let full = servers.iter().filter(|(_, server)| is_almost_full(server));
    let full: Vec<_> =
        full.map(|(pod, server)| format!("{}: {} of {}", pod.pod, server.sessions, server.ordinary_slots())).collect();
    if !full.is_empty() {
        let cause = "the server is almost full: few connection slots are free";
        let remedy = "lower `pool_size` (or set `max_connections`) in the clients, or raise `max_connections` of the \
                      server; `SELECT usename, application_name, count(*) FROM pg_stat_activity GROUP BY 1, 2` shows \
                      who holds the slots";
        findings.push(Finding::new(Step::Slots, Severity::Warning, cause).on(full).remedy(remedy));
    }
    let limits = facts.config.limits();
    let clients = limits.clients.unwrap_or(1) as u64;
    // Each client may have a probe connection besides its pool.
    let wanted = clients * (limits.pool_size as u64 + 1);
    let slots = |server: &Server| server.slots.map_or(server.ordinary_slots().max(0) as u64, u64::from);
    let least = servers.iter().map(|(_, server)| slots(server)).min().unwrap_or_default();
    if wanted > least {
        let cause = format!(
            "the clients may open more connections than a server accepts: clients={clients} × (pool_size={} + 1 probe) \
             = {wanted}, and this user has {least} slots",
            limits.pool_size
        );
        let remedy = format!(
            "set pool_size to at most {}, or raise `max_connections` of the server (or the connection limit of the \
             role or database)",
            (least / clients).saturating_sub(1)
        );
        findings.push(Finding::new(Step::Slots, Severity::Warning, cause).remedy(remedy));
    }
    if findings.is_empty() {
        let most = servers.iter().map(|(_, server)| server).max_by_key(|server| server.sessions);
        let used = most.map(|server| format!("{} of {}", server.sessions, server.ordinary_slots())).unwrap_or_default();
        let unset = if limits.clients.is_none() { "; the parameter `clients` sets their number" } else { "" };
        let cause = format!("at most {used} slots are in use; clients={clients} may open {wanted}{unset}");
        findings.push(Finding::new(Step::Slots, Severity::Ok, cause));
    }
    findings
}

fn is_almost_full(server: &Server) -> bool {
    server.sessions as f64 >= ALMOST_FULL * server.ordinary_slots() as f64
}
