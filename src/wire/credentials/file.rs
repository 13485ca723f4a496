//! Reads files that contain passwords. The buffers with the contents are overwritten with zeros when they are dropped.

use std::{
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

use crate::system::fs::{self, File, Metadata};

/// Maximum size of a password file, in bytes. Authentication tokens have a few thousand bytes, and PostgreSQL accepts
/// passwords of up to 65,535 bytes.
const MAX_PASSWORD_FILE: u64 = 64 << 10;
/// Maximum size of libpq's password file, in bytes.
const MAX_PASSFILE: u64 = 1 << 20;

/// Reads a file that contains only a password. Removes one line ending from the end of the password.
pub(super) fn read_password(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = read(path, MAX_PASSWORD_FILE, |_| Ok(()))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}

/// Reads libpq's password file. On an error, the caller must ignore the file and continue without a password.
pub(super) fn read_passfile(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    read(path, MAX_PASSFILE, check_private)
}

/// Rejects files that are accessible to the group or to others (Unix only).
fn check_private(metadata: &Metadata) -> io::Result<()> {
    match metadata.mode {
        Some(mode) if mode & 0o077 != 0 => {
            let message = format!("its mode is {mode:04o}, but must be 0600 or stricter");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path, limit: u64, check: impl Fn(&Metadata) -> io::Result<()>) -> io::Result<Zeroizing<Vec<u8>>> {
    // The file type is checked before the file is opened, because opening a named pipe blocks until the pipe has a
    // writer.
    if !fs::metadata(path)?.is_file {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    check(&metadata)?;
    if metadata.length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {limit} bytes")));
    }
    // The buffer is one byte longer than the file, to detect a file that grows. The buffer itself must not grow,
    // because a reallocation would leave a copy of the password in memory.
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(metadata.length).unwrap_or(usize::MAX).saturating_add(1)]);
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
        return Err(io::Error::new(io::ErrorKind::InvalidData, "modified while it was being read"));
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn removes_one_line_ending_from_a_password() {
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
            assert_eq!(&**read_password(file(content).path()).unwrap(), expected, "{content:?}");
        }
    }

    #[test]
    fn rejects_non_password_files() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read_password(directory.path()).unwrap_err().to_string().contains("not a regular file"));
        assert_eq!(read_password(&directory.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let long = file(&vec![b'x'; (64 << 10) + 1]);
        assert!(read_password(long.path()).unwrap_err().to_string().contains("longer than 65536 bytes"));
    }

    #[cfg(unix)]
    #[test]
    fn rejects_a_pipe_without_opening_it() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read_password(&pipe).unwrap_err().to_string().contains("not a regular file"));
    }

    #[cfg(unix)]
    #[test]
    fn rejects_a_passfile_that_other_users_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let file = file(b"*:*:*:*:hunter2\n");
        for (mode, private) in
            [(0o600, true), (0o400, true), (0o700, true), (0o640, false), (0o604, false), (0o610, false)]
        {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let read = read_passfile(file.path());
            assert_eq!(read.is_ok(), private, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("must be 0600 or stricter"), "{error}");
            }
        }
    }
}
