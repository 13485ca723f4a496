//! The hosts file (hosts(5)), which all hosts of one configuration share.
//!
//! The file is read and parsed on a thread for blocking operations, because it may be large, and only once after a
//! change, however many hosts are configured. A missing file has no names, like an empty one: containers without any
//! other name have none. While the file cannot be read for another reason, its last content stays in effect.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::records;
use crate::{
    config::ServiceName,
    sync::{Mutex, lock},
    system::{fs, spawn_blocking},
};

/// Maximum number of bytes to read. Lists that block unwanted hosts have several megabytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The addresses of the configured names, in the order of the file. Names are in lower case.
type Addresses = BTreeMap<Box<str>, Vec<IpAddr>>;

/// The hosts file, and the addresses that it has for the configured names.
#[derive(Debug)]
pub(crate) struct HostsFile {
    path: PathBuf,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    addresses: Addresses,
    /// The version of the file that was read last. `None` if there is none.
    version: Option<fs::Version>,
    /// True if a warning was logged since the file was last usable.
    warned: bool,
}

impl HostsFile {
    /// Creates the file at `path` with the addresses of these names. Does not access the file.
    pub(crate) fn new<'a>(path: PathBuf, names: impl IntoIterator<Item = &'a ServiceName>) -> Self {
        let addresses = names.into_iter().map(|name| (name.as_str().into(), Vec::new())).collect();
        Self { path, content: Mutex::new(Content { addresses, version: None, warned: false }) }
    }

    /// Returns the usable addresses of a name, in the order of the file. Reads the file first if it has changed.
    pub(super) async fn addresses(self: &Arc<Self>, name: &ServiceName) -> Vec<IpAddr> {
        let (file, name) = (self.clone(), name.clone());
        let found = spawn_blocking(move || {
            // The lock is held while the file is read, so that concurrent lookups of several hosts read it only once.
            let mut content = lock(&file.content);
            content.update(&file.path);
            content.addresses.get(name.as_str()).cloned().unwrap_or_default()
        });
        found.await.unwrap_or_else(|error| {
            tracing::debug!(%error, "could not read the hosts file; resolving the name without it");
            Vec::new()
        })
    }
}

impl Content {
    fn update(&mut self, path: &Path) {
        match self.read(path) {
            Ok(()) => self.warned = false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.addresses.values_mut().for_each(Vec::clear);
                (self.version, self.warned) = (None, false);
            }
            Err(error) if !self.warned => {
                let path = path.display();
                tracing::warn!(%path, %error, "cannot read the hosts file; keeping its last content");
                self.warned = true;
            }
            Err(_) => {}
        }
    }

    /// Reads the file if it has changed.
    fn read(&mut self, path: &Path) -> io::Result<()> {
        use io::Read as _;

        let version = Some(fs::metadata(path)?.version);
        if self.version == version {
            return Ok(());
        }
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        parse(&bytes, &mut self.addresses);
        self.version = version;
        Ok(())
    }
}

/// Replaces the addresses of the names in `found` by the usable ones in the file. Skips invalid lines, as other
/// resolvers do.
fn parse(bytes: &[u8], found: &mut Addresses) {
    found.values_mut().for_each(Vec::clear);
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        for word in words {
            let name = word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase();
            if let Some(addresses) = found.get_mut(name.as_str())
                && let Some(address) = address.parse().ok().and_then(|address| records::usable(address, true))
                && !addresses.contains(&address)
            {
                addresses.push(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<ServiceName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn returns_the_addresses_of_each_name_in_the_order_of_the_file() {
        let text = b"# comment localhost\n127.0.0.1\tlocalhost  db # db2\r\n::1 LocalHost ip6-localhost\n\
            10.0.0.7 db db.example.\n127.0.0.1 db\n10.0.0.8 other\n \xff\n0.0.0.0 db\nfe80::1%lo0 localhost\nx db\n";
        let wanted = ["localhost", "db", "db.example", "db2", "comment", "example", "blocked"];
        let mut found: Addresses = wanted.into_iter().map(|name| (name.into(), Vec::new())).collect();
        for _ in 0..2 {
            parse(text, &mut found);
            let of = |name: &str| found[name].iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(of("localhost"), ["127.0.0.1", "::1"]);
            assert_eq!(of("db"), ["127.0.0.1", "10.0.0.7"]);
            assert_eq!(of("db.example"), ["10.0.0.7"]);
            assert!(["db2", "comment", "example", "blocked"].iter().all(|name| found[*name].is_empty()));
        }
        assert_eq!(found.len(), wanted.len(), "other names are not kept");
    }

    #[tokio::test]
    async fn a_deleted_file_has_no_names_and_an_unreadable_one_keeps_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let names = names(&["db", "other"]);
        let file = Arc::new(HostsFile::new(path.clone(), &names));
        let found = async |name: &ServiceName| file.addresses(name).await;
        assert_eq!(found(&names[0]).await, [] as [IpAddr; 0]);
        std::fs::write(&path, "10.0.0.1 db\n10.0.0.2 other\n").unwrap();
        let both = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        assert_eq!([found(&names[0]).await, found(&names[1]).await], both.map(|address| vec![address]));
        // A directory cannot be read.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(found(&names[0]).await, both[..1]);
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(found(&names[0]).await, [] as [IpAddr; 0]);
        std::fs::write(&path, "10.0.0.2 db\n").unwrap();
        assert_eq!(found(&names[0]).await, both[1..], "the file exists again");
    }

    #[tokio::test]
    async fn lookups_of_several_hosts_parse_the_file_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        std::fs::write(&path, "10.0.0.1 db\n").unwrap();
        let names = names(&["db", "other"]);
        let file = Arc::new(HostsFile::new(path, &names));
        file.addresses(&names[0]).await;
        // An address that is not in the file stays until the file is parsed again.
        let marker = IpAddr::from([10, 0, 0, 9]);
        lock(&file.content).addresses.get_mut("other").unwrap().push(marker);
        assert_eq!(file.addresses(&names[1]).await, [marker]);
    }
}
