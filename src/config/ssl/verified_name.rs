use std::{fmt, str::FromStr};

use crate::{
    config::{ServiceName, words},
    error::ConfigError,
};

/// Which name a server's certificate has to be for under `sslmode=verify-full`, and which name is sent along as SNI:
/// `ssl_verify_name`. libpq has no such parameter, for its `host` stands for one server.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum VerifiedName {
    /// This name, written as it is: for certificates that were made for another one.
    Other(ServiceName),
    /// The Pod's own, written `pod`: the target of its SRV record, such as
    /// `postgresql-sfs-0.postgresql-svc.k8s-training.svc.cluster.local`. Needs `discovery=srv`, or a resolver that tells
    /// each Pod's [host](crate::Endpoint::with_host).
    Pod,
    /// The Service's, written `service`: the `host` of the URL, as it is written there. The default.
    #[default]
    Service,
}

impl FromStr for VerifiedName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "pod" => Ok(Self::Pod),
            "service" => Ok(Self::Service),
            name => name.parse().map(Self::Other).map_err(|_| {
                let expected = "`service`, `pod`, or the name that the servers' certificates are for";
                ConfigError::new("ssl_verify_name", expected).got(words::clip(name))
            }),
        }
    }
}

impl fmt::Display for VerifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(name) => f.write_str(name.as_str()),
            Self::Pod => f.write_str("pod"),
            Self::Service => f.write_str("service"),
        }
    }
}
