//! Opens the socket of a connection, at the first address of the server that accepts it.

use std::{io, net::SocketAddr};

use tokio::{select, time::sleep};

use crate::{
    address::Address,
    endpoint::Endpoint,
    system::{JoinSet, SocketOptions, TcpStream, UnixStream, connect, connect_unix},
    time::Duration,
};

/// Time after which the next address is tried as well, although the previous one has neither accepted nor failed: the
/// Connection Attempt Delay of RFC 8305, section 5.
const DELAY: Duration = Duration::from_millis(250);

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects to a Pod. Returns the socket, and the Pod with only the address that is connected. If the Pod has several
/// addresses, tries them in order: the next one as soon as the previous one has failed, or after [`DELAY`].
///
/// Cancel-safe: dropping the future closes all sockets.
pub(super) async fn connect_any(endpoint: &Endpoint, options: &SocketOptions) -> io::Result<(Socket, Endpoint)> {
    let first = match endpoint.address() {
        Address::Tcp(address) => *address,
        Address::Unix(path) => {
            let socket = connect_unix(path).await?;
            return Ok((Socket::Unix(socket), endpoint.clone()));
        }
    };
    let (socket, address) = if endpoint.alternatives().is_empty() {
        (connect(first, options).await?, first)
    } else {
        race(std::iter::once(first).chain(endpoint.alternatives().iter().copied()), options).await?
    };
    Ok((Socket::Tcp(socket), endpoint.only_at(address)))
}

/// Connects to the first of several addresses that accepts.
async fn race(
    addresses: impl Iterator<Item = SocketAddr>,
    options: &SocketOptions,
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut addresses = addresses.peekable();
    let (mut attempts, mut failures) = (JoinSet::new(), Vec::new());
    loop {
        if let Some(address) = addresses.next() {
            let options = *options;
            attempts.spawn(async move { (address, connect(address, &options).await) });
        }
        select! {
            biased;
            Some(attempt) = attempts.join_next() => match attempt {
                Ok((address, Ok(socket))) => return Ok((socket, address)),
                Ok((address, Err(error))) => failures.push((address, error)),
                Err(error) => return Err(io::Error::other(error)),
            },
            () = sleep(DELAY), if addresses.peek().is_some() => {}
            else => return Err(summary(&failures)),
        }
    }
}

/// Returns one error for the failures of all addresses. If one of them refuses connections, the server is down, so the
/// error is of that kind.
fn summary(failures: &[(SocketAddr, io::Error)]) -> io::Error {
    let kinds = || failures.iter().map(|(_, error)| error.kind());
    let kind = kinds().find(|kind| *kind == io::ErrorKind::ConnectionRefused).or_else(|| kinds().next_back());
    let texts: Vec<_> = failures.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    io::Error::new(kind.unwrap_or(io::ErrorKind::Other), texts.join("; "))
}

#[cfg(all(test, not(podpool_simulation)))]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::time::Instant;

    /// Returns an address on which nothing listens.
    async fn closed() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_refused_address_costs_no_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        for addresses in [[open, closed().await], [closed().await, open]] {
            let endpoint = Endpoint::new(addresses[0]).with_alternatives([addresses[1]]);
            let begin = Instant::now();
            let (socket, reached) = connect_any(&endpoint, &SocketOptions::default()).await.unwrap();
            let Socket::Tcp(socket) = socket else { panic!("a TCP socket") };
            assert_eq!((socket.peer_addr().unwrap(), reached), (open, Endpoint::new(open)));
            assert!(begin.elapsed() < DELAY, "{:?}", begin.elapsed());
        }
    }

    #[tokio::test]
    async fn the_error_names_every_address() {
        let (one, two) = (closed().await, closed().await);
        let endpoint = Endpoint::new(one).with_alternatives([two]);
        let error = connect_any(&endpoint, &SocketOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let text = error.to_string();
        assert!(text.contains(&format!("{one}: ")) && text.contains(&format!("{two}: ")), "{text}");
    }
}
