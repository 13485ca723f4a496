//! Files that hold passwords: what is read of them is overwritten when it has served.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

/// The most bytes of a file with one password. A token is some thousands long; PostgreSQL takes 65,535.
const PASSWORD: u64 = 64 << 10;
/// The most bytes of libpq's password file.
const PASSFILE: u64 = 1 << 20;

/// A file with nothing but a password: its bytes, without one line's end after them.
pub(super) fn password(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = read(path, PASSWORD, |_| Ok(()))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}

/// libpq's password file; an error says why it is to be ignored.
pub(super) fn passfile(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    read(path, PASSFILE, private)
}

/// On Unix, nobody but the owner may be allowed anything.
fn private(metadata: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let message = format!("its permissions are {mode:04o}, and should be 0600 or less");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
    }
    #[cfg(not(unix))]
    let _ = metadata;
    Ok(())
}

fn read(path: &Path, limit: u64, check: impl Fn(&Metadata) -> io::Result<()>) -> io::Result<Zeroizing<Vec<u8>>> {
    // Before it is opened, for a pipe would wait there for somebody who writes.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    check(&metadata)?;
    if metadata.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {limit} bytes")));
    }
    // One byte more than there should be: the buffer never grows, for that would leave a copy behind.
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(metadata.len()).unwrap_or(usize::MAX).saturating_add(1)]);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled == bytes.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it was written to while it was read"));
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn one_lines_end_is_no_part_of_a_password() {
        for (content, expected) in [
            (&b"hunter2"[..], &b"hunter2"[..]),
            (b"hunter2\n", b"hunter2"),
            (b"hunter2\r\n", b"hunter2"),
            (b"hunter2\n\n", b"hunter2\n"),
            (b"hunter2\r", b"hunter2\r"),
            (b" hunter2 \n", b" hunter2 "),
            (b"\n", b""),
            (b"", b""),
        ] {
            assert_eq!(&**password(file(content).path()).unwrap(), expected, "{content:?}");
        }
    }

    #[test]
    fn what_is_no_file_of_a_password_is_said() {
        let directory = tempfile::tempdir().unwrap();
        assert!(password(directory.path()).unwrap_err().to_string().contains("no plain file"));
        assert_eq!(password(&directory.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let long = file(&vec![b'x'; (64 << 10) + 1]);
        assert!(password(long.path()).unwrap_err().to_string().contains("longer than 65536 bytes"));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(password(&pipe).unwrap_err().to_string().contains("no plain file"));
    }

    #[cfg(unix)]
    #[test]
    fn a_passfile_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = file(b"*:*:*:*:hunter2\n");
        for (mode, private) in
            [(0o600, true), (0o400, true), (0o700, true), (0o640, false), (0o604, false), (0o610, false)]
        {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let read = passfile(file.path());
            assert_eq!(read.is_ok(), private, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("should be 0600 or less"), "{error}");
            }
        }
    }
}
