//! Response codes for [`DnsServer::fail`](super::DnsServer::fail).

use hickory_server::proto::op;

/// A response code for [`DnsServer::fail`](super::DnsServer::fail) (RFC 1035 section 4.1.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ResponseCode {
    /// FORMERR (1): the server cannot interpret the query.
    FormErr,
    /// NXDOMAIN (3): the name does not exist.
    NxDomain,
    /// NOTIMP (4): the server does not support this kind of query.
    NotImp,
    /// REFUSED (5): the server refuses to answer.
    Refused,
    /// SERVFAIL (2): the server has an internal problem.
    ServFail,
}

impl From<ResponseCode> for op::ResponseCode {
    fn from(code: ResponseCode) -> Self {
        match code {
            ResponseCode::FormErr => Self::FormErr,
            ResponseCode::NxDomain => Self::NXDomain,
            ResponseCode::NotImp => Self::NotImp,
            ResponseCode::Refused => Self::Refused,
            ResponseCode::ServFail => Self::ServFail,
        }
    }
}
