//! `[admin]`.
use super::World;
use super::entry::Entry;
use super::listener;
use super::report::{Complaint, Place};
use super::secret;
use super::table::Table;
use crate::config::Admin;
use crate::config::secret::Secret;

/// The interface with the place of its address; `None` where the table or its address is missing.
pub(super) fn read(table: &Table, world: &World) -> Option<(Admin, Option<Place>)> {
    if !table.is_present() {
        return None;
    }
    let token_file = table.entry("token_file");
    let token = token_file.as_ref().and_then(|e| token(e, world));
    let Some(entry) = table.entry("address") else {
        table.missing("address", Some("write it as in address = \"127.0.0.1:9180\""));
        return None;
    };
    let addresses = listener::addresses(&entry, world)?;
    if token_file.is_none() && !addresses.iter().all(|a| a.ip().is_loopback()) {
        let help = "listen on 127.0.0.1, or set `token_file`";
        entry.complain(Complaint::new("without a token the admin interface must have a loopback address").help(help));
    }
    // `localhost` stands for `::1` too, which not every machine has.
    let address = addresses.iter().find(|a| a.is_ipv4()).or(addresses.first())?;
    Some((Admin { address: *address, token }, Some(entry.place())))
}

/// Reads the file of `admin.token_file`.
fn token(entry: &Entry, world: &World) -> Option<Secret> {
    let (token, path) = secret::from_file(entry, world, "a token")?;
    if !token.expose().is_empty() && token.expose().iter().all(u8::is_ascii_graphic) {
        return Some(token);
    }
    let message = format!("`{}` must hold one word of visible ASCII characters", path.display());
    entry.complain(Complaint::new(message));
    None
}
