//! The write-ahead log of one server: records on a history of timelines.

use std::sync::Arc;

use super::lsn::{Lsn, Timeline};

/// The content of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// A checkpoint, also of a shutdown.
    Checkpoint,
    /// The commit of a transaction that inserted these ids.
    Commit(Arc<[i64]>),
    /// The end of a recovery: the first record of a new timeline.
    Promotion,
}

/// One record of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The position after the record.
    pub end: Lsn,
    /// The timeline on which the record was written.
    pub timeline: Timeline,
    /// A number that no other record of the cluster has. Two servers that were promoted independently may use the same
    /// timeline and positions for different records.
    pub serial: u64,
    /// Wall-clock time of the server that wrote the record, in microseconds since 1970.
    pub stamp: i64,
    /// The content of the record.
    pub content: Content,
    /// The highest id in this record and the records before it, for queries that need no other id.
    highest: Option<i64>,
}

/// The end of a timeline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Switch {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// The position at which the next timeline began.
    pub at: Lsn,
}

/// The log of one server.
#[derive(Clone, Debug)]
pub struct Log {
    records: Vec<Record>,
    switches: Vec<Switch>,
    timeline: Timeline,
}

/// The end of the log of a server that was just initialized.
const BEGIN: Lsn = Lsn(0x300_0060);
/// Length of a record. Real lengths differ, but nothing depends on them.
const LENGTH: u64 = 0xB0;

impl Default for Log {
    fn default() -> Self {
        Self { records: Vec::new(), switches: Vec::new(), timeline: 1 }
    }
}

impl Log {
    /// Returns the position after the last record.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.records.last().map_or(BEGIN, |record| record.end)
    }

    /// Returns the highest timeline.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Returns the ends of the earlier timelines, oldest first.
    #[must_use]
    pub fn switches(&self) -> &[Switch] {
        &self.switches
    }

    /// Returns the timeline of the byte before a position.
    #[must_use]
    pub fn timeline_at(&self, position: Lsn) -> Timeline {
        self.switches.iter().find(|switch| position <= switch.at).map_or(self.timeline, |switch| switch.timeline)
    }

    /// Returns all records, oldest first.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Returns the records that end after a position.
    #[must_use]
    pub fn after(&self, position: Lsn) -> &[Record] {
        &self.records[self.index(position)..]
    }

    /// Returns the records that end at or before a position.
    #[must_use]
    pub fn until(&self, position: Lsn) -> &[Record] {
        &self.records[..self.index(position)]
    }

    fn index(&self, position: Lsn) -> usize {
        self.records.partition_point(|record| record.end <= position)
    }

    /// Appends a record of this server.
    pub(super) fn append(&mut self, content: Content, serial: u64, stamp: i64) -> Lsn {
        let end = Lsn(self.end().0 + LENGTH);
        let before = self.records.last().and_then(|record| record.highest);
        let own = if let Content::Commit(ids) = &content { ids.iter().copied().max() } else { None };
        let highest = before.max(own);
        self.records.push(Record { end, timeline: self.timeline, serial, stamp, content, highest });
        end
    }

    /// Begins a new timeline at the end of the log.
    pub(super) fn switch(&mut self) {
        self.switches.push(Switch { timeline: self.timeline, at: self.end() });
        self.timeline += 1;
    }

    /// Appends records that were received from another server, and adopts that server's timelines as far as the records
    /// reach.
    pub(super) fn extend(&mut self, records: &[Record], switches: &[Switch]) {
        self.records.extend_from_slice(records);
        if let Some(last) = records.last() {
            self.timeline = self.timeline.max(last.timeline);
            self.switches = switches.iter().filter(|switch| switch.timeline < self.timeline).copied().collect();
        }
    }

    /// Removes all records after a position.
    pub(super) fn truncate(&mut self, position: Lsn) {
        let kept = self.index(position);
        self.records.truncate(kept);
        self.timeline = self.records.last().map_or(1, |record| record.timeline);
        self.switches.retain(|switch| switch.timeline < self.timeline);
    }

    /// Returns the last position up to which two logs have the same records.
    #[must_use]
    pub fn fork(&self, other: &Self) -> Lsn {
        let same = |index: usize| self.records[index].serial == other.records[index].serial;
        let (mut low, mut high) = (0, self.records.len().min(other.records.len()));
        while low < high {
            let middle = low.midpoint(high);
            if same(middle) { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1).map_or(BEGIN, |last| self.records[last].end)
    }

    /// Returns the ids of all commits up to a position, in the order of the commits.
    pub fn ids(&self, position: Lsn) -> impl Iterator<Item = i64> + '_ {
        self.until(position).iter().flat_map(Record::ids).copied()
    }

    /// Returns the highest id of the records up to a position.
    pub(super) fn highest(&self, position: Lsn) -> Option<i64> {
        self.until(position).last().and_then(|record| record.highest)
    }
}

impl Record {
    /// Returns the ids that the record inserts.
    #[must_use]
    pub fn ids(&self) -> &[i64] {
        if let Content::Commit(ids) = &self.content { ids } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(log: &mut Log, id: i64) -> Lsn {
        log.append(Content::Commit([id].into()), id.unsigned_abs(), 0)
    }

    #[test]
    fn logs_fork_after_their_last_common_record() {
        let mut old = Log::default();
        assert_eq!(old.fork(&Log::default()), BEGIN);
        commit(&mut old, 1);
        let shared = commit(&mut old, 2);
        let mut new = old.clone();
        commit(&mut old, 3);
        new.switch();
        commit(&mut new, 4);
        commit(&mut new, 5);
        assert_eq!((old.fork(&new), new.fork(&old)), (shared, shared));
        assert_eq!((new.timeline_at(shared), new.timeline_at(new.end())), (1, 2));
        assert_eq!(new.ids(new.end()).collect::<Vec<_>>(), [1, 2, 4, 5]);
        old.truncate(shared);
        old.extend(new.after(shared), new.switches());
        assert_eq!((old.end(), old.timeline(), old.switches()), (new.end(), 2, new.switches()));
    }
}
