//! Secrets that a variable of the environment holds, or a file.
use super::World;
use super::blank;
use super::entry::Entry;
use super::report::Complaint;
use crate::config::secret::Secret;
use std::path::PathBuf;

const FILE_BYTES_MAX: u64 = 64 << 10;

/// The secret in the variable that the value names, of at least `bytes_min` bytes; `example` is the name of such a
/// variable.
pub(super) fn from_env(entry: &Entry, world: &World, bytes_min: usize, example: &str) -> Option<Secret> {
    entry.convert(|name| {
        let value = if name.is_empty() || name.contains(['=', '\0']) { None } else { (world.env)(name) };
        match value {
            Some(value) if value.is_empty() => {
                Err(Complaint::new(format!("the environment variable `{name}` is empty")))
            }
            Some(value) if value.len() < bytes_min => {
                let message = format!(
                    "the secret in the environment variable `{name}` has {} bytes; at least {bytes_min} are needed",
                    value.len()
                );
                Err(Complaint::new(message).help("make one with: openssl rand -base64 48"))
            }
            Some(value) => Ok(Secret::new(value)),
            None if blank::is_variable(name) => {
                Err(Complaint::new(format!("the environment variable `{name}` is not set")))
            }
            None => {
                let help =
                    format!("`{}` takes the name of a variable, as in \"{example}\", not the secret", entry.key());
                Err(Complaint::new("the environment variable that is named here is not set").help(help))
            }
        }
    })
}

/// What the file that the value names holds, without the white space around it, and the file. `what` is what it should
/// hold, for messages.
pub(super) fn from_file(entry: &Entry, world: &World, what: &str) -> Option<(Secret, PathBuf)> {
    let path = entry.path(&world.folder)?;
    // A pipe or a device would keep the reader waiting, or never end.
    let message = match std::fs::metadata(&path) {
        Ok(meta) if !meta.is_file() => format!("`{}` is not a file", path.display()),
        Ok(meta) if meta.len() > FILE_BYTES_MAX => format!("`{}` is too large for {what}", path.display()),
        _ => match std::fs::read(&path) {
            Err(e) => format!("`{}` cannot be read: {e}", path.display()),
            Ok(bytes) => return Some((Secret::new(bytes.trim_ascii()), path)),
        },
    };
    entry.complain(Complaint::new(message));
    None
}
