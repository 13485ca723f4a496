use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::system::{fs, spawn_blocking};

/// A function that parses the content of a file, and fails if the content is unusable.
type Parse<T> = Box<dyn Fn(&[u8]) -> io::Result<T> + Send + Sync>;

/// A configuration file that is re-read when it changes. While the file is missing, unreadable or unusable, the last
/// usable content stays in effect.
pub(super) struct WatchedFile<T> {
    path: PathBuf,
    max_bytes: u64,
    parse: Parse<T>,
    stamp: Option<fs::Version>,
    content: Option<Arc<T>>,
    /// True if a warning was logged since the file was last usable. Limits the log to one warning per outage.
    warned: bool,
}

impl<T> WatchedFile<T> {
    /// Creates a watcher that reads at most `max_bytes` of the file at `path`. Does not access the file.
    pub(super) fn new(
        path: PathBuf,
        max_bytes: u64,
        parse: impl Fn(&[u8]) -> io::Result<T> + Send + Sync + 'static,
    ) -> Self {
        Self { path, max_bytes, parse: Box::new(parse), stamp: None, content: None, warned: false }
    }

    /// Returns the content of the file. Re-reads the file first if its metadata has changed. Fails only if the file was
    /// never usable.
    pub(super) async fn current(&mut self) -> io::Result<Arc<T>> {
        let (path, max_bytes, stamp) = (self.path.clone(), self.max_bytes, self.stamp);
        let read = spawn_blocking(move || read_if_changed(&path, max_bytes, stamp.as_ref())).await;
        let error = match read.map_err(io::Error::other).and_then(|read| read) {
            Ok(None) => None,
            Ok(Some((stamp, bytes))) => {
                // Store the metadata of an unusable file too, so that the file is not re-read at every lookup.
                self.stamp = Some(stamp);
                match (self.parse)(&bytes) {
                    Ok(content) => {
                        self.content = Some(Arc::new(content));
                        self.warned = false;
                        None
                    }
                    Err(error) => Some(error),
                }
            }
            Err(error) => Some(error),
        };
        match (&self.content, error) {
            (Some(content), None) => Ok(content.clone()),
            (Some(content), Some(error)) => {
                if !self.warned {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "cannot use the resolver's file; keeping its last usable content");
                    self.warned = true;
                }
                Ok(content.clone())
            }
            (None, error) => {
                self.stamp = None;
                Err(error.unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
            }
        }
    }
}

fn read_if_changed(
    path: &Path,
    max_bytes: u64,
    known: Option<&fs::Version>,
) -> io::Result<Option<(fs::Version, Vec<u8>)>> {
    use io::Read as _;

    let stamp = fs::metadata(path)?.version;
    if known == Some(&stamp) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(Some((stamp, bytes)))
}

impl<T> fmt::Debug for WatchedFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedFile").field("path", &self.path).field("warned", &self.warned).finish_non_exhaustive()
    }
}
