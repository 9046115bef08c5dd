//! Files with keys and secrets: read whole within a bound, made whole or not at all.
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Largest key, certificate or key set that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A key, secret or certificate that cannot be used. Names the file and the reason, never contents.
#[derive(Debug)]
pub struct LoadError {
    subject: String,
    reason: String,
}

impl LoadError {
    /// About a file.
    pub fn file(path: &Path, reason: impl fmt::Display) -> LoadError {
        LoadError::about(path.display(), reason)
    }

    /// About something that is not a file, or about several.
    pub fn about(subject: impl fmt::Display, reason: impl fmt::Display) -> LoadError {
        LoadError { subject: subject.to_string(), reason: reason.to_string() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.reason)
    }
}

impl std::error::Error for LoadError {}

/// Reads a file of at most 1 MiB.
///
/// # Errors
/// Where it cannot be read or is larger.
pub fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| LoadError::file(path, error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(LoadError::file(path, "larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Warns of a key or secret that everybody on the machine may read. A group may: the gateway's own.
pub fn warn_if_open(path: &Path) {
    let mode = fs::metadata(path).map_or(0, |data| data.permissions().mode());
    if is_open(mode) {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "a key that everybody may read");
    }
}

fn is_open(mode: u32) -> bool {
    mode & 0o007 != 0
}

/// Makes a file with these contents and permissions unless one is there; directories above it are
/// made too. A reader sees nothing or all of it, and of several that try at once one wins.
/// Tells whether this call made it.
///
/// # Errors
/// What the file system says, with the path before it.
pub fn make_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<bool> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if path.try_exists().map_err(named)? {
        return Ok(false);
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(named)?;
    }
    let Some(name) = path.file_name() else { return Err(named(io::ErrorKind::InvalidInput.into())) };
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}", uuid::Uuid::new_v4()));
    let draft = path.with_file_name(draft);
    // A link fails where the name is taken; a rename would replace what another process made.
    let outcome = write_draft(&draft, contents, mode).and_then(|()| match fs::hard_link(&draft, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    });
    let _ = fs::remove_file(&draft);
    outcome.map_err(named)
}

fn write_draft(draft: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::PathBuf;

    /// A directory of a test's own, gone on Drop.
    pub(crate) struct Directory(pub(crate) PathBuf);

    impl Directory {
        pub(crate) fn new() -> Directory {
            let path = std::env::temp_dir().join(format!("wsgate-{}", uuid::Uuid::new_v4()));
            fs::create_dir(&path).unwrap();
            Directory(path)
        }

        pub(crate) fn with(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, contents).unwrap();
            path
        }

        pub(crate) fn names(&self) -> Vec<String> {
            let mut names: Vec<String> =
                fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn makes_a_file_once() {
        let directory = Directory::new();
        let path = directory.0.join("a/b/key");
        assert!(make_new(&path, b"one", 0o600).unwrap());
        assert!(!make_new(&path, b"two", 0o600).unwrap());
        assert_eq!(read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        let error = make_new(&path.join("below"), b"", 0o600).unwrap_err();
        assert!(error.to_string().contains("below"), "{error}");
    }

    #[test]
    fn of_several_one_wins() {
        let directory = Directory::new();
        let path = directory.0.join("key");
        let made: Vec<bool> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8u8)
                .map(|n| {
                    let path = &path;
                    scope.spawn(move || {
                        let made = make_new(path, &[n; 4096], 0o600).unwrap();
                        assert_eq!(read(path).unwrap().len(), 4096, "whole at once");
                        made
                    })
                })
                .collect();
            tries.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
        assert_eq!(directory.names(), ["key"]);
    }

    /// `systemd/README.md` installs keys with 0640.
    #[test]
    fn a_group_may_read_a_key() {
        for (mode, open) in [(0o600, false), (0o400, false), (0o640, false), (0o644, true), (0o602, true)] {
            assert_eq!(is_open(0o100_000 | mode), open, "{mode:o}");
        }
    }

    #[test]
    fn reads_within_a_bound() {
        let directory = Directory::new();
        let path = directory.with("large", vec![b'x'; 1024 * 1024 + 1]);
        let error = read(&path).unwrap_err().to_string();
        assert!(error.ends_with("large: larger than 1 MiB"), "{error}");
        let error = read(&directory.0.join("none")).unwrap_err().to_string();
        assert!(error.contains("none: No such file"), "{error}");
    }
}
