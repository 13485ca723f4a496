//! Requests of an administrator: a switchover, and the pause mode.

use tokio::time::{Instant, timeout};

use super::agent::{Agent, Next};
use crate::{
    operator::{
        group::observe,
        store::{Content, Document, Store, Unavailable},
    },
    postgres::Shutdown,
};

/// Requests a switchover to `candidate`, or to any member. Returns when the request is stored.
///
/// # Errors
///
/// Fails if the store does not respond.
pub async fn switch_over(store: &dyn Store, from: &str, candidate: Option<&str>) -> Result<(), Unavailable> {
    update(store, from, |content| content.switchover = Some(candidate.unwrap_or_default().to_owned())).await
}

/// Begins or ends the pause mode, in which no leader is demoted or elected.
///
/// # Errors
///
/// Fails if the store does not respond.
pub async fn pause(store: &dyn Store, from: &str, paused: bool) -> Result<(), Unavailable> {
    update(store, from, |content| content.paused = paused).await
}

async fn update(store: &dyn Store, from: &str, change: impl Fn(&mut Content)) -> Result<(), Unavailable> {
    loop {
        let document = store.read(from).await?;
        let mut content = document.content;
        change(&mut content);
        if store.write(from, document.version, content).await? {
            return Ok(());
        }
    }
}

impl Agent {
    /// Stops the leader's server and releases the lease, so that another member becomes the leader.
    pub(super) async fn switch_over(&self, document: &Document) -> Next {
        if !self.has_candidate(&document.content).await {
            self.event("switchover rejected: no member can become the leader");
            // If the write fails, the next cycle rejects the request again.
            let _ = self.write(document, |content| content.switchover = None).await;
            return Next::Again;
        }
        self.event("switchover begins");
        self.server.stop(Shutdown::Fast);
        let began = Instant::now();
        while timeout(self.settings.loop_wait, self.server.stopped()).await.is_err() {
            if began.elapsed() >= self.settings.stop_timeout {
                self.server.stop(Shutdown::Immediate);
            }
            let Ok(document) = self.store.read(self.name()).await else {
                continue;
            };
            let holder = document.content.leader.as_ref().map(|lease| lease.holder.as_str());
            if holder != Some(self.name()) {
                self.server.stop(Shutdown::Immediate);
                return Next::Again;
            }
            // If the write fails, the next iteration renews the lease, or finds that it has expired.
            let lease = self.lease();
            let _ = self.write(&document, |content| content.leader = Some(lease)).await;
        }
        self.release().await
    }

    /// Returns true if the requested member, or any member if none is requested, can become the leader.
    async fn has_candidate(&self, content: &Content) -> bool {
        let requested = content.switchover.as_deref().filter(|name| !name.is_empty());
        for member in self.members.iter().filter(|member| *member != self.name()) {
            let wanted = requested.is_none_or(|requested| requested == member);
            let allowed = !self.settings.synchronous || content.synchronous.standbys.contains(member);
            if !wanted || !allowed {
                continue;
            }
            let status = observe(self.server.cluster(), self.name(), member).await;
            if status.is_some_and(|status| status.is_standby() && status.receiving && !status.hung) {
                return true;
            }
        }
        false
    }
}
