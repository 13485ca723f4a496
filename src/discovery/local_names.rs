//! Answers names that need no DNS: the names in the hosts file (hosts(5)), and the names that RFC 6761, section 6.3,
//! reserves for the local host.
//!
//! The hosts file comes first, as in the C library's default order (`hosts: files dns`). nsswitch.conf is not read. A
//! name in the file matches as it is written, without the search list and without regard to case. Loopback addresses
//! are accepted here, unlike in DNS responses: the file belongs to this machine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use super::{records, watched_file::WatchedFile};
use crate::config::ServiceName;

/// Maximum number of bytes to read. Lists that block unwanted hosts have several megabytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The local addresses of one name.
#[derive(Debug)]
pub(super) struct LocalNames {
    is_localhost: bool,
    /// The addresses of the name in the hosts file, in the order of the file.
    file: WatchedFile<Vec<IpAddr>>,
}

impl LocalNames {
    pub(super) fn new(name: &ServiceName, hosts: PathBuf) -> Self {
        let wanted = name.as_str().to_owned();
        let file = WatchedFile::new(hosts, MAX_BYTES, move |bytes: &[u8]| Ok(parse(bytes, &wanted)));
        Self { is_localhost: is_localhost(name), file }
    }

    /// Returns the addresses of the name, all of the same server, in the order in which they are tried. Returns none if
    /// DNS must be queried.
    pub(super) async fn addresses(&mut self) -> Vec<IpAddr> {
        let mut found = match self.file.current().await {
            Ok(addresses) => addresses.to_vec(),
            Err(error) => {
                // Containers without any other name have no hosts file.
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(%error, "cannot read the hosts file; resolving the name without it");
                }
                Vec::new()
            }
        };
        if found.is_empty() && self.is_localhost {
            found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        found
    }
}

/// Returns true for `localhost` and every name that ends in `.localhost`.
pub(super) fn is_localhost(name: &ServiceName) -> bool {
    name.labels().last() == Some("localhost")
}

/// Returns the usable addresses of `name`, which is in lower case, in the order of the file. Skips invalid lines, as
/// other resolvers do.
fn parse(bytes: &[u8], name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        if words.any(|word| word.strip_suffix('.').unwrap_or(word).eq_ignore_ascii_case(name))
            && let Some(address) = address.parse().ok().and_then(|address| records::usable(address, true))
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &[u8], name: &str) -> Vec<String> {
        parse(text, name).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn returns_the_addresses_of_a_name_in_the_order_of_the_file() {
        let file = b"# comment localhost\n127.0.0.1\tlocalhost  db # db2\r\n::1 LocalHost ip6-localhost\n\
            10.0.0.7 db db.example.\n127.0.0.1 db\n10.0.0.8 other\n \xff\n0.0.0.0 db\nfe80::1%lo0 localhost\nx db\n";
        assert_eq!(found(file, "localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(found(file, "db"), ["127.0.0.1", "10.0.0.7"]);
        assert_eq!(found(file, "db.example"), ["10.0.0.7"]);
        for name in ["db2", "comment", "127.0.0.1", "example", "blocked"] {
            assert!(found(file, name).is_empty(), "{name}");
        }
    }

    #[test]
    fn names_that_end_in_localhost_are_local() {
        for (name, local) in [("localhost", true), ("db.LocalHost.", true), ("localhost.db", false), ("db", false)] {
            assert_eq!(is_localhost(&name.parse().unwrap()), local, "{name}");
        }
    }
}
