//! Fences Pods that must not be used: Pods of another cluster, former primaries, and second primaries.
//!
//! * The system identifier, which `initdb` assigns, identifies a database cluster. The pool adopts the first identifier
//!   that a passing Pod reports, and fences Pods that report a different one. The pool adopts a different identifier
//!   only when no named Pod reports the adopted one any more, for example after the cluster has been recreated. A named
//!   Pod that fails its probes keeps the adopted identifier for [`LOST_AFTER`], and for longer unless most named Pods
//!   pass their probes with one other identifier. While no named Pod passes its probes, for example because the
//!   name resolves to no Pods, the pool adopts the identifier of an absent Pod, but only when no known Pod reports the
//!   adopted identifier any more.
//! * A promotion starts a timeline with a higher number (PostgreSQL manual, "Timelines"). The pool remembers the
//!   highest timeline of each cluster that a primary or a standby has reported, for at most [`CLUSTERS`] clusters. A
//!   primary on a lower timeline is a former primary that has not detected the promotion of its successor. A former
//!   primary is fenced for every target, even if it is the only Pod: writes to it would be lost, and reads from it
//!   would be stale.
//! * If two primaries are on the same timeline, the pool keeps the one that it already uses and fences the other. Two
//!   addresses that report the same start time lead to the same server, and neither is fenced.
//!
//! After a restore of an older backup, the highest timeline no longer exists. The pool forgets it if all of these
//! conditions hold; see [`History::is_disproved`]:
//!
//! * A named Pod passes its probes as a primary on a lower timeline.
//! * DNS names at least as many Pods as when the highest timeline was first and last reported. While the Pod with the
//!   highest timeline is missing from DNS, this condition does not hold.
//! * All named Pods belong to the cluster, pass their probes, and have no write-ahead log of the highest timeline.
//! * No Pod that is absent from DNS, but still known, has reported the highest timeline.
//!
//! Fencing cannot undo writes that a former primary accepted before the pool detected the promotion.

use std::{collections::BTreeMap, fmt};

use crate::{
    endpoint::Role,
    time::{Duration, Instant},
};

/// The identity that one Pod reported: its role, cluster and timeline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Claim {
    /// The Pod's serial number.
    pub(crate) pod: u64,
    pub(crate) role: Role,
    /// The cluster's system identifier, if the Pod reported one.
    pub(crate) system: Option<u64>,
    /// The start time of the server, if the Pod reported one.
    pub(crate) started: Option<u64>,
    /// The highest timeline of which the server is known to have write-ahead log. `None` if it reported no timeline.
    pub(crate) timeline: Option<u32>,
    pub(crate) extent: Extent,
    /// The last write-ahead log position that a primary has written, or that a standby has replayed.
    pub(crate) position: Option<u64>,
    /// Time at which the query for this identity was sent.
    pub(crate) queried: Option<Instant>,
    /// True if the Pod passes its probes.
    pub(crate) passing: bool,
    /// True if DNS names the Pod. False if the Pod is absent from DNS, but still known.
    pub(crate) named: bool,
}

/// The part of a server's write-ahead log for which the reported timeline is known to be the highest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// All of it: the server is a primary, or a standby that has reported the timeline it receives.
    Complete,
    /// The log up to this position. Of log after this position, the server may have a higher timeline.
    UpTo(u64),
}

/// The reason why a Pod is fenced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fence {
    /// The Pod belongs to another cluster.
    OtherSystem { expected: u64, got: u64 },
    /// The Pod is a primary on a timeline from before the last promotion.
    OldTimeline { newest: u32, got: u32 },
    /// The Pod is a primary, but the pool already uses another primary on the same timeline.
    SecondPrimary,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherSystem { expected, got } => {
                write!(f, "the server belongs to another cluster: expected system identifier {expected}, got {got}")
            }
            Self::OldTimeline { newest, got } => {
                write!(f, "the server is a former primary: it is on timeline {got}, but timeline {newest} has begun")
            }
            Self::SecondPrimary => f.write_str("another Pod is the primary on the same timeline"),
        }
    }
}

/// The decision about one claim.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Verdict {
    /// The reason why the Pod must be fenced. `None` if the Pod may be used.
    pub(crate) fence: Option<Fence>,
    /// True if the Pod passes its probes, and has made the claim since the contradicting fact became known. A fence
    /// that is not confirmed may be caused by an outdated claim, such as that of a primary that has just failed.
    pub(crate) confirmed: bool,
    /// True for a standby that follows a former primary, so that it does not get the writes of the current one.
    pub(crate) follows_former: bool,
}

/// A part of the history that the pool has forgotten.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Forgotten {
    /// The highest timeline: no Pod has it any more.
    Timeline(u32),
    /// The system identifier: the Pods behind the name have another one. `timeline` was the highest of its timelines.
    System { system: u64, timeline: Option<u32> },
    /// Everything, because the application requested it. `timeline` was the highest timeline of the pool's cluster.
    Requested { timeline: Option<u32> },
}

impl Forgotten {
    /// Returns the highest timeline that was forgotten, if one was known.
    pub(crate) fn timeline(self) -> Option<u32> {
        match self {
            Self::Timeline(timeline) => Some(timeline),
            Self::System { timeline, .. } | Self::Requested { timeline } => timeline,
        }
    }
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeline(timeline) => {
                write!(f, "every Pod passes its probes, and none has write-ahead log of timeline {timeline}")
            }
            Self::System { system, .. } => {
                write!(f, "no Pod that passes its probes belongs to the cluster with system identifier {system}")
            }
            Self::Requested { .. } => f.write_str("the application requested it"),
        }
    }
}

/// Maximum number of clusters whose timelines are remembered. The limit bounds the memory use if a faulty server
/// reports a new system identifier with every probe.
const CLUSTERS: usize = 64;
/// Time for which all named Pods of the pool's cluster must fail their probes before the pool adopts the cluster to
/// which most named Pods belong.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// The highest timeline of one cluster, and the circumstances under which it was reported.
#[derive(Clone, Copy, Debug)]
struct History {
    newest: u32,
    /// Time at which the timeline became known.
    since: Instant,
    /// Number of Pods that DNS named when the timeline was first reported.
    named_first: usize,
    /// Number of Pods that DNS named when a named Pod last reported the timeline.
    named_last: usize,
    /// Time of the last query in which a Pod reported the timeline.
    reported: Option<Instant>,
    /// The lowest position that a primary on the timeline has reported. The timeline began before this position.
    position: Option<u64>,
}

impl History {
    /// Returns true if the claims disprove that the newest timeline still exists; see the module's documentation.
    /// `named` is the number of Pods that DNS names.
    fn is_disproved(&self, system: u64, claims: &[Claim], named: usize) -> bool {
        let (here, absent): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.named);
        let belongs = |claim: &Claim| claim.system == Some(system);
        let is_former = |claim: &Claim| claim.role == Role::Primary && belongs(claim) && claim.passing;
        // A claim from before the timeline's last report is outdated: the server may have received it since.
        let is_fresh = |claim: &Claim| claim.queried > self.reported;
        let lacks = |claim: &Claim| {
            belongs(claim) && claim.timeline.is_some_and(|it| it < self.newest) && self.covers(claim.extent)
        };
        here.iter().copied().any(is_former)
            && here.len() == named
            && named >= self.named_first.max(self.named_last)
            && here.iter().all(|claim| claim.passing && is_fresh(claim) && lacks(claim))
            && !absent.iter().any(|claim| belongs(claim) && claim.timeline >= Some(self.newest))
    }

    /// Returns true if the extent includes the beginning of the timeline.
    fn covers(&self, extent: Extent) -> bool {
        match extent {
            Extent::Complete => true,
            Extent::UpTo(end) => self.position.is_some_and(|position| end > position),
        }
    }
}

/// The highest timeline of each cluster so far, and the primary that the pool uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timelines {
    /// The system identifier of the pool's cluster.
    system: Option<u64>,
    /// Time since which no named Pod of the pool's cluster passes its probes.
    lost_since: Option<Instant>,
    /// The highest timeline seen in each cluster, by system identifier. An entry is evicted only if the map is full and
    /// the pool's own cluster needs its place.
    histories: BTreeMap<u64, History>,
    /// The serial number of the primary in use.
    primary: Option<u64>,
}

impl Timelines {
    /// Returns the highest timeline of the pool's cluster, if one is known.
    pub(crate) fn newest(&self) -> Option<u32> {
        Some(self.histories.get(&self.system?)?.newest)
    }

    /// Records the timelines in `claims`. Returns the decision about each claim, and the part of the history that has
    /// been forgotten. `named` is the number of Pods that DNS names, with or without a claim.
    pub(crate) fn judge(&mut self, claims: &[Claim], named: usize, now: Instant) -> (Vec<Verdict>, Option<Forgotten>) {
        let mut forgotten = self.adopt_system(claims, named, now);
        let Some(system) = self.system else { return (vec![Verdict::default(); claims.len()], forgotten) };
        self.record(system, claims.iter().filter(|claim| claim.passing), named, now);
        if let Some(history) = self.histories.get(&system).copied()
            && history.is_disproved(system, claims, named)
        {
            forgotten = Some(Forgotten::Timeline(history.newest));
            self.histories.remove(&system);
            // A Pod that fails its probes may still have write-ahead log of the timeline that it reported.
            self.record(system, claims.iter(), named, now);
        }
        (self.verdicts(system, claims), forgotten)
    }

    /// Forgets all timelines, and the system identifier unless a passing Pod reports it.
    pub(crate) fn forget(&mut self, claims: &[Claim]) -> Forgotten {
        let timeline = self.newest();
        self.histories.clear();
        if !claims.iter().any(|claim| claim.passing && claim.named && claim.system == self.system) {
            (self.system, self.primary, self.lost_since) = (None, None, None);
        }
        Forgotten::Requested { timeline }
    }

    /// Adopts the system identifier of the first passing Pod if none is adopted yet, or replaces the adopted one if it
    /// is no longer in use. Returns the replaced one.
    fn adopt_system(&mut self, claims: &[Claim], named: usize, now: Instant) -> Option<Forgotten> {
        let here = || claims.iter().filter(|claim| claim.named);
        let passing = || here().filter(|claim| claim.passing).filter_map(|claim| claim.system);
        let in_use = self.system.is_some_and(|system| claims.iter().any(|claim| claim.system == Some(system)));
        // An absent Pod counts only if no named Pod passes its probes, and no Pod reports the adopted identifier.
        let absent = || claims.iter().filter(|claim| claim.passing && !in_use).find_map(|claim| claim.system);
        let first = passing().next().or_else(absent)?;
        let Some(system) = self.system else {
            self.system = Some(first);
            return None;
        };
        if passing().any(|other| other == system) {
            self.lost_since = None;
            return None;
        }
        let since = *self.lost_since.get_or_insert(now);
        if here().any(|claim| claim.system == Some(system)) {
            let agreeing = passing().filter(|other| *other == first).count();
            let unanimous = passing().all(|other| other == first);
            if !unanimous || agreeing * 2 <= named || now < since + LOST_AFTER {
                return None;
            }
        }
        let timeline = self.newest();
        (self.system, self.primary, self.lost_since) = (Some(first), None, None);
        Some(Forgotten::System { system, timeline })
    }

    /// Records the timelines in `claims`.
    fn record<'a>(&mut self, system: u64, claims: impl Iterator<Item = &'a Claim>, named: usize, now: Instant) {
        for claim in claims {
            let cluster = claim.system.unwrap_or(system);
            let Some(timeline) = claim.timeline else { continue };
            if self.histories.len() >= CLUSTERS && !self.histories.contains_key(&cluster) {
                if cluster != system {
                    continue;
                }
                self.histories.pop_first();
            }
            let first = History {
                newest: timeline,
                since: now,
                named_first: named,
                named_last: named,
                reported: claim.queried,
                position: None,
            };
            let history = self.histories.entry(cluster).or_insert(first);
            if timeline > history.newest {
                *history = first;
            }
            if timeline == history.newest {
                history.reported = history.reported.max(claim.queried);
                if claim.named {
                    history.named_last = named;
                }
                if claim.role == Role::Primary {
                    history.position = history.position.into_iter().chain(claim.position).min();
                }
            }
        }
    }

    fn verdicts(&mut self, system: u64, claims: &[Claim]) -> Vec<Verdict> {
        let history = self.histories.get(&system);
        let (newest, since) = (history.map_or(0, |history| history.newest), history.map(|history| history.since));
        let belongs = |claim: &Claim| claim.system.is_none_or(|id| id == system);
        let primaries = || claims.iter().filter(|claim| claim.role == Role::Primary && belongs(claim));
        let at_newest = || primaries().filter(|claim| claim.timeline.is_none_or(|timeline| timeline == newest));
        let passing = || at_newest().filter(|claim| claim.passing);
        let in_use = passing().find(|claim| Some(claim.pod) == self.primary);
        let in_use = in_use.or_else(|| passing().next()).or_else(|| at_newest().next());
        let primary = in_use.map(|claim| claim.pod);
        let is_rival = |claim: &Claim| {
            let same_server = |used: &Claim| used.started.is_some() && used.started == claim.started;
            Some(claim.pod) != primary && !in_use.is_some_and(same_server)
        };
        let verdict = |claim: &Claim| {
            let fence = match (claim.system, claim.timeline) {
                (Some(got), _) if got != system => Some(Fence::OtherSystem { expected: system, got }),
                _ if claim.role != Role::Primary => None,
                (_, Some(got)) if got < newest => Some(Fence::OldTimeline { newest, got }),
                _ if is_rival(claim) => Some(Fence::SecondPrimary),
                _ => None,
            };
            let is_current = !matches!(fence, Some(Fence::OldTimeline { .. })) || claim.queried >= since;
            let confirmed = fence.is_some() && claim.passing && is_current;
            // Standbys of a primary that has failed are about to follow the new one, so only the standbys of a former
            // primary that still runs follow it.
            let runs = |former: &Claim| {
                belongs(former) && former.role == Role::Primary && former.passing && former.queried >= since
            };
            let follows_former = claim.role == Role::Standby
                && belongs(claim)
                && claim.extent == Extent::Complete
                && claim.queried >= since
                && claim.timeline.is_some_and(|timeline| timeline < newest)
                && claims.iter().any(|former| runs(former) && former.timeline == claim.timeline);
            Verdict { fence, confirmed, follows_former }
        };
        let verdicts = claims.iter().map(verdict).collect();
        self.primary = primary.or(self.primary);
        verdicts
    }
}

#[cfg(test)]
mod tests;
