use hickory_server::proto::op;

/// The answer of a name server that has nothing to say, for [`DnsServer::fail`](super::DnsServer::fail).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ResponseCode {
    /// The question could not be understood (1).
    FormErr,
    /// The name does not exist (3).
    NxDomain,
    /// The server does not do such things (4).
    NotImp,
    /// The server does not want to answer (5).
    Refused,
    /// The server has a problem of its own (2).
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
