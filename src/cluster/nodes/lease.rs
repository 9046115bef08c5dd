//! Leases: by which nodes know that others live.
//!
//! A lease is a field of one hash: the node's name, with its id, a counter and what it says of itself. With each beat a
//! node writes its own, and reads all. One whose counter has not moved for [`Periods::lapse`] of the reader's own clock is
//! taken away by that reader, if it still stands as it stood: so a node is dead when its lease is gone, for all
//! alike, itself included, whoever noticed it. It takes a new id then.
use super::super::script::{Call, Reply, Script};
use super::{NodeId, NodeView};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Leases that are read; further ones are not seen.
const NODES_MAX: usize = 1024;
/// Bytes of a node's name.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of what a node says of itself.
pub(super) const ABOUT_BYTES_MAX: usize = 4096;

/// How often, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Periods {
    /// Between two beats.
    pub beat: Duration,
    /// How long a counter may stand still.
    pub lapse: Duration,
    /// How long Redis is tried at the start.
    pub start: Duration,
    /// How long Redis may be away before that is said.
    pub instant: Duration,
}

impl Default for Periods {
    fn default() -> Periods {
        let seconds = Duration::from_secs;
        Periods { beat: seconds(2), lapse: seconds(8), start: seconds(30), instant: seconds(1) }
    }
}

/// Takes away leases that have run out (from the fifth argument on: name, and how it stood), and renews the own one, or
/// makes it under the new id where none stands. All are told where a node has come or gone. Returns whose the name
/// is, and all leases, which are kept for a day where no node is left.
pub static BEAT: Script = Script::new(
    r"
local leases, channel = KEYS[1], KEYS[2]
local name, id, new_id, about = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local changed = false
for i = 5, #ARGV, 2 do
  local lease = redis.call('HGET', leases, ARGV[i])
  local stood = ARGV[i + 1] .. ' '
  if lease and string.sub(lease, 1, #stood) == stood then
    redis.call('HDEL', leases, ARGV[i])
    changed = true
  end
end
local lease = redis.call('HGET', leases, name)
local holder, count
if lease then
  holder, count = string.match(lease, '^(%x+) (%d+) ')
end
if holder == nil then
  holder, count, changed = new_id, 0, true
  redis.call('HSET', leases, name, holder .. ' 0 ' .. about)
elseif holder == id then
  redis.call('HSET', leases, name, id .. ' ' .. string.format('%.0f', count + 1) .. ' ' .. about)
end
redis.call('PEXPIRE', leases, 86400000)
if changed then
  redis.call('SPUBLISH', channel, 'look\n')
end
return {holder, redis.call('HGETALL', leases)}
",
);

/// Takes the own lease away.
pub static LEAVE: Script = Script::new(
    r"
local lease = redis.call('HGET', KEYS[1], ARGV[1])
if lease and string.sub(lease, 1, #ARGV[2] + 1) == ARGV[2] .. ' ' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('SPUBLISH', KEYS[2], 'look\n')
end
return 1
",
);

/// A lease, as it stands in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    name: Arc<str>,
    id: NodeId,
    count: u64,
    about: Arc<str>,
}

impl Lease {
    fn parse(name: &Reply, lease: &Reply) -> Option<Lease> {
        let name = name.text().filter(|name| name.len() <= NAME_BYTES_MAX)?;
        let mut words = lease.text()?.splitn(3, ' ');
        let (id, count, about) = (words.next()?, words.next()?, words.next()?);
        let parsed: (NodeId, u64) = (id.parse().ok()?, count.parse().ok()?);
        // One that is written in another way could never be taken away.
        let as_written = parsed.0.to_string() == id && parsed.1.to_string() == count;
        let about = Some(about).filter(|about| about.len() <= ABOUT_BYTES_MAX)?;
        as_written.then(|| Lease { name: name.into(), id: parsed.0, count: parsed.1, about: about.into() })
    }
}

/// What a beat has shown of the own lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// It stands.
    Renewed,
    /// It had run out, or none stood yet: it stands under a new id.
    New,
    /// Another process has the name. `moved`: its counter was seen to move.
    Taken { moved: bool },
}

/// A lease that was read, and when its counter was first seen to stand so.
struct Seen {
    lease: Lease,
    since: Duration,
}

/// The leases of all nodes, as this one has seen them.
pub(super) struct Leases {
    periods: Periods,
    name: Arc<str>,
    id: NodeId,
    /// The id that the next life would have.
    new_id: NodeId,
    seen: HashMap<Arc<str>, Seen>,
    /// Time in which leases were read. A pause of more than two beats does not count: there was no Redis, for others
    /// perhaps likewise, or this process stood still.
    clock: Duration,
    read_at: Option<Instant>,
}

impl Leases {
    pub(super) fn new(name: Arc<str>, periods: Periods) -> Leases {
        let (id, new_id) = (random_id(), random_id());
        Leases { periods, name, id, new_id, seen: HashMap::new(), clock: Duration::ZERO, read_at: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    /// The beat that is due.
    pub(super) fn beat(&self, keys: &[&[u8]; 2], about: &str) -> Call {
        let mut args = vec![self.name.to_string(), self.id.to_string(), self.new_id.to_string(), about.to_owned()];
        for seen in self.lapsed() {
            args.extend([seen.lease.name.to_string(), format!("{} {}", seen.lease.id, seen.lease.count)]);
        }
        Call::script(&BEAT, keys, &args.iter().map(String::as_bytes).collect::<Vec<_>>())
    }

    /// The call that ends the own lease.
    pub(super) fn leave(&self, keys: &[&[u8]; 2]) -> Call {
        Call::script(&LEAVE, keys, &[self.name.as_bytes(), self.id.to_string().as_bytes()])
    }

    /// Whether a lease has run out, so that another beat should follow at once.
    pub(super) fn any_lapsed(&self) -> bool {
        self.lapsed().next().is_some()
    }

    fn lapsed(&self) -> impl Iterator<Item = &Seen> {
        let ran_out = |seen: &&Seen| self.clock.saturating_sub(seen.since) >= self.periods.lapse;
        self.seen.values().filter(move |seen| seen.lease.id != self.id).filter(ran_out)
    }

    /// What a beat returned at this time; `None` where it makes no sense.
    pub(super) fn read(&mut self, now: Instant, reply: &Reply) -> Option<Own> {
        let [holder, leases] = reply.list()? else { return None };
        let holder: NodeId = holder.text()?.parse().ok()?;
        if let Some(passed) = self.read_at.map(|before| now.saturating_duration_since(before))
            && passed <= 2 * self.periods.beat
        {
            self.clock += passed;
        }
        self.read_at = Some(now);
        let mut before = std::mem::take(&mut self.seen);
        let mut own = Own::Taken { moved: false };
        for pair in leases.list()?.chunks_exact(2).take(NODES_MAX) {
            let Some(lease) = Lease::parse(&pair[0], &pair[1]) else { continue };
            let before = before.remove(&lease.name).filter(|seen| seen.lease.id == lease.id);
            let stands = before.as_ref().is_some_and(|seen| seen.lease.count == lease.count);
            if before.is_some() && !stands && lease.name == self.name {
                own = Own::Taken { moved: true };
            }
            let since = before.filter(|_| stands).map_or(self.clock, |seen| seen.since);
            self.seen.insert(lease.name.clone(), Seen { lease, since });
        }
        if holder == self.id {
            own = Own::Renewed;
        } else if holder == self.new_id {
            (self.id, self.new_id) = (self.new_id, random_id());
            own = Own::New;
        }
        Some(own)
    }

    /// The nodes that live, in the order of their names.
    pub(super) fn nodes(&self) -> Vec<NodeView> {
        let view =
            |Lease { name, id, about, .. }: &Lease| NodeView { id: *id, name: name.clone(), about: about.clone() };
        let mut nodes: Vec<NodeView> = self.seen.values().map(|seen| view(&seen.lease)).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }
}

fn random_id() -> NodeId {
    NodeId(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "edge-1";

    fn leases() -> (Leases, Instant) {
        (Leases::new(NAME.into(), Periods::default()), Instant::now())
    }

    /// What a beat returns: whose the own name is, and the leases.
    fn reply(holder: NodeId, leases: &[(&str, NodeId, u64)]) -> Reply {
        let text = |text: String| Reply::Text(text.into());
        let pair = |(name, id, count): &(&str, NodeId, u64)| {
            [text((*name).to_owned()), text(format!("{id} {count} {{\"phase\": \"ready\"}}"))]
        };
        Reply::List(vec![text(holder.to_string()), Reply::List(leases.iter().flat_map(pair).collect())])
    }

    fn names(leases: &Leases) -> Vec<String> {
        leases.nodes().iter().map(|node| node.name.to_string()).collect()
    }

    fn lapsed(leases: &Leases) -> Vec<String> {
        leases.lapsed().map(|seen| format!("{} {}", seen.lease.name, seen.lease.count)).collect()
    }

    fn seconds(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_counter_that_stands_still_for_8_s_has_run_out() {
        let (mut leases, start) = leases();
        let other = NodeId(7);
        for beat in 0..6 {
            let now = seconds(start, 2 * beat);
            // It moves once more at 2 s, and the own one never: that is no matter.
            let count = beat.min(1);
            let own = leases.id();
            assert!(lapsed(&leases).is_empty(), "at {now:?}");
            assert_eq!(leases.read(now, &reply(own, &[(NAME, own, 5), ("b", other, count)])), Some(Own::Renewed));
        }
        assert_eq!(lapsed(&leases), ["b 1"]);
        let beat = leases.beat(&[b"l", b"c"], "{}").bytes;
        let beat = String::from_utf8_lossy(&beat);
        assert!(beat.ends_with("$1\r\nb\r\n$18\r\n0000000000000007 1\r\n"), "{beat:?}");
        // It lives all the same until that was carried out, and where it has moved meanwhile.
        assert_eq!(names(&leases), ["b", NAME]);
        let own = leases.id();
        leases.read(seconds(start, 11), &reply(own, &[("b", other, 2)]));
        assert!(lapsed(&leases).is_empty());
        leases.read(seconds(start, 13), &reply(own, &[(NAME, own, 6)]));
        assert_eq!(names(&leases), [NAME]);
    }

    #[test]
    fn time_without_redis_does_not_count() {
        let (mut leases, start) = leases();
        let own = leases.id();
        let all = reply(own, &[(NAME, own, 1), ("b", NodeId(7), 1)]);
        for time in [0, 2, 4, 104, 106, 107] {
            leases.read(seconds(start, time), &all);
            assert!(lapsed(&leases).is_empty(), "{time}");
        }
        // 4 s before, and 4 s after it.
        leases.read(seconds(start, 108), &all);
        assert_eq!(lapsed(&leases).len(), 1);
    }

    #[test]
    fn another_id_under_a_name_is_another_node() {
        let (mut leases, start) = leases();
        let own = leases.id();
        leases.read(seconds(start, 0), &reply(own, &[("b", NodeId(7), 1)]));
        for time in [4, 8] {
            leases.read(seconds(start, time), &reply(own, &[("b", NodeId(8), 1)]));
        }
        assert!(lapsed(&leases).is_empty(), "that one has stood for 4 s");
        assert_eq!(leases.nodes()[0].id, NodeId(8));
    }

    #[test]
    fn a_lease_that_had_run_out_stands_under_a_new_id() {
        let (mut leases, start) = leases();
        let (own, new) = (leases.id(), leases.new_id);
        assert_eq!(leases.read(start, &reply(new, &[(NAME, new, 0)])), Some(Own::New));
        assert!(leases.id() == new && leases.new_id != new && leases.new_id != own);
        assert_eq!(leases.read(start, &reply(new, &[(NAME, new, 1)])), Some(Own::Renewed));
    }

    #[test]
    fn a_name_of_another_process_is_taken_when_its_lease_has_run_out() {
        let (mut leases, start) = leases();
        let other = NodeId(7);
        for time in [0, 4, 8] {
            assert!(lapsed(&leases).is_empty());
            let taken = leases.read(seconds(start, time), &reply(other, &[(NAME, other, 3)]));
            assert_eq!(taken, Some(Own::Taken { moved: false }));
        }
        assert_eq!(lapsed(&leases), [format!("{NAME} 3")]);
        let moved = leases.read(seconds(start, 9), &reply(other, &[(NAME, other, 4)]));
        assert_eq!(moved, Some(Own::Taken { moved: true }));
    }

    #[test]
    fn what_makes_no_sense_is_no_lease() {
        let (mut leases, start) = leases();
        let text = |text: &str| Reply::Text(text.to_owned().into());
        let pair = |lease: &str| [text("b"), text(lease)];
        let holder = leases.id().to_string();
        for lease in ["", "x", "7 1 {}", "0000000000000007 +1 {}", "0000000000000007 1", "000000000000000g 1 {}"] {
            leases.read(start, &Reply::List(vec![text(&holder), Reply::List(pair(lease).to_vec())]));
            assert_eq!(names(&leases), [""; 0], "{lease}");
        }
        leases.read(start, &Reply::List(vec![text(&holder), Reply::List(pair("0000000000000007 1 ").to_vec())]));
        assert_eq!(names(&leases), ["b"]);
        for reply in [Reply::Nil, Reply::List(vec![]), Reply::List(vec![text("x"), Reply::List(vec![])])] {
            assert_eq!(leases.read(start, &reply), None);
        }
    }
}
