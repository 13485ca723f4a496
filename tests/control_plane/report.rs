//! Compares the requests of a scenario with the recorded roles of the servers and addresses in DNS.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    load::{Kind, Outcome, Record},
    observed::{Observed, Outage, Role},
    timeline::Timeline,
};

/// Time after DNS names a Pod until requests must succeed again.
pub(crate) const GRACE: Duration = Duration::from_millis(1500);
/// Tolerance for the times of the observers, which query every 20 ms and share the processors with the Pods.
const TOLERANCE: Duration = Duration::from_millis(100);
/// Maximum time for which a runnable task of the test may wait for a processor. Beyond it, nothing is measured.
const BUSY: Duration = Duration::from_millis(250);
/// Maximum time without a write while a primary serves.
const UNDISTURBED: Duration = Duration::from_millis(500);

/// The requests and the facts of one scenario.
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) begun: Instant,
    pub(crate) records: Vec<Record>,
    pub(crate) observed: Observed,
    pub(crate) timeline: Timeline,
    /// The ids of the rows in the database at the end.
    pub(crate) rows: BTreeSet<String>,
    /// Acknowledged writes that the servers lost themselves: those of the last moment before this time, at which a
    /// primary was lost whose standbys replicate asynchronously.
    pub(crate) primary_lost: Option<Instant>,
}

impl Report {
    /// Prints the figures, and panics if a bound does not hold.
    pub(crate) fn check(&self) {
        let mut breaches = self.failures_outside_outages();
        let (gap, from) = self.longest_gap();
        let writes = self.outages(Kind::Write);
        let allowed = writes.iter().map(|outage| outage.allowed.1 - outage.allowed.0).max().unwrap_or(UNDISTURBED);
        if gap > allowed.max(UNDISTURBED) + TOLERANCE {
            let at = self.timeline.seconds(from);
            breaches.push(format!("no write for {gap:.2?} from {at:.3} s, expected at most {allowed:.2?}"));
        }
        breaches.extend(self.wrong_rows());
        breaches.extend(self.wrong_roles());
        self.print(gap, &writes);
        if !breaches.is_empty() || std::env::var_os("PODPOOL_TIMELINE").is_some() {
            self.timeline.print();
        }
        let busy =
            if self.observed.delay() > BUSY { "; this machine was too busy for a measurement, try again" } else { "" };
        assert!(breaches.is_empty(), "{}{busy}: {}", self.name, breaches.join("\n"));
    }

    fn print(&self, gap: Duration, writes: &[Outage]) {
        let failed = self.records.iter().filter(|record| !record.is_served()).count();
        let of = |kind| self.records.iter().filter(|record| record.kind == kind && !record.is_served()).count();
        println!(
            "{}: {failed} of {} requests failed ({} writes, {} any, {} standby), longest time without a write {:.2} s; \
             this machine let the test wait for up to {:.2} s for a processor",
            self.name,
            self.records.len(),
            of(Kind::Write),
            of(Kind::Any),
            of(Kind::Standby),
            gap.as_secs_f64(),
            self.observed.delay().as_secs_f64(),
        );
        // The texts contain times and numbers of connections, so one text of each kind of error is printed.
        let mut errors = BTreeMap::<_, (usize, &str)>::new();
        for record in &self.records {
            let (Outcome::Failed { text, .. } | Outcome::Broken(text)) = &record.outcome else { continue };
            let error = text.split(':').next().unwrap_or_default();
            errors.entry((record.kind, error)).or_insert((0, text)).0 += 1;
        }
        for ((kind, _), (count, first)) in errors {
            println!("  {count} × {kind:?}, the first: {first}");
        }
        for outage in writes {
            let since = |at: Option<Instant>| {
                at.map_or("never".to_owned(), |at| format!("after {:.2} s", (at - outage.down).as_secs_f64()))
            };
            let first = self.served(Kind::Write).find(|record| outage.published.is_some_and(|at| record.done >= at));
            println!(
                "  at {:.2} s, the last primary stops; one accepts writes {}, DNS names it {}, the next write ends {}",
                self.timeline.seconds(outage.down),
                since(outage.up),
                since(outage.published),
                since(first.map(|record| record.done)),
            );
        }
    }

    /// Returns the periods in which requests of this kind may fail.
    fn outages(&self, kind: Kind) -> Vec<Outage> {
        match kind {
            Kind::Write => self.observed.outages(self.begun, GRACE, |role| role == Role::Primary),
            Kind::Any => self.observed.unpublished(self.begun, GRACE, |role| role != Role::Down),
            Kind::Standby => self.observed.unpublished(self.begun, GRACE, |role| role == Role::Standby),
        }
    }

    /// Returns a line for each kind of request that failed at a time at which it must not.
    fn failures_outside_outages(&self) -> Vec<String> {
        let mut breaches = Vec::new();
        for kind in [Kind::Write, Kind::Any, Kind::Standby] {
            let outages = self.outages(kind);
            let allowed = |at: Instant| {
                outages.iter().any(|outage| (outage.allowed.0..=outage.allowed.1 + TOLERANCE).contains(&at))
            };
            let failed = self.records.iter().filter(|record| record.kind == kind && !record.is_served());
            let outside: Vec<_> = failed.filter(|record| !allowed(record.done)).collect();
            if let (Some(first), Some(last)) = (outside.first(), outside.last()) {
                breaches.push(format!(
                    "{} requests ({kind:?}) failed although a Pod could serve them, from {:.3} s to {:.3} s: \
                     {first:?}",
                    outside.len(),
                    self.timeline.seconds(first.done),
                    self.timeline.seconds(last.done),
                ));
            }
        }
        breaches
    }

    fn served(&self, kind: Kind) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.kind == kind && record.is_served())
    }

    /// Returns the longest time between two acknowledged writes, and its beginning.
    fn longest_gap(&self) -> (Duration, Instant) {
        let times: Vec<_> = self.served(Kind::Write).map(|record| record.done).collect();
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
        gaps.max().unwrap_or_else(|| panic!("{}: no writes", self.name))
    }

    /// Returns the time from the publication of the first Pod with a role to the end of the first request for it.
    pub(crate) fn first_after_publication(&self, kind: Kind, role: impl Fn(Role) -> bool) -> Duration {
        let published = self.observed.first(self.begun, |view| view.publishes(&role)).expect("the role is published");
        let first = self.served(kind).next().expect("a request succeeds").done;
        first.saturating_duration_since(published)
    }

    /// Compares the rows in the database with the acknowledged writes.
    fn wrong_rows(&self) -> Vec<String> {
        let written = |wanted: fn(&Outcome) -> bool| -> BTreeSet<String> {
            let writes = self.records.iter().filter(|record| record.kind == Kind::Write && wanted(&record.outcome));
            writes.map(|record| record.id.clone()).collect()
        };
        let acknowledged = written(|outcome| matches!(outcome, Outcome::Served { .. }));
        let unknown = written(|outcome| matches!(outcome, Outcome::Failed { unknown: true, .. } | Outcome::Broken(_)));
        let lost: Vec<_> = acknowledged.difference(&self.rows).collect();
        let unexpected: Vec<_> =
            self.rows.iter().filter(|id| !acknowledged.contains(*id) && !unknown.contains(*id)).collect();
        let present = self.rows.len() - acknowledged.intersection(&self.rows).count();
        println!(
            "  rows: {} of {} acknowledged writes, {present} of {} with an unknown outcome; {} lost",
            acknowledged.len() - lost.len(),
            acknowledged.len(),
            unknown.len(),
            lost.len(),
        );
        // The servers themselves lose what had not yet been replicated when the primary was lost.
        let by_server = |id: &String| {
            let record = self.records.iter().find(|record| record.kind == Kind::Write && record.id == *id);
            record.zip(self.primary_lost).is_some_and(|(record, at)| record.done <= at && at - record.done < TOLERANCE)
        };
        let mut breaches = Vec::new();
        if lost.iter().any(|id| !by_server(id)) {
            breaches.push(format!("acknowledged writes were lost: {lost:?}"));
        }
        if !unexpected.is_empty() {
            breaches.push(format!("writes were applied although the response excluded it: {unexpected:?}"));
        }
        breaches
    }

    /// Returns a line if a primary served reads of a standby. A standby cannot execute writes.
    fn wrong_roles(&self) -> Option<String> {
        let wrong = |record: &&Record| {
            record.kind == Kind::Standby && matches!(record.outcome, Outcome::Served { in_recovery: Some(false), .. })
        };
        let wrong = self.records.iter().filter(wrong).count();
        (wrong > 0).then(|| format!("{wrong} reads of a standby were served by a primary"))
    }

    /// Returns the number of requests that each Pod served.
    pub(crate) fn served_by_pod(&self) -> BTreeMap<&str, usize> {
        let mut served = BTreeMap::new();
        for record in &self.records {
            if let Outcome::Served { pod, .. } = &record.outcome {
                *served.entry(&**pod).or_default() += 1;
            }
        }
        served
    }
}
