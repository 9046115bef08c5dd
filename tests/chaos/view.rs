//! What one device has asked, and what it has been made to believe. Everything that it is told is judged here.
use crate::court::Court;
use crate::ledger::{Ledger, Position};
use crate::{Dice, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// By when everything that is asked over a socket that lives is answered, if only by a refusal.
const ANSWER_MAX: Duration = Duration::from_secs(25);
/// What is kept to look into a failure.
const EVENTS_KEPT: usize = 400;
/// Messages that have their place and are sent again.
const REMEMBERED: usize = 12;
/// Less than the gateway remembers their names.
const REMEMBERED_FOR: Duration = Duration::from_secs(120);
/// What is refused for the moment is tried again after so many milliseconds.
const AGAIN_MS: (u64, u64) = (100, 600);

/// A device's place in a room.
#[derive(Default)]
pub struct Seat {
    /// Whether it wants to be there.
    pub wanted: bool,
    pub joined: bool,
    /// It has asked to join or to leave.
    asking: bool,
    again: Option<Instant>,
    /// The last message that it has seen.
    pub seen: Option<Position>,
    /// The others, by what it has been told since it asked for the members.
    pub believed: Option<BTreeSet<String>>,
}

enum What {
    Join { since: Option<Position> },
    Leave,
    Publish(usize),
    Members,
}

struct Asked {
    what: What,
    room: usize,
    at: Instant,
}

/// A message without a place yet.
struct Open {
    message: usize,
    again: Option<Instant>,
}

pub struct View {
    pub number: usize,
    pub client: String,
    /// It has a socket, and was greeted there.
    pub online: bool,
    /// It stays away until the next round.
    pub away: bool,
    pub seats: BTreeMap<usize, Seat>,
    asked: BTreeMap<String, Asked>,
    open: BTreeMap<String, Open>,
    done: VecDeque<(usize, Instant)>,
    names: usize,
    dice: Dice,
    pub out: Vec<String>,
    events: VecDeque<String>,
    began: Instant,
}

impl View {
    pub fn new(number: usize, client: String, dice: Dice) -> View {
        View {
            number,
            client,
            online: false,
            away: false,
            seats: BTreeMap::new(),
            asked: BTreeMap::new(),
            open: BTreeMap::new(),
            done: VecDeque::new(),
            names: 0,
            dice,
            out: Vec::new(),
            events: VecDeque::new(),
            began: Instant::now(),
        }
    }

    pub fn event(&mut self, what: String) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(format!("{:9.3} {what}", self.began.elapsed().as_secs_f64()));
    }

    pub fn events(&self) -> impl Iterator<Item = &String> {
        self.events.iter()
    }

    /// The socket is gone, and with it all that was asked over it.
    pub fn lost(&mut self, why: &str) {
        self.event(format!("lost: {why}"));
        self.online = false;
        self.out.clear();
        self.asked.clear();
        for open in self.open.values_mut() {
            open.again = None;
        }
        for seat in self.seats.values_mut() {
            *seat = Seat { wanted: seat.wanted, seen: seat.seen.take(), ..Seat::default() };
        }
    }

    pub fn has_all_said(&self) -> bool {
        self.open.is_empty()
    }

    /// It is where it wants to be, and nothing is on its way.
    pub fn is_at_rest(&self) -> Verdict {
        let settled = self.seats.values().all(|seat| seat.joined == seat.wanted);
        match self.online && settled && self.asked.is_empty() && self.open.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "device {} (online: {}) waits for {} answers and for places of {} messages; in its rooms: {settled}",
                self.number,
                self.online,
                self.asked.len(),
                self.open.len()
            )),
        }
    }

    fn ask(&mut self, kind: &str, what: What, room: usize, id: String, mut payload: Value, ledger: &Ledger) {
        payload["room_id"] = json!(ledger.rooms[room].name);
        self.event(format!("asks {kind} {id} {} since {}", payload["room_id"], payload["since"]));
        self.out.push(json!({"type": kind, "payload": payload, "metadata": {"message_id": id}}).to_string());
        self.asked.insert(id, Asked { what, room, at: Instant::now() });
    }

    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}{}-{}", self.number, self.names)
    }

    fn join(&mut self, room: usize, ledger: &Ledger) {
        let seat = self.seats.entry(room).or_default();
        (seat.wanted, seat.asking, seat.again) = (true, true, None);
        let since = seat.seen.clone();
        let mut payload = json!({});
        if let Some(Position { epoch, offset }) = &since {
            payload["since"] = json!({"epoch": **epoch, "offset": offset});
        }
        let id = self.name("j");
        self.ask("join_room", What::Join { since }, room, id, payload, ledger);
    }

    pub fn members(&mut self, room: usize, ledger: &Ledger) {
        let id = self.name("q");
        self.ask("room_members", What::Members, room, id, json!({}), ledger);
    }

    pub fn leave(&mut self, room: usize, ledger: &Ledger) {
        let seat = self.seats.get_mut(&room).unwrap();
        (seat.wanted, seat.asking) = (false, true);
        let id = self.name("l");
        self.ask("leave_room", What::Leave, room, id, json!({}), ledger);
    }

    fn publish(&mut self, message: usize, ledger: &mut Ledger) {
        let (room, id) = (ledger.message(message).room, ledger.message(message).id.clone());
        if self.asked.contains_key(&id) {
            return;
        }
        ledger.sent(message);
        let body = json!({"message": ledger.body(message)});
        self.ask("message", What::Publish(message), room, id, body, ledger);
    }

    /// What is due by time: joins and messages that were refused, and what was lost with a socket.
    pub fn go_on(&mut self, court: &Court) -> Verdict {
        let now = Instant::now();
        if let Some((id, asked)) = self.asked.iter().find(|(_, asked)| now - asked.at > ANSWER_MAX) {
            return Err(format!("{id} has no answer after {:?}", now - asked.at));
        }
        let mut ledger = court.ledger();
        let due = |again: Option<Instant>| again.is_none_or(|at| at <= now);
        let joins = self.seats.iter().filter(|(_, s)| s.wanted && !s.joined && !s.asking && due(s.again));
        for room in joins.map(|(room, _)| *room).collect::<Vec<_>>() {
            self.join(room, &ledger);
        }
        let is_in = |message: usize| {
            self.seats.get(&ledger.message(message).room).is_some_and(|seat| seat.joined && seat.wanted)
        };
        let ready = self.open.values().filter(|open| due(open.again) && is_in(open.message));
        for message in ready.map(|open| open.message).collect::<Vec<_>>() {
            self.publish(message, &mut ledger);
        }
        // What is to be said in a room that it has left brings it back.
        let rooms: BTreeSet<usize> = self.open.values().map(|open| ledger.message(open.message).room).collect();
        for room in rooms {
            self.seats.entry(room).or_default().wanted |= !self.seats[&room].asking;
        }
        Ok(())
    }

    /// Whether the device may do as it likes in some room, and in which.
    fn some_room(&mut self) -> Option<usize> {
        let free = self.seats.iter().filter(|(_, seat)| seat.joined && seat.wanted && !seat.asking);
        let free: Vec<usize> = free.map(|(room, _)| *room).collect();
        self.dice.pick(&free)
    }

    /// Something that clients do. Whether it drops its socket.
    pub fn act(&mut self, court: &Court) -> Option<Drop> {
        let mut ledger = court.ledger();
        match self.dice.below(1000) {
            0..=779 => {
                let room = self.some_room()?;
                let (id, pad) = (self.name("m"), if self.dice.percent(5) { 3000 } else { self.dice.below(60) });
                let message = ledger.write(room, &self.client, &id, pad);
                self.open.insert(id, Open { message, again: None });
                self.publish(message, &mut ledger);
            }
            780..=839 => {
                let (message, at) = self.dice.pick(self.done.make_contiguous())?;
                let known = at.elapsed() < REMEMBERED_FOR;
                if known && self.seats.get(&ledger.message(message).room).is_some_and(|s| s.joined && s.wanted) {
                    // Where Redis was emptied it gets another place, perhaps before its answer is lost.
                    let id = ledger.message(message).id.clone();
                    self.open.entry(id).or_insert(Open { message, again: None });
                    self.publish(message, &mut ledger);
                }
            }
            840..=899 => {
                let room = self.some_room()?;
                self.members(room, &ledger);
            }
            900..=924 => {
                let room = self.some_room()?;
                let says = |o: &Open| ledger.message(o.message).room == room;
                if !self.open.values().any(says) {
                    self.leave(room, &ledger);
                }
            }
            925..=964 => {
                let room = self.dice.below(ledger.rooms.len());
                let seat = self.seats.entry(room).or_default();
                seat.wanted |= !seat.asking;
            }
            965..=984 => return Some(Drop::Cut),
            985..=991 => return Some(Drop::Close),
            992..=994 => return Some(Drop::Dead),
            _ => (),
        }
        None
    }

    /// Judges a message of the gateway.
    pub fn hear(&mut self, text: &str, court: &Court) -> Verdict {
        let message: Value = serde_json::from_str(text).map_err(|e| format!("{e} in {text}"))?;
        self.event(format!("hears {}", &text[..text.floor_char_boundary(260)]));
        let kind = message["type"].as_str().unwrap_or_default().to_owned();
        match message["metadata"]["correlation_id"].as_str() {
            Some(id) => {
                let asked = self.asked.remove(id).ok_or_else(|| format!("an answer to nothing: {text}"))?;
                self.answer(&kind, asked, &message["payload"], court)
            }
            None => self.push(&kind, &message, court),
        }
        .map_err(|e| format!("{e}: {text}"))
    }

    fn answer(&mut self, kind: &str, asked: Asked, payload: &Value, court: &Court) -> Verdict {
        let Asked { what, room, .. } = asked;
        match (kind, what) {
            ("error", what) => self.refused(what, room, payload, court),
            ("room_joined", What::Join { since }) => self.joined(room, since, payload, court),
            ("room_left", What::Leave) => {
                court.count("left");
                self.left(room);
                Ok(())
            }
            ("message_sent", What::Publish(message)) => self.accepted(message, payload, court),
            ("room_members", What::Members) => self.told_members(room, payload),
            _ => Err("not the answer to what was asked".into()),
        }
    }

    fn left(&mut self, room: usize) {
        let seat = self.seats.get_mut(&room).unwrap();
        let seen = seat.seen.take().filter(|_| self.dice.percent(60));
        *seat = Seat { seen, ..Seat::default() };
    }

    fn again(&mut self, payload: &Value) -> Instant {
        let wait = payload["retry_after_ms"].as_u64().unwrap_or(0).min(3000);
        Instant::now() + Duration::from_millis(wait + self.dice.between(AGAIN_MS.0, AGAIN_MS.1))
    }

    fn refused(&mut self, what: What, room: usize, payload: &Value, court: &Court) -> Verdict {
        let (again, code) = (self.again(payload), payload["code"].as_u64());
        let seat = self.seats.get_mut(&room).unwrap();
        match (what, code) {
            (What::Join { .. }, Some(4000)) => {
                (seat.asking, seat.again) = (false, Some(again));
                court.count("joins refused for now");
            }
            (What::Publish(message), Some(4000)) => {
                if let Some(open) = self.open.get_mut(&court.ledger().message(message).id) {
                    open.again = Some(again);
                }
                court.count("publishes refused for now");
            }
            (What::Publish(_) | What::Members, Some(4007)) if !seat.joined => (),
            (What::Leave, Some(4007)) if !seat.joined => self.left(room),
            _ => return Err(format!("refused in {room}, where it is (joined: {})", seat.joined)),
        }
        match payload["retryable"].as_bool() == Some(code == Some(4000)) {
            true => Ok(()),
            false => Err("retryable is wrong".into()),
        }
    }

    fn joined(&mut self, room: usize, since: Option<Position>, payload: &Value, court: &Court) -> Verdict {
        let at = Position::of(payload)?;
        let mut ledger = court.ledger();
        let epoch = ledger.epoch(room, &at.epoch)?;
        let recovered = payload["recovered"].as_bool();
        let seen = match (since, recovered) {
            (None, None) => at,
            (Some(since), Some(recovered)) => {
                if ledger.epoch(room, &since.epoch)? > epoch {
                    return Err(format!("an epoch comes again after {since:?}"));
                }
                let must = ledger.must_recover(room, &since, &at)?;
                if must && !recovered || recovered && since.epoch != at.epoch {
                    return Err(format!("recovered is wrong: it had seen {since:?}"));
                }
                court.count(if recovered { "recovered: true" } else { "recovered: false" });
                if recovered { since } else { at }
            }
            _ => return Err("recovered and since belong together".into()),
        };
        let seat = self.seats.get_mut(&room).unwrap();
        *seat = Seat { wanted: seat.wanted, joined: true, seen: Some(seen), ..Seat::default() };
        court.count("joined");
        if self.dice.percent(70) {
            self.members(room, &ledger);
        }
        Ok(())
    }

    fn accepted(&mut self, message: usize, payload: &Value, court: &Court) -> Verdict {
        let duplicate = payload["duplicate"] == true;
        let mut ledger = court.ledger();
        if ledger.message(message).id != payload["message_id"] {
            return Err("the answer to another message".into());
        }
        let first = ledger.acknowledged(message, &Position::of(payload)?, duplicate)?;
        if self.open.remove(&ledger.message(message).id).is_some() && first {
            if self.done.len() == REMEMBERED {
                self.done.pop_front();
            }
            self.done.push_back((message, Instant::now()));
            court.count("messages acknowledged");
        }
        if duplicate {
            court.count("duplicates answered");
        }
        court.accepted();
        Ok(())
    }

    fn told_members(&mut self, room: usize, payload: &Value) -> Verdict {
        let members = payload["members"].as_array().ok_or("no members")?;
        let mut told = BTreeSet::new();
        for member in members {
            if !told.insert(member["client_id"].as_str().ok_or("no client_id")?.to_owned()) {
                return Err("a member twice".into());
            }
        }
        if !told.remove(&self.client) || payload["count"] != members.len() {
            return Err("it is not a member itself, or the count is wrong".into());
        }
        let seat = self.seats.get_mut(&room).unwrap();
        match seat.believed.replace(told.clone()).filter(|believed| *believed != told) {
            Some(believed) => Err(format!("it had been told of {believed:?}")),
            None => Ok(()),
        }
    }

    fn push(&mut self, kind: &str, message: &Value, court: &Court) -> Verdict {
        let payload = &message["payload"];
        if matches!(kind, "connection_established" | "disconnect") {
            self.online |= kind == "connection_established";
            return Ok(());
        }
        let room = court.ledger().room(&payload["room_id"])?;
        let again = self.again(payload);
        let seat = self.seats.get_mut(&room).filter(|seat| seat.joined).ok_or("of a room that it is not in")?;
        match kind {
            "chat_message" => {
                let at = Position::of(payload)?;
                let seen = seat.seen.as_mut().unwrap();
                if seen.epoch != at.epoch || seen.offset + 1 != at.offset {
                    return Err(format!("it had seen {seen:?}"));
                }
                *seen = at.clone();
                court.count("deliveries");
                court.ledger().seen(room, message, &at)
            }
            "presence_update" => {
                let client = payload["client_id"].as_str().ok_or("no client_id")?;
                let online = payload["status"] != "offline";
                let Some(believed) = &mut seat.believed else { return Ok(()) };
                let changed = if online { believed.insert(client.into()) } else { believed.remove(client) };
                court.count(if online { "online" } else { "offline" });
                changed.then_some(()).ok_or_else(|| "told a second time".into())
            }
            "room_left" => {
                if payload["code"] != 4010 || payload["retryable"] != true {
                    return Err("a membership ends for no reason".into());
                }
                *seat = Seat {
                    wanted: seat.wanted,
                    asking: seat.asking,
                    again: Some(again),
                    seen: seat.seen.take(),
                    ..Seat::default()
                };
                court.count("places lost");
                Ok(())
            }
            _ => Err("not expected".into()),
        }
    }
}

/// How a device ends its socket.
#[derive(Debug, Clone, Copy)]
pub enum Drop {
    /// Without a Close.
    Cut,
    Close,
    /// Nobody reads it any more, and it stays open.
    Dead,
}
