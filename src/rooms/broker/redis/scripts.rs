//! What Redis is asked to do with a room, each in one step.
use super::room::Seen;
use super::wire;
use crate::cluster::{Call, NodeId, Script};
use crate::config::{self, Duplicates};
use crate::rooms::broker::{Batch, Publication};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::Duration;

macro_rules! over_a_count {
    ($name:literal) => {
        Script::new(concat!(include_str!("scripts/meta.lua"), include_str!(concat!("scripts/", $name, ".lua"))))
    };
}

static PUBLISH: Script = over_a_count!("publish");
static READ: Script = over_a_count!("read");
static SYNC: Script = Script::new(concat!(
    include_str!("scripts/meta.lua"),
    include_str!("scripts/fields.lua"),
    include_str!("scripts/sync.lua")
));
static PAGE: Script = Script::new(concat!(include_str!("scripts/fields.lua"), include_str!("scripts/page.lua")));
static CHECK: Script = over_a_count!("check");
static HOLD: Script = Script::new(include_str!("scripts/hold.lua"));
static CLEAR: Script = Script::new(include_str!("scripts/clear.lua"));

/// All of them, to be loaded by every connection.
pub static SCRIPTS: [&Script; 7] = [&PUBLISH, &READ, &SYNC, &PAGE, &CHECK, &HOLD, &CLEAR];

/// Bytes of messages that are read at once, whatever is asked for.
pub const READ_BYTES_MAX: usize = 8 << 20;
/// Fields of a presence that are read at once, about.
pub const PAGE_FIELDS: usize = 1000;
/// How much longer than it is of use a count is kept at least.
const SPARE_MIN: Duration = Duration::from_secs(600);

/// What decides how long keys are kept.
pub struct Keeping {
    duplicates: Duplicates,
    spare: Duration,
}

impl Keeping {
    /// For a shard with so many rooms, so many of which are checked in a second: keys must outlive several rounds.
    pub fn new(duplicates: Duplicates, rooms: usize, checks: usize) -> Keeping {
        let spare = SPARE_MIN.max(Duration::from_secs(4 * (rooms / checks) as u64));
        Keeping { duplicates, spare }
    }
}

/// How long what is kept of a room outlives its last check: epoch and offset stand for the age of the history.
fn time_to_live(history: &config::History, keeping: &Keeping) -> Duration {
    history.age.max(keeping.duplicates.age) + keeping.spare
}

/// The keys of a room by the channel, which is the beginning of their names.
fn key(channel: &[u8], suffix: &str) -> Vec<u8> {
    [channel, suffix.as_bytes()].concat()
}

/// Names a count that nobody has seen.
fn new_epoch() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

fn ms(time: Duration) -> String {
    time.as_millis().to_string()
}

/// Bounds of a history, as scripts take them; where one of them is 0 nothing is kept at all.
fn bounds(history: &config::History) -> [String; 3] {
    let messages = if history.bytes == 0 || history.age.is_zero() { 0 } else { history.messages };
    [messages.to_string(), history.bytes.to_string(), ms(history.age)]
}

/// Gives a message its place.
pub fn publish(
    channel: &[u8],
    seen: &Seen,
    history: &config::History,
    keeping: &Keeping,
    publication: &Publication,
) -> Call {
    let (count, stream) = (key(channel, ":m"), key(channel, ":s"));
    let known_again = publication.named && !keeping.duplicates.age.is_zero() && keeping.duplicates.per_client > 0;
    let name = known_again.then(|| key(channel, &format!(":d:{}", wire::name_hash(publication))));
    let mut keys = vec![&*count, &*stream, channel];
    keys.extend(name.as_deref());
    let [offset, told, at] = [seen.offset, seen.told, seen.at].map(|n| n.to_string());
    let looks = if seen.looks { "1" } else { "0" };
    let [messages, bytes, age] = bounds(history);
    let (epoch, ttl, names) = (new_epoch(), ms(time_to_live(history, keeping)), ms(keeping.duplicates.age));
    let body = wire::publication(publication);
    let args = [&*seen.epoch, &offset, &told, &at, looks, &epoch, &ttl, &messages, &bytes, &age, &names];
    let args = args.map(str::as_bytes);
    Call::script(&PUBLISH, &keys, &[&args[..], &[&body]].concat())
}

/// Reads messages after an offset.
pub fn read(channel: &[u8], after: u64, batch: Batch, history: &config::History) -> Call {
    let [messages, bytes, age] = bounds(history);
    let most = [after.to_string(), batch.messages.to_string(), batch.bytes.min(READ_BYTES_MAX).to_string()];
    let args = [&*most[0], &most[1], &most[2], &messages, &bytes, &age].map(str::as_bytes);
    Call::script(&READ, &[&key(channel, ":m"), &key(channel, ":s")], &args)
}

/// Learns how a room stands, and who is there: the first page of it.
pub fn sync(channel: &[u8], seen: Option<&Seen>, history: &config::History, keeping: &Keeping) -> Call {
    let (epoch, numbers) = seen.map_or(("", [0; 3]), |seen| (&*seen.epoch, [seen.offset, seen.told, seen.at]));
    let [offset, told, at] = numbers.map(|n| n.to_string());
    let (new, ttl, most) = (new_epoch(), ms(time_to_live(history, keeping)), PAGE_FIELDS.to_string());
    let args = [epoch, &offset, &told, &at, &new, &ttl, &most].map(str::as_bytes);
    Call::script(&SYNC, &[&key(channel, ":m"), &key(channel, ":s"), &key(channel, ":p")], &args)
}

/// Reads on who is there, from where the last page has ended.
pub fn page(channel: &[u8], place: u64) -> Call {
    let args = [place.to_string(), PAGE_FIELDS.to_string()];
    Call::script(&PAGE, &[&key(channel, ":p")], &[args[0].as_bytes(), args[1].as_bytes()])
}

/// Looks whether a room stands as it is known to.
pub fn check(channel: &[u8], history: &config::History, keeping: &Keeping) -> Call {
    let ttl = ms(time_to_live(history, keeping));
    Call::script(&CHECK, &[&key(channel, ":m"), &key(channel, ":p")], &[ttl.as_bytes()])
}

/// Changes what stands of nodes in a room: fields with their values, `None` for those that are to go.
pub fn hold(
    channel: &[u8],
    changes: &[(String, Option<String>)],
    history: &config::History,
    keeping: &Keeping,
) -> Call {
    let ttl = ms(time_to_live(history, keeping));
    let changes = changes.iter().flat_map(|(field, value)| [&**field, value.as_deref().unwrap_or_default()]);
    let args: Vec<&[u8]> = [&*ttl].into_iter().chain(changes).map(str::as_bytes).collect();
    Call::script(&HOLD, &[&key(channel, ":p"), channel], &args)
}

/// Takes out what this node still holds in a room that it has left.
pub fn clear(channel: &[u8], node: NodeId) -> Call {
    Call::script(&CLEAR, &[&key(channel, ":p"), channel], &[node.to_string().as_bytes()])
}

/// Tells the nodes that have a room open.
pub fn tell(channel: &[u8], told: &[u8]) -> Call {
    Call::command(channel, &[b"SPUBLISH", channel, told])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_outlive_a_round_of_checks_however_many_rooms_there_are() {
        let duplicates = Duplicates { age: Duration::from_secs(60), per_client: 1 };
        let history = config::History { messages: 1, age: Duration::from_secs(30), bytes: 1 };
        let kept = |rooms| time_to_live(&history, &Keeping::new(duplicates, rooms, 500)).as_secs();
        assert_eq!((kept(0), kept(75_000), kept(1_000_000)), (660, 660, 8060));
    }
}
