//! Whom to believe: roles, timelines, and how far behind a standby is.

use std::sync::Arc;

use tokio::time::sleep;

use super::{Directory, member::Member};
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
        let Some(member) = self.find(serial) else { return };
        let before = member.role;
        if before == role {
            return;
        }
        member.role = role;
        self.reconsider = true;
        let Some(member) = self.find(serial) else { return };
        // Who says that it has become a primary must say of which timeline.
        let verified = member.found.is_some_and(|(facts, ..)| facts.role == role);
        if role == Role::Primary && !verified {
            member.role_unverified = true;
            member.pod.suspect.notify_one();
        }
        let endpoint = member.pod.endpoint.clone();
        self.changed = true;
        self.inner.shared.events.emit(Event::RoleChanged { endpoint, from: before, to: role });
        self.check_capacity(serial);
    }

    /// Judges everybody's claims, after one is new or gone.
    pub(super) fn judge_claims(&mut self) {
        let claims: Vec<_> = self.members.all().iter().map(Member::claim).collect();
        let fences = self.timelines.judge(&claims);
        let mut useless = Vec::new();
        for (member, fence) in self.members.all_mut().iter_mut().zip(fences) {
            if member.fence == fence {
                continue;
            }
            member.fence = fence;
            self.changed = true;
            let endpoint = member.pod.endpoint.clone();
            self.inner.shared.events.emit(match fence {
                Some(fence) => {
                    member.pod.purge();
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
        let Some(member) = self.find(serial) else { return };
        let (reading, standby) = (member.reading(), member.standby());
        if member.is_primary() {
            self.primary_read(serial, reading);
        }
        let serves = |member: &Member| Some(member.pod.serial) == self.primary && member.is_primary();
        if !self.members.all().iter().any(serves) {
            self.readings.clear();
        }
        let Some(standby) = standby else { return };
        let standbys = self.members.all().iter().filter_map(Member::standby);
        let advanced = standbys.map(|standby| standby.reading.position).max();
        let limits = &self.inner.shared.limits;
        let limit = Limit { bytes: limits.max_lag_bytes, time: limits.max_lag };
        let readings = std::mem::take(&mut self.readings);
        // Nobody knows how far the primary has come since.
        let outdated = readings.last().is_none_or(|reading| reading.at + lag::GRACE < standby.reading.asked);
        if let (true, true, Some(primary)) = (limit.is_set(), outdated, self.primary) {
            self.probe_now(primary);
        }
        if let Some(member) = self.find(serial) {
            let lag = lag::judge(limit, &standby, &readings, advanced, member.lag);
            let changed = member.lag != lag;
            let late = lag.late && !member.lag.late;
            member.lag = lag;
            let endpoint = member.pod.endpoint.clone();
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
        let limits = &self.inner.shared.limits;
        let limit = Limit { bytes: limits.max_lag_bytes, time: limits.max_lag };
        let suspects = |member: &&Member| {
            let (Some(standby), Some(reading)) = (member.standby(), reading) else { return false };
            limit.may_be_passed(&standby, &reading)
        };
        for member in self.members.all().iter().filter(suspects) {
            look_again(&member.pod);
        }
    }
}

/// Has a standby asked once more, as soon as what it lacks is old enough to be held against it.
fn look_again(pod: &Arc<Pod>) {
    let later = Arc::downgrade(pod);
    drop(pod.shared().runtime.spawn(async move {
        sleep(lag::GRACE).await;
        if let Some(pod) = later.upgrade() {
            pod.suspect.notify_one();
        }
    }));
}
