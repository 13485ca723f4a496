//! Parses the name servers, the search list and `ndots` in resolv.conf(5).
//!
//! The parser supports `nameserver`, `search`, `domain` and `options ndots:`. It ignores the settings that only the C
//! library's resolver needs: `timeout`, `attempts`, `rotate`, `sortlist`, and the environment variables `LOCALDOMAIN`
//! and `RES_OPTIONS`.

use std::{io, net::IpAddr};

use hickory_resolver::proto::rr::Name;

/// Maximum value of `ndots` (resolv.conf(5)).
const MAX_NDOTS: usize = 15;
/// Maximum number of name servers (resolv.conf(5), `MAXNS`).
const MAX_SERVERS: usize = 3;
/// Maximum number of bytes to read. No realistic file is larger.
pub(super) const MAX_BYTES: u64 = 64 * 1024;

/// The content of a resolv.conf file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<IpAddr>,
    pub(super) search: Vec<Name>,
    pub(super) ndots: usize,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self { servers: Vec::new(), search: Vec::new(), ndots: 1 }
    }
}

impl ResolvConf {
    /// Parses the file. Skips invalid lines, as other resolvers do.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut conf = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            // A comment starts in the first column.
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    conf.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                // The last `search` or `domain` line takes effect.
                Some("search") => conf.search = words.filter_map(domain).collect(),
                Some("domain") => conf.search = words.take(1).filter_map(domain).collect(),
                Some("options") => {
                    for ndots in words.filter_map(|word| word.strip_prefix("ndots:")?.parse::<usize>().ok()) {
                        conf.ndots = ndots.min(MAX_NDOTS);
                    }
                }
                _ => {}
            }
        }
        conf.servers.truncate(MAX_SERVERS);
        conf
    }

    /// Parses the file, and fails if it contains no name server.
    pub(super) fn parse_with_servers(bytes: &[u8]) -> io::Result<Self> {
        let conf = Self::parse(bytes);
        if conf.servers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file has no valid `nameserver` line"));
        }
        Ok(conf)
    }
}

/// Parses a search domain as an absolute name. Returns `None` for the root (`search .`), which adds nothing to a name.
fn domain(word: &str) -> Option<Name> {
    let mut name = Name::from_ascii(word).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(conf: &ResolvConf) -> Vec<String> {
        conf.search.iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn parses_a_resolv_conf_written_by_the_kubelet() {
        let conf = ResolvConf::parse(
            b"# made by the kubelet\nsearch k8s-training.svc.cluster.local svc.cluster.local cluster.local\n\
              nameserver 10.96.0.10\noptions ndots:5 edns0\n",
        );
        assert_eq!(conf.servers, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(search(&conf), ["k8s-training.svc.cluster.local.", "svc.cluster.local.", "cluster.local."]);
        assert_eq!(conf.ndots, 5);
    }

    #[test]
    fn skips_invalid_lines_and_limits_name_servers_and_ndots() {
        let conf = ResolvConf::parse(
            b"nameserver\nnameserver fe80::1%eth0\nnameserver ::1\n nameserver 10.0.0.1 # one\r\nnameserver 10.0.0.2\n\
              nameserver 10.0.0.3\n;nameserver 10.0.0.9\nsearch a b..c . \xff\ndomain d.example e\noptions ndots:x\n\
              options rotate ndots:99\n",
        );
        let servers: Vec<_> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["::1", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(search(&conf), ["d.example."]);
        assert_eq!(conf.ndots, 15);
    }

    proptest! {
        #[test]
        fn parses_arbitrary_bytes_without_exceeding_the_limits(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let conf = ResolvConf::parse(&bytes);
            prop_assert!(conf.servers.len() <= MAX_SERVERS && conf.ndots <= MAX_NDOTS);
        }
    }
}
