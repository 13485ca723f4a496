use std::{fmt, str::FromStr};

use crate::{
    config::{ServiceName, message},
    error::ConfigError,
};

/// The name that the server's certificate must contain with `sslmode=verify-full`, and that is sent as SNI:
/// `ssl_verify_name`. libpq has no such parameter, because its `host` is the name of one server.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum VerifiedName {
    /// A fixed name, for certificates that do not contain the Service name. Written as the name itself.
    Other(ServiceName),
    /// The name of the Pod, which is the target of its SRV record, such as
    /// `postgresql-sfs-0.postgresql-svc.k8s-training.svc.cluster.local`. Written as `pod`. Requires `discovery=srv`, or
    /// a resolver that sets each Pod's [host](crate::Endpoint::with_host).
    Pod,
    /// The Service name, which is `host` in the configuration. Written as `service`. The default.
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
                let expected = "`service`, `pod` or the name in the servers' certificates";
                ConfigError::new("ssl_verify_name", expected).got(message::excerpt(name))
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
