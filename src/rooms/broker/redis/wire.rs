//! What goes through Redis: written by nodes, and not trusted when it comes back.
use crate::cluster::{NodeId, Reply};
use crate::identity::is_client;
use crate::rooms::broker::{Elsewhere, Held, Publication, Telling};
use crate::rooms::protocol::NAME_MAX;
use crate::rooms::statuses::Said;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::value::RawValue;
use std::sync::Arc;

/// The longest epoch that is taken.
const EPOCH_BYTES_MAX: usize = 64;

/// Offsets, times and versions stay below this: where Lua writes numbers whole.
const NUMBER_MAX: u64 = 100_000_000_000_000;

/// What came over the channel of a room.
pub enum Pushed<'a> {
    /// A message at its place.
    Message(&'a str, Entry<'a>),
    /// What nodes hold has changed, and this is the presence's version by that.
    Presence(u64, Vec<Elsewhere>),
    /// A node tells something.
    Told(NodeId, Telling),
}

/// A message as it stands in the stream.
pub struct Entry<'a> {
    /// Its offset.
    pub offset: u64,
    /// When it got it, in milliseconds since 1970.
    pub at: u64,
    /// A [`publication`].
    pub body: &'a [u8],
}

impl Entry<'_> {
    /// When it got its place.
    pub fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(i64::try_from(self.at).ok()?).ok()
    }
}

/// A message on its way, for Redis: the lengths of its sender (`-`: nobody) and its name, then both, and the message.
pub fn publication(publication: &Publication) -> Vec<u8> {
    let Publication { sender, message_id, message, named: _ } = publication;
    let length = sender.as_ref().map_or_else(|| "-".into(), |sender| sender.len().to_string());
    let head = format!("{length} {}\n", message_id.len());
    let parts = [&*head, sender.as_deref().unwrap_or_default(), message_id, message.get()];
    parts.concat().into_bytes()
}

/// Reads it back.
pub fn read_publication(body: &[u8]) -> Option<Publication> {
    let (head, rest) = std::str::from_utf8(body).ok()?.split_once('\n')?;
    let (sender, id) = head.split_once(' ')?;
    let sender = if sender == "-" { None } else { Some(sender.parse().ok()?) };
    let (from, rest) = rest.split_at_checked(sender.unwrap_or(0))?;
    let (message_id, message) = rest.split_at_checked(id.parse().ok()?)?;
    if from.len() > NAME_MAX || message_id.len() > NAME_MAX {
        return None;
    }
    let message = RawValue::from_string(message.into()).ok()?;
    Some(Publication { sender: sender.map(|_| from.into()), message_id: message_id.into(), named: true, message })
}

/// Names a message among all of a room: the same on every node, and nobody finds two that have it.
pub fn name_hash(publication: &Publication) -> String {
    let sender = publication.sender.as_deref().unwrap_or_default();
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    hash.update(&sender.len().to_le_bytes());
    hash.update(sender.as_bytes());
    hash.update(publication.message_id.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash.finish().as_ref()[..16])
}

/// What came over a channel; `None`: nothing that a node says.
pub fn read_pushed(payload: &[u8]) -> Option<Pushed<'_>> {
    let (kind, rest) = payload.split_first()?;
    match kind {
        b'm' => {
            let (epoch, rest) = word(rest)?;
            let (offset, rest) = number(rest)?;
            let (at, body) = number(rest)?;
            (is_epoch(epoch) && offset > 0).then_some(Pushed::Message(epoch, Entry { offset, at, body }))
        }
        b'p' => {
            let (version, mut rest) = number(rest)?;
            let mut changes = Vec::new();
            while !rest.is_empty() {
                let (field, after) = number(rest)?;
                let (value, after) = number(after)?;
                let (field, after) = after.split_at_checked(usize::try_from(field).ok()?)?;
                let (value, after) = after.split_at_checked(usize::try_from(value).ok()?)?;
                let (node, client) = read_field(field)?;
                let held = if value.is_empty() { None } else { Some(read_held(value)?) };
                changes.push((node, client, held));
                rest = after;
            }
            Some(Pushed::Presence(version, changes))
        }
        b't' => {
            let (node, rest) = word(rest)?;
            let (start, client) = number(rest)?;
            Some(Pushed::Told(node.parse().ok()?, Telling::Typing { client: name(client)?, start: start == 1 }))
        }
        b'r' => {
            let (node, rest) = word(rest)?;
            let (offset, client) = number(rest)?;
            Some(Pushed::Told(node.parse().ok()?, Telling::Receipt { client: name(client)?, offset }))
        }
        _ => None,
    }
}

/// What a node tells the others.
pub fn telling(node: NodeId, telling: &Telling) -> String {
    match telling {
        Telling::Typing { client, start } => format!("t{node} {} {client}", u8::from(*start)),
        Telling::Receipt { client, offset } => format!("r{node} {offset} {client}"),
    }
}

/// The name under which a node's part of a client stands in a room's presence.
pub fn field(node: NodeId, client: &str) -> String {
    format!("{node} {client}")
}

/// Reads it back.
pub fn read_field(field: &[u8]) -> Option<(NodeId, Arc<str>)> {
    let (node, client) = word(field)?;
    Some((node.parse().ok().filter(|_| node.len() == 16)?, name(client)?))
}

/// What stands there: sessions, since when (in milliseconds), and what the client says of itself, with its version and
/// since when (in microseconds).
pub fn held(held: &Held) -> String {
    let Held { sessions, since, said } = held;
    let since = since.as_millisecond();
    match said {
        None => format!("{sessions} {since}"),
        Some(said) => {
            let Said { status, since: said_since, version } = &**said;
            // As exact as what nodes tell each other of it: it decides which of two is newer.
            format!("{sessions} {since} {version} {} {}", said_since.as_microsecond(), status.as_str())
        }
    }
}

/// Reads it back.
pub fn read_held(value: &[u8]) -> Option<Held> {
    let mut words = std::str::from_utf8(value).ok()?.splitn(5, ' ');
    let sessions = words.next()?.parse().ok().filter(|sessions| *sessions > 0)?;
    let since = read_time(words.next()?)?;
    let Some(version) = words.next() else { return Some(Held { sessions, since, said: None }) };
    let said = Said::read(version.parse().ok()?, words.next()?.parse().ok()?, words.next()?)?;
    Some(Held { sessions, since, said: Some(Arc::new(said)) })
}

/// Whether this may be an epoch: it goes to clients as it is.
pub fn is_epoch(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    (1..=EPOCH_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// An epoch of a reply.
pub fn read_epoch(reply: &Reply) -> Option<&str> {
    reply.text().filter(|text| is_epoch(text))
}

/// A number of a reply: an offset, a time, a version.
pub fn read_number(reply: &Reply) -> Option<u64> {
    u64::try_from(reply.int()?).ok().filter(|number| *number < NUMBER_MAX)
}

/// Some of what stands in a room's presence.
pub struct Page<'a> {
    /// The presence's version.
    pub version: u64,
    /// Where it goes on; 0: this was all.
    pub next: u64,
    /// Fields and values in turn.
    pub records: &'a [Reply],
}

/// A page of a presence, of a reply.
pub fn read_page(reply: &Reply) -> Option<Page<'_>> {
    match reply.list()? {
        [version, next, records] => {
            let next = next.text()?.parse().ok()?;
            Some(Page { version: read_number(version)?, next, records: records.list()? })
        }
        _ => None,
    }
}

fn read_time(ms: &str) -> Option<Timestamp> {
    Timestamp::from_millisecond(ms.parse().ok()?).ok()
}

fn name(text: &[u8]) -> Option<Arc<str>> {
    let text = std::str::from_utf8(text).ok()?;
    is_client(text).then(|| text.into())
}

/// What stands before the next blank, and what behind it.
fn word(text: &[u8]) -> Option<(&str, &[u8])> {
    let blank = text.iter().take(EPOCH_BYTES_MAX + 1).position(|b| *b == b' ')?;
    Some((std::str::from_utf8(&text[..blank]).ok()?, &text[blank + 1..]))
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let (word, rest) = word(text)?;
    Some((word.parse().ok().filter(|number| *number < NUMBER_MAX)?, rest))
}
