//! Secrets that a variable of the environment holds.
use super::World;
use super::blank;
use super::entry::Entry;
use super::report::Complaint;
use crate::config::secret::Secret;

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
