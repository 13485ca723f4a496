//! Whom to believe: roles, lineage, and how far behind a standby is.

use std::sync::Arc;

use tokio::time::sleep;

use super::{Directory, member::Entry};
use crate::{
    endpoint::Role,
    event::Event,
    health::lag::{self, Limit, Reading},
    pool::pod::Pod,
    time::{Duration, Instant},
};

/// Positions of the primary that are kept: what a standby lacks is compared with one from a while before.
pub(super) const READINGS: usize = 8;
/// The least time between two of them, so that they reach far enough back while the primary is probed often.
const SPACING: Duration = Duration::from_millis(250);
const _: () = assert!(SPACING.as_millis() * (READINGS as u128 - 2) > lag::GRACE.as_millis());

impl Directory {
    pub(super) fn role(&mut self, serial: u64, role: Role) {
        let Some(entry) = self.find(serial) else { return };
        let before = entry.role;
        if before == role {
            return;
        }
        entry.role = role;
        self.reconsider = true;
        let Some(entry) = self.find(serial) else { return };
        // Who says that it has become a primary must say of which timeline.
        let verified = entry.found.is_some_and(|(facts, ..)| facts.role == role);
        if role == Role::Primary && !verified {
            entry.doubted = true;
            entry.pod.suspect.notify_one();
        }
        let endpoint = entry.pod.endpoint.clone();
        self.changed = true;
        self.inner.common.events.emit(Event::RoleChanged { endpoint, from: before, to: role });
        self.reckon(serial);
    }

    /// Judges everybody's claims, after one is new or gone.
    pub(super) fn judge_claims(&mut self) {
        let claims: Vec<_> = self.roster.members().iter().map(Entry::claim).collect();
        let fences = self.lineage.judge(&claims);
        let mut useless = Vec::new();
        for (entry, fence) in self.roster.members_mut().iter_mut().zip(fences) {
            if entry.fence == fence {
                continue;
            }
            entry.fence = fence;
            self.changed = true;
            let endpoint = entry.pod.endpoint.clone();
            self.inner.common.events.emit(match fence {
                Some(fence) => {
                    entry.pod.purge();
                    useless.push(endpoint.clone());
                    Event::EndpointFenced { endpoint, cause: fence.to_string().into() }
                }
                None => Event::EndpointUnfenced { endpoint },
            });
        }
        for endpoint in useless {
            self.failed(&endpoint, false, Instant::now());
        }
    }

    /// Judges everybody's claims, and how far behind this Pod is, after it has said something new.
    pub(super) fn judge(&mut self, serial: u64) {
        self.judge_claims();
        let Some(entry) = self.find(serial) else { return };
        let (reading, standby) = (entry.reading(), entry.standby());
        if entry.is_primary() {
            self.primary_read(serial, reading);
        }
        let serves = |entry: &Entry| Some(entry.pod.serial) == self.primary && entry.is_primary();
        if !self.roster.members().iter().any(serves) {
            self.readings.clear();
        }
        let Some(standby) = standby else { return };
        let standbys = self.roster.members().iter().filter_map(Entry::standby);
        let advanced = standbys.map(|standby| standby.reading.position).max();
        let limits = &self.inner.common.limits;
        let limit = Limit { bytes: limits.max_lag_bytes, time: limits.max_lag };
        let readings = std::mem::take(&mut self.readings);
        // Nobody knows how far the primary has come since.
        let outdated = readings.last().is_none_or(|reading| reading.at + lag::GRACE < standby.reading.asked);
        if let (true, true, Some(primary)) = (limit.is_set(), outdated, self.primary) {
            self.hurry(primary);
        }
        if let Some(entry) = self.find(serial) {
            let lag = lag::judge(limit, &standby, &readings, advanced, entry.lag);
            let changed = entry.lag != lag;
            let late = lag.late && !entry.lag.late;
            entry.lag = lag;
            let endpoint = entry.pod.endpoint.clone();
            self.changed |= changed;
            if late {
                self.failed(&endpoint, false, Instant::now());
            }
        }
        self.readings = readings;
    }

    /// The primary has written this far.
    fn primary_read(&mut self, serial: u64, reading: Option<Reading>) {
        if self.primary != Some(serial) {
            self.primary = Some(serial);
            self.readings.clear();
        }
        if let [.., before, last] = self.readings[..]
            && last.at < before.at + SPACING
        {
            self.readings.pop();
        }
        if self.readings.len() == READINGS {
            self.readings.remove(0);
        }
        self.readings.extend(reading);
        let limits = &self.inner.common.limits;
        let limit = Limit { bytes: limits.max_lag_bytes, time: limits.max_lag };
        let suspects = |entry: &&Entry| {
            let (Some(standby), Some(reading)) = (entry.standby(), reading) else { return false };
            limit.may_be_passed(&standby, &reading)
        };
        for entry in self.roster.members().iter().filter(suspects) {
            look_again(&entry.pod);
        }
    }
}

/// Has a standby asked once more, as soon as what it lacks is old enough to be held against it.
fn look_again(pod: &Arc<Pod>) {
    let later = Arc::downgrade(pod);
    drop(pod.common().runtime.spawn(async move {
        sleep(lag::GRACE).await;
        if let Some(pod) = later.upgrade() {
            pod.suspect.notify_one();
        }
    }));
}
