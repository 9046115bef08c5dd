//! What must be so when nothing is on its way any more.
use crate::Verdict;
use crate::device::Seen;
use crate::faults::Store;
use crate::ledger::{Position, RoomRules};
use crate::nodes::Node;
use crate::run::Run;
use crate::view::View;
use std::collections::BTreeSet;
use std::sync::MutexGuard;

/// By how much the memory of a node may grow between two times of rest, in KiB: allocators and kept connections, but not
/// what a run of minutes would leave.
const GROWTH_MAX_KIB: u64 = 24 * 1024;

fn lock(view: &Seen) -> MutexGuard<'_, View> {
    view.lock().unwrap()
}

impl Run {
    /// Clients that must be in a room, by what their devices know.
    fn truth(&self, room: usize) -> BTreeSet<String> {
        let there = self.views.iter().map(lock).filter(|v| v.seats.get(&room).is_some_and(|seat| seat.joined));
        there.map(|view| view.client.clone()).collect()
    }

    fn room_name(&self, room: usize) -> String {
        self.court.ledger().rooms[room].name.clone()
    }

    /// Devices and nodes agree on everything; else what does not yet.
    pub async fn all_is_right(&self) -> Verdict {
        for view in &self.views {
            let view = lock(view);
            if !view.away {
                view.is_at_rest()?;
            }
        }
        let rooms = self.court.ledger().rooms.len();
        for room in 0..rooms {
            let mut heads = Vec::new();
            for node in &self.nodes {
                heads.extend(self.is_right_at(&*node.lock().await, room).await?);
            }
            if heads.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(format!("nodes have {} end at {heads:?}", self.room_name(room)));
            }
            self.devices_are_at(room, heads.first())?;
        }
        Ok(())
    }

    /// What a node says of a room: its members, its end, its history.
    async fn is_right_at(&self, node: &Node, room: usize) -> Verdict<Option<Position>> {
        let (name, truth) = (self.room_name(room), self.truth(room));
        let Some(shown) = node.ask(&format!("/api/rooms/{name}")).await? else {
            let unknown = || format!("{} does not know {name}, where {truth:?} are", node.name());
            return if truth.is_empty() { Ok(None) } else { Err(unknown()) };
        };
        let members = shown["members"].as_array().ok_or("no members")?;
        let members: BTreeSet<String> =
            members.iter().filter_map(|m| m["client_id"].as_str()).map(str::to_owned).collect();
        if members != truth || shown["count"] != truth.len() {
            let ghosts: Vec<_> = members.difference(&truth).collect();
            let missing: Vec<_> = truth.difference(&members).collect();
            let count = &shown["count"];
            return Err(format!(
                "{} shows {ghosts:?} in {name}, who have gone, and not {missing:?} ({count} in all)",
                node.name()
            ));
        }
        let head = Position::of(&shown)?;
        let history = node.ask(&format!("/api/rooms/{name}/history?since=0&limit=1000")).await?;
        let history = history.unwrap_or_default();
        let messages = history["messages"].as_array().map_or(&[][..], Vec::as_slice);
        self.court.ledger().check(room, &head, messages)?;
        Ok(Some(head))
    }

    /// Every device that is in the room has seen its last message, and believes what is so.
    fn devices_are_at(&self, room: usize, head: Option<&Position>) -> Verdict {
        let truth = self.truth(room);
        for view in &self.views {
            let view = lock(view);
            let Some(seat) = view.seats.get(&room).filter(|seat| seat.joined) else { continue };
            let (number, name) = (view.number, self.room_name(room));
            if seat.seen.as_ref() != head {
                return Err(format!("device {number} has seen {:?} of {name}, whose end is {head:?}", seat.seen));
            }
            let others = truth.iter().filter(|client| **client != view.client).cloned().collect::<BTreeSet<_>>();
            if let Some(believed) = seat.believed.as_ref().filter(|believed| **believed != others) {
                let wrong: Vec<_> = believed.symmetric_difference(&others).collect();
                return Err(format!("device {number} is wrong about {wrong:?} in {name}"));
            }
        }
        Ok(())
    }

    /// Resident KiB of the nodes that live: when their lives first came to rest, and now.
    pub fn memory(&self) -> Vec<(String, u64, u64)> {
        let mut memory = Vec::new();
        for node in &self.nodes {
            // A fault that was cut off may leave it dead.
            if let Some(mut node) = node.try_lock().ok().filter(|node| node.lives()) {
                let (first, now) = node.memory_kib();
                memory.push((node.name().to_owned(), first, now));
            }
        }
        memory
    }

    /// No node has grown beyond its bound since its life first came to rest.
    pub fn nothing_has_grown(&self) -> Verdict {
        match self.memory().into_iter().find(|(_, first, now)| *now > first + GROWTH_MAX_KIB) {
            Some((node, first, now)) => Err(format!("{node} has grown from {first} to {now} KiB")),
            None => Ok(()),
        }
    }

    /// All have left, and nodes hold nothing of them.
    pub async fn nothing_is_left(&self) -> Verdict {
        for node in &self.nodes {
            let node = node.lock().await;
            for gauge in ["wsgate_sessions", "wsgate_rooms", "wsgate_room_members", "wsgate_backlog_bytes"] {
                let value = node.gateway().metric(&format!("{gauge}{{"), &[]).await
                    + node.gateway().metric(&format!("{gauge} "), &[]).await;
                if value != 0.0 {
                    return Err(format!("{} has {gauge} {value} when all have left", node.name()));
                }
            }
        }
        Ok(())
    }
}

/// The last things that the clients were told, for whoever looks into a failure.
pub fn events_of(view: &Seen) -> String {
    let view = lock(view);
    view.events().map(|event| format!("{event}\n")).collect()
}

/// What of these keys would stay for good, or holds more than its bound: KEYS[1] is not used, ARGV are a pattern and
/// names of rooms with how much their streams may hold.
const LEFT_OVER: &str = r"
local wrong = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  if redis.call('PTTL', key) == -1 then wrong[#wrong + 1] = key .. ' never expires' end
end
for i = 2, #ARGV, 2 do
  local entries = redis.call('XLEN', ARGV[i])
  if entries > tonumber(ARGV[i + 1]) then wrong[#wrong + 1] = ARGV[i] .. ' has ' .. entries .. ' entries' end
end
return wrong";
/// Entries that a stream may hold: an eighth more than its bound, and a few, are cut off in one go.
const ENTRIES_MAX: fn(u64) -> u64 = |history| history + history / 8 + 16;

/// All that is kept of rooms in Redis goes by itself, and no history is beyond its bound.
pub async fn everything_expires(store: &Store, rooms: &[RoomRules]) -> Verdict {
    for redis in store.servers() {
        let mut words = vec!["EVAL".to_owned(), LEFT_OVER.into(), "0".into(), "chaos:{default/*".into()];
        if matches!(store, Store::One(_)) {
            for room in rooms {
                words.push(format!("chaos:{{default/{}}}:s", room.name));
                words.push(ENTRIES_MAX(room.history).to_string());
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let wrong = redis.ask(&words).await;
        if wrong.as_array().is_none_or(|wrong| !wrong.is_empty()) {
            return Err(format!("in Redis {wrong}"));
        }
    }
    Ok(())
}
