//! Work that both operators do with a group of servers.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::postgres::{Cluster, Phase, RejoinError, Server, Shutdown, Status};

/// Time within which another member must report its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes the first server a primary and the others its standbys, and waits until all of them run.
///
/// # Errors
///
/// Fails if a server fails during this.
pub async fn bootstrap(servers: &[Arc<Server>]) -> Result<(), RejoinError> {
    let Some((primary, standbys)) = servers.split_first() else {
        return Ok(());
    };
    primary.start();
    primary.running().await;
    for standby in standbys {
        standby.base_backup(primary.name()).await?;
        standby.start();
        standby.running().await;
    }
    while standbys.iter().any(|standby| !standby.status().receiving) {
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Returns the status of a member as the host `from` sees it, or `None` if the member's host does not respond.
pub(super) async fn observe(cluster: &Cluster, from: &str, member: &str) -> Option<Status> {
    let exchange = async {
        if from != member && !cluster.links().deliver(from, member).await {
            return None;
        }
        let status = cluster.server(member)?.status();
        (from == member || cluster.links().deliver(member, from).await).then_some(status)
    };
    timeout(STATUS_TIMEOUT, exchange).await.ok().flatten()
}

/// Stops a server and waits for the end. If a fast shutdown takes longer than `limit`, stops it immediately.
pub(super) async fn stop(server: &Server, limit: Duration) {
    server.stop(Shutdown::Fast);
    if timeout(limit, server.stopped()).await.is_err() {
        server.stop(Shutdown::Immediate);
    }
}

/// Makes a server a running standby of `leader`, as far as possible now: restores its data directory if it is
/// incomplete or has diverged, configures its upstream server, and starts it.
pub(super) async fn rejoin(server: &Arc<Server>, leader: &str, limit: Duration) {
    let Some(peer) = observe(server.cluster(), server.name(), leader).await else {
        return;
    };
    if !peer.is_primary() || peer.hung {
        return;
    }
    let Some(source) = server.cluster().server(leader) else {
        return;
    };
    let status = server.status();
    if status.usable && !server.has_diverged_from(&source) {
        if status.upstream.as_deref() != Some(leader) || status.phase == Phase::Stopped {
            server.follow(Some(leader));
        }
        server.start();
        return;
    }
    if status.phase != Phase::Stopped {
        stop(server, limit).await;
    }
    let copied = if status.usable { server.rewind(leader).await } else { server.base_backup(leader).await };
    match copied {
        Ok(()) => server.start(),
        Err(error) => server.cluster().event(server.name(), format!("cannot rejoin {leader}: {error}")),
    }
}
