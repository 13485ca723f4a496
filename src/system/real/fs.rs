use std::{
    fs,
    io::{self, Read},
    path::Path,
    time::SystemTime,
};

/// An open file.
#[derive(Debug)]
pub(crate) struct File(fs::File);

/// The metadata of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metadata {
    pub(crate) is_file: bool,
    pub(crate) length: u64,
    /// The permission bits, or `None` if the operating system has none.
    pub(crate) mode: Option<u32>,
    /// The number of the owner's account, or `None` if the operating system has none.
    #[cfg_attr(not(feature = "_tls"), expect(dead_code, reason = "only private keys have a rule about their owner"))]
    pub(crate) owner: Option<u32>,
    pub(crate) version: Version,
}

/// A value that changes when a file changes or is replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Version {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// Returns the metadata of the file at a path.
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    Ok(Metadata::of(&fs::metadata(path)?))
}

/// Returns the paths of the entries of a directory, in no particular order.
#[cfg(feature = "_tls")]
pub(crate) fn entries(directory: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

/// Returns true if the path exists and is accessible.
#[cfg(feature = "_tls")]
pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}

impl File {
    /// Opens a file for reading.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::File::open(path).map(Self)
    }

    /// Opens a file for appending. A new file is accessible only to its owner.
    #[cfg(all(feature = "_tls", feature = "keylog"))]
    pub(crate) fn append_to(path: &Path) -> io::Result<Self> {
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map(Self)
    }

    /// Returns the file's metadata.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        Ok(Metadata::of(&self.0.metadata()?))
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

#[cfg(all(feature = "_tls", feature = "keylog"))]
impl io::Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Metadata {
    fn of(meta: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let (inode, mode, owner) = {
            use std::os::unix::fs::MetadataExt as _;
            (meta.ino(), Some(meta.mode() & 0o777), Some(meta.uid()))
        };
        #[cfg(not(unix))]
        let (inode, mode, owner) = (0, None, None);
        let length = meta.len();
        let version = Version { modified: meta.modified().ok(), length, inode };
        Self { is_file: meta.is_file(), length, mode, owner, version }
    }
}
