use std::{io, path::Path};

pub(crate) use tokio::net::UnixStream;

/// Connects a Unix socket.
///
/// Cancel-safe: dropping the future closes the socket.
pub(crate) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}
