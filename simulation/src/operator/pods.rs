//! The part of Kubernetes that operators use.

use std::convert::Infallible;

use crate::{postgres::Server, spawn::Task};

/// The role of a Pod, as its label shows it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// The Pod accepts writes.
    Primary,
    /// The Pod is a standby.
    Standby,
}

/// The Pods of a group of servers. The name of a Pod is that of its server.
pub trait Pods: Send + Sync {
    /// Reports the result of the readiness check, and the role, of a Pod. Called when the process of the server has
    /// changed, perhaps without a change of both. The kubelet applies its intervals and thresholds.
    fn report(&self, pod: &str, ready: bool, role: Role);

    /// Deletes a Pod with its server process, and completes when the Pod was created again. Its volume is kept. The
    /// server is stopped afterwards, and its agent or instance manager runs again.
    fn recreate<'a>(&'a self, pod: &'a str) -> Task<'a>;
}

/// Reports the readiness and the role of a server's Pod, now and after each change.
pub(super) async fn report_changes(server: &Server, pods: &dyn Pods) -> Infallible {
    loop {
        let seen = server.changes();
        let role = if server.status().in_recovery { Role::Standby } else { Role::Primary };
        pods.report(server.name(), server.is_ready(), role);
        server.changed(seen).await;
    }
}
