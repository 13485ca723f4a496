use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{Record, RecordType};

/// How a question is answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// As the records have it.
    None,
    /// Not at all.
    Drop,
    /// As the records have it, after this long.
    Delay(Duration),
    /// With this response code and nothing else: 1 FORMERR, 2 SERVFAIL, 3 NXDOMAIN, 4 NOTIMP, 5 REFUSED.
    Code(u16),
    /// NXDOMAIN with an SOA record of this TTL and minimum, in seconds.
    NoSuchName(u32),
    /// NODATA (no error, no record) with an SOA record of this TTL and minimum, in seconds.
    NoData(u32),
    /// As the records have it, under another id.
    WrongId,
    /// As the records have it, to another question.
    WrongQuestion,
    /// As the records have it, from another port.
    WrongSource,
    /// The right id and then rubbish.
    Garbage,
    /// A record of this address that belongs to another name, and nothing else.
    ForeignOwner(IpAddr),
    /// As the records have it, and one record more whose class is CHAOS.
    ForeignClass,
    /// By UDP only the first so many records, marked as truncated; TCP as told.
    Truncate(usize, Tcp),
    /// These records instead.
    Records(Vec<Record>),
    /// The question is lower-cased in the answer, as some servers do.
    LowerCase,
    /// As the records have it, but of a chain of aliases only the first.
    OneAlias,
    /// As the records have it, without the addresses that would come along with SRV records.
    NoGlue,
}

/// What becomes of a TCP connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tcp {
    /// The question is answered and the connection stays open.
    Answer,
    /// The connection is closed when a question comes.
    Close,
    /// The connection is closed with a reset when a question comes.
    Reset,
    /// The connection stays open and nothing is answered on it any more, whatever comes.
    Silent,
    /// The answer comes byte by byte, each after this long.
    Slow(Duration),
    /// The question is answered and the connection is closed.
    CloseAfter,
}

/// One packet that came.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Packet {
    /// When.
    pub at: Instant,
    /// Whether by TCP.
    pub tcp: bool,
    /// The name asked for, as it was written.
    pub name: String,
    /// The type asked for.
    pub kind: RecordType,
    /// The size of UDP answers that was asked for, where EDNS is used.
    pub payload: Option<u16>,
    /// The id of the question; the same for a repeat.
    pub id: u16,
}
