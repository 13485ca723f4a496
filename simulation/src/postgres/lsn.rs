//! Positions in the write-ahead log (WAL).

use std::fmt;

/// The number of a timeline.
pub type Timeline = u32;

/// A position in the write-ahead log, in bytes since the beginning of the log.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Size of a segment of the log: each file of `pg_wal` contains one.
const SEGMENT: u64 = 16 << 20;

/// Returns the name of the file that contains the byte before a position, as `pg_walfile_name` does.
pub(super) fn walfile_name(timeline: Timeline, position: Lsn) -> String {
    let segment = position.0.saturating_sub(1) / SEGMENT;
    let per_id = 0x1_0000_0000 / SEGMENT;
    format!("{timeline:08X}{:08X}{:08X}", segment / per_id, segment % per_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_positions_and_file_names_like_the_server() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!(walfile_name(2, Lsn(0x16_B374_D848)), "0000000200000016000000B3");
        assert_eq!(
            walfile_name(1, Lsn(0x300_0000)),
            "000000010000000000000002",
            "a boundary belongs to the file before"
        );
    }
}
