//! Reads the name servers, the search list and `ndots` from resolv.conf(5), and re-reads the file whenever it changes.
//!
//! The parser supports `nameserver`, `search`, `domain` and `options ndots:`. It ignores the settings that only the C
//! library's resolver needs: `timeout`, `attempts`, `rotate`, `sortlist`, and the environment variables `LOCALDOMAIN`
//! and `RES_OPTIONS`.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use hickory_resolver::proto::rr::Name;

use crate::system::{fs, spawn_blocking};

/// Maximum value of `ndots` (resolv.conf(5)).
const MAX_NDOTS: usize = 15;
/// Maximum number of name servers (resolv.conf(5), `MAXNS`).
const MAX_SERVERS: usize = 3;
/// Maximum number of bytes to read. No realistic file is larger.
const MAX_BYTES: u64 = 64 * 1024;

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
}

/// Parses a search domain as an absolute name. Returns `None` for the root (`search .`), which adds nothing to a name.
fn domain(word: &str) -> Option<Name> {
    let mut name = Name::from_ascii(word).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then_some(name)
}

/// A resolv.conf file that is re-read when it changes. While the file is missing, unreadable or unusable, the last
/// usable content stays in effect.
#[derive(Debug)]
pub(super) struct WatchedFile {
    path: PathBuf,
    /// True if a file without name servers is unusable.
    needs_servers: bool,
    stamp: Option<fs::Version>,
    conf: Option<Arc<ResolvConf>>,
    /// True if a warning was logged since the file was last usable. Limits the log to one warning per outage.
    warned: bool,
}

impl WatchedFile {
    pub(super) fn new(path: PathBuf, needs_servers: bool) -> Self {
        Self { path, needs_servers, stamp: None, conf: None, warned: false }
    }

    /// Returns the content of the file. Re-reads the file first if its metadata has changed. Fails only if the file was
    /// never usable.
    pub(super) async fn current(&mut self) -> io::Result<Arc<ResolvConf>> {
        let (path, stamp) = (self.path.clone(), self.stamp);
        let read = spawn_blocking(move || read_if_changed(&path, stamp.as_ref())).await;
        let error = match read.map_err(io::Error::other).and_then(|read| read) {
            Ok(None) => None,
            Ok(Some((stamp, bytes))) => {
                // Store the metadata of an unusable file too, so that the file is not re-read at every lookup.
                self.stamp = Some(stamp);
                let conf = ResolvConf::parse(&bytes);
                if conf.servers.is_empty() && self.needs_servers {
                    Some(io::Error::new(io::ErrorKind::InvalidData, "the file has no valid `nameserver` line"))
                } else {
                    self.conf = Some(Arc::new(conf));
                    self.warned = false;
                    None
                }
            }
            Err(error) => Some(error),
        };
        match (&self.conf, error) {
            (Some(conf), None) => Ok(conf.clone()),
            (Some(conf), Some(error)) => {
                if !self.warned {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "cannot use resolv.conf; keeping its last usable content");
                    self.warned = true;
                }
                Ok(conf.clone())
            }
            (None, error) => {
                self.stamp = None;
                Err(error.unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
            }
        }
    }
}

fn read_if_changed(path: &Path, known: Option<&fs::Version>) -> io::Result<Option<(fs::Version, Vec<u8>)>> {
    use io::Read as _;

    let stamp = fs::metadata(path)?.version;
    if known == Some(&stamp) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Some((stamp, bytes)))
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
