use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use podpool::simulation::File;

/// The files of a host.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<PathBuf, File>,
    changes: u64,
}

impl Files {
    /// Creates or replaces a file.
    pub(super) fn write(&mut self, path: &Path, content: &[u8], mode: u32) {
        self.changes += 1;
        let (content, length) = (content.to_vec(), content.len() as u64);
        self.files.insert(path.into(), File { content, length, mode, owner: 1000, version: self.changes });
    }

    /// Removes a file.
    pub(super) fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// Returns a file, or its metadata if `content` is false.
    pub(super) fn read(&self, path: &Path, content: bool) -> io::Result<File> {
        let file = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        if content {
            return Ok(file.clone());
        }
        let File { length, mode, owner, version, .. } = *file;
        Ok(File { content: Vec::new(), length, mode, owner, version })
    }

    /// Returns the paths of the entries of a directory.
    pub(super) fn entries(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let below = self.files.keys().filter_map(|path| path.strip_prefix(directory).ok()?.components().next());
        let mut entries: Vec<_> = below.map(|name| directory.join(name)).collect();
        entries.dedup();
        if entries.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(entries) }
    }

    /// Appends to a file, which is created if it does not exist.
    pub(super) fn append(&mut self, path: &Path, bytes: &[u8]) {
        let mut file = self.files.get(path).cloned().unwrap_or(File { mode: 0o600, ..File::default() });
        file.content.extend_from_slice(bytes);
        self.write(path, &file.content, file.mode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_new_version_after_each_change() {
        let (mut files, path) = (Files::default(), Path::new("/etc/resolv.conf"));
        assert_eq!(files.read(path, true).unwrap_err().kind(), io::ErrorKind::NotFound);
        files.write(path, b"search example\n", 0o644);
        let first = files.read(path, false).unwrap();
        files.append(path, b"options ndots:5\n");
        let second = files.read(path, true).unwrap();
        assert_eq!((first.mode, second.mode, first.version < second.version), (0o644, 0o644, true));
        assert_eq!(second.content, b"search example\noptions ndots:5\n");
        assert_eq!(files.entries(Path::new("/etc")).unwrap(), [path]);
    }
}
