//! resolv.conf(5): the name servers, the search list and `ndots`; read again when the file changes.
//!
//! Taken are what a Pod's file has: `nameserver`, `search`, `domain`, `options ndots:`. The rest (`timeout`,
//! `attempts`, `rotate`, `sortlist`, and the environment's `LOCALDOMAIN` and `RES_OPTIONS`) is about other resolvers.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use hickory_resolver::proto::rr::Name;

/// `ndots` has no larger value (resolv.conf(5)).
const MAX_NDOTS: usize = 15;
/// As many name servers as a resolver asks (resolv.conf(5), `MAXNS`).
const MAX_SERVERS: usize = 3;
/// No file of this kind is larger; more than this is not read.
const MAX_BYTES: u64 = 64 * 1024;

/// What a resolv.conf says.
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
    /// Reads what can be read; a line that cannot be is passed over, as every resolver does.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut conf = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            // A comment begins in the first column.
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    conf.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                // The last of the two lines counts, whichever it is.
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

/// A search domain, absolute. The root (`search .`) adds nothing to a name and is left out.
fn domain(word: &str) -> Option<Name> {
    let mut name = Name::from_ascii(word).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then_some(name)
}

/// A resolv.conf that is looked after. A missing, unreadable or empty file never takes away what was read before.
#[derive(Debug)]
pub(super) struct WatchedFile {
    path: PathBuf,
    /// Whether a file without any name server is as good as none.
    needs_servers: bool,
    stamp: Option<Stamp>,
    conf: Option<Arc<ResolvConf>>,
    /// Whether the last reading failed and was told of.
    troubled: bool,
}

/// What changes when a file does.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl WatchedFile {
    pub(super) fn new(path: PathBuf, needs_servers: bool) -> Self {
        Self { path, needs_servers, stamp: None, conf: None, troubled: false }
    }

    /// What the file says, read again if it has changed: one `stat` if not. Errors only if it was never read.
    pub(super) async fn current(&mut self) -> io::Result<Arc<ResolvConf>> {
        let (path, stamp) = (self.path.clone(), self.stamp.clone());
        let read = tokio::task::spawn_blocking(move || read_if_changed(&path, stamp.as_ref())).await;
        let trouble = match read.map_err(io::Error::other).and_then(|read| read) {
            Ok(None) => None,
            Ok(Some((stamp, bytes))) => {
                // Remembered whatever it holds: a broken file is read once, not at every lookup.
                self.stamp = Some(stamp);
                let conf = ResolvConf::parse(&bytes);
                if conf.servers.is_empty() && self.needs_servers {
                    Some(io::Error::new(io::ErrorKind::InvalidData, "it names no name server"))
                } else {
                    self.conf = Some(Arc::new(conf));
                    self.troubled = false;
                    None
                }
            }
            Err(error) => Some(error),
        };
        match (&self.conf, trouble) {
            (Some(conf), None) => Ok(conf.clone()),
            (Some(conf), Some(error)) => {
                if !self.troubled {
                    tracing::warn!(path = %self.path.display(), %error, "resolv.conf is not usable, the earlier one is kept");
                    self.troubled = true;
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

fn read_if_changed(path: &Path, known: Option<&Stamp>) -> io::Result<Option<(Stamp, Vec<u8>)>> {
    use io::Read as _;

    let stamp = Stamp::of(&fs::metadata(path)?);
    if known == Some(&stamp) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Some((stamp, bytes)))
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(meta);
        #[cfg(not(unix))]
        let inode = 0;
        Self { modified: meta.modified().ok(), length: meta.len(), inode }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(conf: &ResolvConf) -> Vec<String> {
        conf.search.iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn reads_what_a_pod_has() {
        let conf = ResolvConf::parse(
            b"# made by the kubelet\nsearch k8s-training.svc.cluster.local svc.cluster.local cluster.local\n\
              nameserver 10.96.0.10\noptions ndots:5 edns0\n",
        );
        assert_eq!(conf.servers, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(search(&conf), ["k8s-training.svc.cluster.local.", "svc.cluster.local.", "cluster.local."]);
        assert_eq!(conf.ndots, 5);
    }

    #[test]
    fn passes_over_what_it_cannot_read_and_obeys_the_limits() {
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
        fn whatever_bytes_come_it_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let conf = ResolvConf::parse(&bytes);
            prop_assert!(conf.servers.len() <= MAX_SERVERS && conf.ndots <= MAX_NDOTS);
        }
    }
}
