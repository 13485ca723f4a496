use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The address of a server: an IP address and a port, or the path of a Unix socket. Cloning copies it, or increments a
/// reference count.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket: the configured directory and the name `.s.PGSQL.` with the port.
    Unix(Arc<Path>),
}

impl Address {
    /// Returns the address of the socket that a server with this port has in this directory (PostgreSQL manual,
    /// `unix_socket_directories`).
    pub(crate) fn unix(directory: &Path, port: u16) -> Self {
        Self::Unix(PathBuf::from(directory).join(format!(".s.PGSQL.{port}")).into())
    }

    /// Returns the IP address and the port, or `None` for a Unix socket.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Returns the IP address, or `None` for a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.tcp().map(|address| address.ip())
    }

    /// Returns the port, or `None` for a Unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.tcp().map(|address| address.port())
    }

    /// Returns the value of OpenTelemetry's `server.address`: the IP address, or the path of the socket.
    pub(crate) fn host_text(&self) -> String {
        match self {
            Self::Tcp(address) => address.ip().to_string(),
            Self::Unix(path) => path.display().to_string(),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Hashes an IP address like a [`SocketAddr`], because the hash determines a client's subset of the Pods.
impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Tcp(address) => address.hash(state),
            Self::Unix(path) => path.hash(state),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
