//! The rolling update of a group: the standbys first, then a switchover, then the former primary.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Controller;
use crate::operator::pods::Pods;

/// The outcome of a rolling update.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rollout {
    /// All Pods were created again.
    Complete,
    /// A Pod did not become ready in time.
    TimedOut,
}

/// Time between two checks.
const CHECK: Duration = Duration::from_millis(500);

/// Creates all Pods of a group again, one after the other. Each step must succeed within `limit`.
pub async fn roll_out(controller: &Controller, pods: &dyn Pods, limit: Duration) -> Rollout {
    let Some(primary) = controller.primary(limit).await else {
        return Rollout::TimedOut;
    };
    let standbys: Vec<_> = controller.instances.iter().filter(|name| **name != primary).rev().collect();
    for standby in &standbys {
        pods.recreate(standby).await;
        if !controller.follows(standby, limit).await {
            return Rollout::TimedOut;
        }
    }
    if !standbys.is_empty() && !controller.switch_over(&primary, limit).await {
        return Rollout::TimedOut;
    }
    pods.recreate(&primary).await;
    let returned = match standbys.is_empty() {
        true => controller.primary(limit).await.is_some(),
        false => controller.follows(&primary, limit).await,
    };
    if returned { Rollout::Complete } else { Rollout::TimedOut }
}

impl Controller {
    /// Switches over from `primary` to the most advanced standby, and waits for its promotion.
    pub async fn switch_over(&self, primary: &str, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            let statuses = self.statuses().await;
            let standbys = statuses.iter().filter(|(name, status)| name != primary && status.receiving);
            let best = standbys.max_by_key(|(_, status)| (status.timeline, status.position));
            if let (Some((name, _)), Ok(document)) = (best, self.store.read(&self.host).await)
                && document.content.target_primary.as_deref() == Some(primary)
            {
                self.write(&document, |content| content.target_primary = Some(name.clone())).await;
            }
            if self.primary(CHECK).await.is_some_and(|current| current != primary) {
                return true;
            }
            sleep(CHECK).await;
        }
        false
    }

    /// Returns the primary that the store and the instances agree on. Waits for it up to `limit`.
    async fn primary(&self, limit: Duration) -> Option<String> {
        let began = Instant::now();
        loop {
            if let Ok(document) = self.store.read(&self.host).await {
                let current = document.content.current_primary;
                let settled = current.filter(|current| document.content.target_primary.as_ref() == Some(current));
                let statuses = self.statuses().await;
                let runs = |name: &String| statuses.iter().any(|(it, status)| it == name && status.is_primary());
                if let Some(primary) = settled.filter(runs) {
                    return Some(primary);
                }
            }
            if began.elapsed() >= limit {
                return None;
            }
            sleep(CHECK).await;
        }
    }

    /// Waits until an instance is a standby that receives the log.
    async fn follows(&self, name: &str, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            let statuses = self.statuses().await;
            if statuses.iter().any(|(it, status)| it == name && status.is_standby() && status.receiving) {
                return true;
            }
            sleep(CHECK).await;
        }
        false
    }
}
