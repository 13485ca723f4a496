//! The choice of the synchronous standby.
//!
//! A member is in the store's list of synchronous standbys only while each acknowledged commit waits for it. A member
//! is therefore added to the server's configuration before the store, and removed from the store before the server's
//! configuration.

use std::time::Duration;

use tokio::time::sleep;

use super::agent::{Agent, Next};
use crate::{
    operator::store::{Document, SynchronousState},
    postgres::Synchronous,
};

/// Time between two checks whether a new synchronous standby has the log.
const CHECK: Duration = Duration::from_millis(200);
/// Number of these checks in one cycle.
const CHECKS: usize = 10;

impl Agent {
    /// Returns the configuration of a leader that has no synchronous standby: commits wait for any standby in strict
    /// mode, and for none otherwise.
    pub(super) fn without_synchronous(&self) -> Synchronous {
        if !self.settings.strict {
            return Synchronous::default();
        }
        let others = self.members.iter().filter(|member| *member != self.name());
        Synchronous { names: others.cloned().collect(), required: 1 }
    }

    /// Updates the synchronous standby of the leader.
    pub(super) async fn update_synchronous(&self, document: &Document) -> Next {
        let status = self.server.status();
        if !self.settings.synchronous || !status.is_primary() {
            return Next::Wait;
        }
        let SynchronousState { leader, standbys } = &document.content.synchronous;
        let current = standbys.first().filter(|_| leader.as_deref() == Some(self.name()));
        let chosen = self.choose(current);
        if chosen.as_ref() == current && leader.as_deref() == Some(self.name()) {
            let configured = current.map_or_else(|| self.without_synchronous(), |name| only(name));
            if status.synchronous != configured {
                self.server.set_synchronous(configured);
            }
            return Next::Wait;
        }
        if leader.as_deref() != Some(self.name()) || !standbys.is_empty() {
            let name = Some(self.name().to_owned());
            let cleared = SynchronousState { leader: name, standbys: Vec::new() };
            if self.write(document, |content| content.synchronous = cleared).await == Ok(true) {
                self.event("no member is synchronous");
            }
            return Next::Again;
        }
        let Some(chosen) = chosen else {
            self.server.set_synchronous(self.without_synchronous());
            return Next::Wait;
        };
        self.server.set_synchronous(only(&chosen));
        if !self.has_caught_up(&chosen).await {
            return Next::Wait;
        }
        let event = format!("{chosen} is synchronous");
        let name = Some(self.name().to_owned());
        let added = SynchronousState { leader: name, standbys: vec![chosen] };
        if self.write(document, |content| content.synchronous = added).await == Ok(true) {
            self.event(event);
        }
        Next::Again
    }

    /// Returns the current synchronous standby if it is connected, else the most advanced connected standby.
    fn choose(&self, current: Option<&String>) -> Option<String> {
        let connected = self.server.status().standbys;
        let members = connected.iter().filter(|(name, _)| self.members.contains(name));
        let best = members.max_by_key(|(name, flushed)| (Some(name) == current, *flushed));
        best.map(|(name, _)| name.clone())
    }

    /// Waits for a short time until a standby has the log up to its present end. All commits after that wait for the
    /// standby.
    async fn has_caught_up(&self, standby: &str) -> bool {
        let end = self.server.status().position;
        for _ in 0..CHECKS {
            let standbys = self.server.status().standbys;
            if standbys.iter().any(|(name, flushed)| name == standby && *flushed >= end) {
                return true;
            }
            sleep(CHECK).await;
        }
        false
    }
}

fn only(name: &str) -> Synchronous {
    Synchronous { names: vec![name.to_owned()], required: 1 }
}
