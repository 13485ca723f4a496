//! The election of a leader while the lease is free.

use super::agent::{Agent, Next};
use crate::{
    operator::{
        group::observe,
        store::{Content, Document, SynchronousState},
    },
    postgres::{Phase, Status},
};

impl Agent {
    /// Acquires the lease if this member's server should become the primary.
    pub(super) async fn elect(&mut self, document: &Document) -> Next {
        let status = self.server.status();
        if document.content.paused && !status.is_primary() {
            return Next::Wait;
        }
        if status.phase == Phase::Stopped && status.usable {
            // A stopped server cannot compare its log before its recovery, so it starts as a standby.
            self.server.follow(None);
            self.server.start();
            return Next::Wait;
        }
        if status.phase != Phase::Running || status.hung || !self.is_eligible(&document.content, &status).await {
            return Next::Wait;
        }
        let (lease, name) = (self.lease(), self.name().to_owned());
        let acquired = self.write(document, |content| {
            content.leader = Some(lease);
            content.switchover = None;
            // From now on, commits may be acknowledged that no other member has.
            content.synchronous = SynchronousState { leader: Some(name), standbys: Vec::new() };
        });
        if acquired.await != Ok(true) {
            // Another member was faster, or the next cycle finds out whether the write was applied.
            return Next::Again;
        }
        self.event("acquired the lease");
        self.promote().await;
        Next::Again
    }

    /// Returns true if no other member should become the leader instead.
    async fn is_eligible(&self, content: &Content, own: &Status) -> bool {
        if self.settings.synchronous && !includes(&content.synchronous, self.name()) {
            return false;
        }
        if content.position.saturating_sub(own.position.0) > self.settings.maximum_lag {
            return false;
        }
        for member in self.members.iter().filter(|member| *member != self.name()) {
            let Some(other) = observe(self.server.cluster(), self.name(), member).await else {
                continue;
            };
            if other.phase != Phase::Running || other.hung {
                continue;
            }
            let requested = content.switchover.as_deref() == Some(member);
            let allowed = !self.settings.synchronous || includes(&content.synchronous, member);
            let ahead = (other.timeline, other.position) > (own.timeline, own.position);
            if !other.in_recovery || (allowed && (requested || ahead)) {
                return false;
            }
        }
        true
    }
}

/// Returns true if a member may have been the last leader, or has every commit that the last leader acknowledged.
fn includes(synchronous: &SynchronousState, member: &str) -> bool {
    match &synchronous.leader {
        Some(leader) => leader == member || synchronous.standbys.iter().any(|standby| standby == member),
        None => true,
    }
}
