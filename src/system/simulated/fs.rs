use std::{
    io::{self, Read},
    path::Path,
};

use crate::system::simulation::{self, world};

/// The metadata of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metadata {
    pub(crate) is_file: bool,
    pub(crate) length: u64,
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<u32>,
    pub(crate) version: Version,
}

/// A value that changes when a file changes or is replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Version(u64);

/// Returns the metadata of the file at a path.
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    Ok(Metadata::of(&world().file(path, false)?))
}

/// Returns the paths of the entries of a directory, in no particular order.
#[cfg(feature = "_tls")]
pub(crate) fn entries(directory: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    world().entries(directory)
}

/// Returns true if the path exists and is accessible.
#[cfg(feature = "_tls")]
pub(crate) fn exists(path: &Path) -> bool {
    world().file(path, false).is_ok() || world().entries(path).is_ok()
}

/// An open file.
#[derive(Debug)]
pub(crate) struct File {
    metadata: Metadata,
    content: io::Cursor<Vec<u8>>,
    /// The path of a file that was opened for appending.
    #[cfg(all(feature = "_tls", feature = "keylog"))]
    path: Option<std::path::PathBuf>,
}

impl File {
    /// Opens a file for reading.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = world().file(path, true)?;
        Ok(Self {
            metadata: Metadata::of(&file),
            content: io::Cursor::new(file.content),
            #[cfg(all(feature = "_tls", feature = "keylog"))]
            path: None,
        })
    }

    /// Opens a file for appending. A new file is accessible only to its owner.
    #[cfg(all(feature = "_tls", feature = "keylog"))]
    pub(crate) fn append_to(path: &Path) -> io::Result<Self> {
        world().append(path, b"")?;
        Ok(Self { path: Some(path.into()), ..Self::open(path)? })
    }

    /// Returns the file's metadata.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.metadata)
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.content.read(buf)
    }
}

#[cfg(all(feature = "_tls", feature = "keylog"))]
impl io::Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let path = self.path.as_deref().ok_or(io::ErrorKind::PermissionDenied)?;
        world().append(path, buf).map(|()| buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Metadata {
    fn of(file: &simulation::File) -> Self {
        let simulation::File { length, mode, owner, version, .. } = *file;
        Self { is_file: true, length, mode: Some(mode), owner: Some(owner), version: Version(version) }
    }
}
