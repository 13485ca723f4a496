//! The roles of the Pods: role changes, fencing of stale primaries, and the replication lag of standbys.

use std::sync::Arc;

use tokio::time::sleep;

use super::{Directory, freshness, member::Member};
use crate::{
    endpoint::Role,
    event::Event,
    health::{
        fencing::{Forgotten, Verdict},
        lag::{self, Limit, Reading},
    },
    pool::pod::Pod,
    system::spawn_on,
    time::{Duration, Instant},
};

/// Number of kept WAL positions of the primary. A standby's lag is measured against a position that the primary had
/// earlier.
pub(super) const READINGS: usize = 24;
/// Lower bound for the time between two kept positions, so that [`READINGS`] of them cover the grace period even if the
/// primary is probed often.
const SPACING: Duration = Duration::from_millis(250);
const _: () = assert!(SPACING.as_millis() * (READINGS as u128 - 2) > lag::GRACE.as_millis());
/// Maximum number of kept positions within `max_lag`, so that [`READINGS`] of them cover it.
const WITHIN_LIMIT: u32 = 16;
const _: () = assert!(WITHIN_LIMIT as usize + 2 < READINGS);

impl Directory {
    /// Records a role that a probe has read or that the server has reported on a connection.
    pub(super) fn on_role(&mut self, serial: u64, role: Role) {
        let Some(member) = self.find(serial) else { return };
        let before = member.role;
        if before == role {
            return;
        }
        member.role = role;
        self.reconsider = true;
        let Some(member) = self.find(serial) else { return };
        // A new primary is used only after a probe has read its timeline, because it may be a stale one.
        let verified = member.last_probe.is_some_and(|probe| probe.facts.role == role);
        if role == Role::Primary && !verified {
            member.role_unverified = true;
            member.pod.server.probe_wanted.notify_one();
        }
        let timeline = member.last_probe.filter(|_| verified).and_then(|probe| probe.facts.timeline);
        let endpoint = member.pod.endpoint.clone();
        self.changed = true;
        self.group.events.emit(Event::RoleChanged { endpoint, from: before, to: role, timeline });
        self.check_capacity(serial);
    }

    /// Fences and unfences members according to the roles and timelines that all members claim.
    pub(super) fn judge_claims(&mut self, now: Instant) {
        let claims: Vec<_> = self.members.all().iter().map(Member::claim).collect();
        let known = self.subset.as_ref().map_or(claims.len(), |subset| subset.endpoints().count());
        let named = known - claims.iter().filter(|claim| !claim.named).count().min(known);
        let (verdicts, forgotten) = self.timelines.judge(&claims, named, now);
        self.emit_forgotten(forgotten);
        let mut fenced = Vec::new();
        let newest = self.timelines.newest();
        let new_timeline = std::mem::replace(&mut self.newest_timeline, newest) < newest;
        if new_timeline {
            self.retry_full();
        }
        let events = &self.group.events;
        for (member, Verdict { fence, confirmed, follows_former }) in self.members.all_mut().iter_mut().zip(verdicts) {
            let endpoint = member.pod.endpoint.clone();
            member.follows_former = follows_former;
            if new_timeline && member.role == Role::Standby {
                // Determines whether the standby follows the new primary.
                member.pod.server.probe_wanted.notify_one();
            }
            let before = std::mem::replace(&mut member.fence, fence);
            self.changed |= member.fence_confirmed != confirmed;
            member.fence_confirmed = confirmed;
            if before != fence {
                self.changed = true;
                self.reconsider = true;
                if fence.is_some() {
                    member.purge();
                    // A former primary that has stopped responding will not complete its statements: at best, it
                    // commits writes that its successor lacks.
                    member.abort_unresponsive();
                    // An outdated claim must not be reported, so the Pod is queried again now.
                    member.pod.server.probe_wanted.notify_one();
                    fenced.push(endpoint.clone());
                }
            }
            match fence {
                Some(fence) if confirmed && (before != Some(fence) || !member.fence_reported) => {
                    member.fence_reported = true;
                    events.emit(Event::EndpointFenced { endpoint, cause: fence.to_string().into() });
                }
                None if std::mem::take(&mut member.fence_reported) => events.emit(Event::EndpointUnfenced { endpoint }),
                _ => {}
            }
        }
        for endpoint in fenced {
            self.pass_over(&endpoint, false, now);
        }
        self.report_lateness(now);
    }

    /// Forgets the timelines and the system identifier that the pool has seen, at the application's request.
    pub(super) fn forget_history(&mut self, now: Instant) {
        let claims: Vec<_> = self.members.all().iter().map(Member::claim).collect();
        let forgotten = self.timelines.forget(&claims);
        self.emit_forgotten(Some(forgotten));
        self.judge_claims(now);
    }

    fn emit_forgotten(&self, forgotten: Option<Forgotten>) {
        if let Some(forgotten) = forgotten {
            let (timeline, cause) = (forgotten.timeline(), forgotten.to_string().into());
            self.group.events.emit(Event::FencingHistoryForgotten { timeline, cause });
        }
    }

    /// Re-evaluates fencing and the Pod's replication lag after the Pod has passed a probe.
    pub(super) fn judge(&mut self, serial: u64) {
        self.judge_claims(Instant::now());
        let Some(member) = self.find(serial) else { return };
        let (reading, standby) = (member.reading(), member.standby());
        if member.is_primary() {
            self.add_reading(serial, reading);
        }
        let serves = |member: &Member| Some(member.pod.serial) == self.primary && member.is_primary();
        if !self.members.all().iter().any(serves) {
            self.readings.clear();
        }
        let Some(standby) = standby else { return };
        let standbys = self.members.all().iter().filter_map(Member::standby);
        let advanced = standbys.map(|standby| standby.reading.position).max();
        let limits = &self.group.limits;
        let limit = Limit { bytes: limits.max_lag_bytes, time: limits.max_lag };
        let probe_interval = limits.probe_interval;
        let resumed = self.suspensions.resumed();
        let readings = std::mem::take(&mut self.readings);
        // Lag cannot be measured against a stale position of the primary, so the primary is probed now.
        let outdated = readings.last().is_none_or(|reading| reading.received + lag::GRACE < standby.reading.sent);
        if let (true, true, Some(primary)) = (limit.is_set(), outdated, self.primary) {
            self.probe_now(primary);
        }
        if let Some(member) = self.find(serial) {
            member.lag = lag::judge(limit, &standby, &readings, advanced, member.lag);
            member.pod.server.lag.set(&member.lag);
            freshness::set(member.pods(), &standby, &readings, resumed);
            // The lag is an estimate between two positions of the primary, so a standby that has stopped may seem to be
            // within the limit until the next periodic probe after that.
            if let Some(exceeds_in) = member.lag.exceeds_in.filter(|time| *time < probe_interval) {
                probe_after(&member.pod, exceeds_in.max(lag::GRACE));
            }
        }
        self.readings = readings;
        self.report_lateness(Instant::now());
    }

    /// Publishes and reports which standbys are late. The amount of lag alone causes no publication, because it does
    /// not affect which Pods are candidates.
    fn report_lateness(&mut self, now: Instant) {
        let mut late = Vec::new();
        for member in self.members.all_mut() {
            let is_late = member.is_late();
            if std::mem::replace(&mut member.late_reported, is_late) == is_late {
                continue;
            }
            self.changed = true;
            let endpoint = member.pod.endpoint.clone();
            let events = &self.group.events;
            if is_late {
                late.push(endpoint.clone());
                events.emit(Event::StandbyLate { endpoint, cause: member.cause_of_lateness().into() });
            } else if member.role == Role::Standby {
                events.emit(Event::StandbyCaughtUp { endpoint });
            }
        }
        for endpoint in late {
            self.pass_over(&endpoint, false, now);
        }
    }

    /// Adds a WAL position of the primary, and schedules probes of the standbys that may lag too far behind it.
    fn add_reading(&mut self, serial: u64, reading: Option<Reading>) {
        if self.primary != Some(serial) {
            self.primary = Some(serial);
            self.readings.clear();
        }
        let limits = &self.group.limits;
        let limit = Limit { bytes: limits.max_lag_bytes, time: limits.max_lag };
        let spacing = limit.time.map_or(SPACING, |limit| SPACING.max(limit / WITHIN_LIMIT));
        if let [.., before, last] = self.readings[..]
            && last.received < before.received + spacing
        {
            self.readings.pop();
        }
        if self.readings.len() == READINGS {
            self.readings.remove(0);
        }
        self.readings.extend(reading);
        let suspects = |member: &&Member| member.standby().is_some_and(|it| limit.may_be_exceeded(&it, &self.readings));
        for member in self.members.all().iter().filter(suspects) {
            // WAL that the standby has not replayed by then counts as lag.
            probe_after(&member.pod, lag::GRACE);
        }
    }
}

/// Probes a Pod after `delay`.
fn probe_after(pod: &Arc<Pod>, delay: Duration) {
    let weak = Arc::downgrade(&pod.server);
    drop(spawn_on(&pod.shared().runtime, async move {
        sleep(delay).await;
        if let Some(server) = weak.upgrade() {
            server.probe_wanted.notify_one();
        }
    }));
}
