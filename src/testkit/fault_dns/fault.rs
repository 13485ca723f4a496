//! The faults of the server, and the log of received packets.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{Record, RecordType};

/// The server's reaction to a query.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// No fault: the response contains the configured records.
    None,
    /// No response.
    Drop,
    /// The configured records, after this delay.
    Delay(Duration),
    /// Only a response code: 1 FORMERR, 2 SERVFAIL, 3 NXDOMAIN, 4 NOTIMP, 5 REFUSED.
    Code(u16),
    /// NXDOMAIN with an SOA record whose TTL and minimum are this many seconds.
    NoSuchName(u32),
    /// NODATA (NOERROR without records) with an SOA record whose TTL and minimum are this many seconds.
    NoData(u32),
    /// The configured records, with a wrong message id.
    WrongId,
    /// The configured records, as the response to a different question.
    WrongQuestion,
    /// The configured records, sent from a different port.
    WrongSource,
    /// The right message id followed by invalid bytes.
    Garbage,
    /// Only an address record that belongs to a different name.
    ForeignOwner(IpAddr),
    /// The configured records and an additional one of class CHAOS.
    ForeignClass,
    /// Over UDP, a response with only this many records that is marked as truncated. Over TCP, the reaction that
    /// [`Tcp`] defines.
    Truncate(usize, Tcp),
    /// These records instead of the configured ones.
    Records(Vec<Record>),
    /// The configured records, with the name in the question in lower case, as some servers return it.
    LowerCase,
    /// The configured records, but only the first record of a CNAME chain.
    OneAlias,
    /// The configured records, without the additional address records of SRV targets.
    NoGlue,
}

/// The server's reaction to a query over TCP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tcp {
    /// Responds and keeps the connection open.
    Answer,
    /// Closes the connection.
    Close,
    /// Closes the connection with a reset.
    Reset,
    /// Keeps the connection open and never responds on it again.
    Hang,
    /// Responds byte by byte, with this delay after each byte.
    Slow(Duration),
    /// Responds to one query and then closes the connection.
    CloseAfter,
}

/// A received query.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Packet {
    /// The time of receipt.
    pub at: Instant,
    /// True if the query was received over TCP.
    pub tcp: bool,
    /// The queried name, in its original case.
    pub name: String,
    /// The queried record type.
    pub kind: RecordType,
    /// The EDNS UDP payload size, if the query has EDNS.
    pub payload: Option<u16>,
    /// The message id. A retransmitted query has the same id.
    pub id: u16,
}
