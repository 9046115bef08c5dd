//! What clients, servers, networks and time do.
use super::view::{Asked, What};
use super::*;
use crate::close::{Close, Code};
use std::pin::Pin;

/// What a server has asked. Gives the place of what it published, with the number of the message.
pub(super) type Call = Pin<Box<dyn Future<Output = Option<(usize, desk::Sent)>>>>;

const SESSIONS_PER_CLIENT: usize = 3;
const STATUSES: [&str; 5] = ["online", "away", "busy", "at lunch", "invisible"];
/// Time that may pass while mail lies about: what is told late is told of a time that is known well enough.
const RESTLESS_MAX: Seconds = Seconds::from_secs(10);

impl Sim {
    /// One thing happens.
    pub(super) async fn act(&mut self) {
        match self.dice.below(1000) {
            0..=149 => self.someone_connects(),
            150..=299 => self.someone_joins(),
            300..=349 => self.someone_leaves(),
            350..=599 => self.someone_publishes(),
            600..=659 => self.someone_sends_again(),
            660..=699 => self.someone_is_lost(),
            700..=719 => self.someone_is_noticed(),
            720..=739 => self.someone_stops_reading(),
            740..=779 => self.someone_says(),
            780..=839 => self.someone_types(),
            840..=889 => self.someone_has_read(),
            890..=919 => self.someone_looks_around(),
            920..=934 => self.a_mailbox_fills(),
            935..=949 => self.a_server_acts(),
            950..=951 => self.a_crowd_is_lost(),
            952..=957 => self.a_room_empties(),
            958..=963 => self.someone_says_much(),
            964..=966 => self.someone_tells_everyone(),
            967..=969 => self.someone_moves(),
            970..=974 => self.time_passes(30, 200).await,
            975..=976 => self.time_passes(200, 900).await,
            _ => self.time_passes(0, 5).await,
        }
    }

    fn someone(&mut self) -> Option<u32> {
        let able: Vec<u32> = self.sessions.iter().filter(|(_, s)| s.can_ask()).map(|(n, _)| *n).collect();
        self.dice.pick(&able)
    }

    /// Some session, and a room that it is in.
    fn some_member(&mut self) -> Option<(u32, usize)> {
        let number = self.someone()?;
        let rooms: Vec<usize> = self.sessions[&number].view.rooms.keys().copied().collect();
        Some((number, self.dice.pick(&rooms)?))
    }

    pub(super) fn ask(&mut self, number: u32, kind: &str, what: What, room: Option<usize>, mut payload: Value) {
        let id = match what {
            What::Publish(message) => self.model.messages[message].id.clone(),
            _ => {
                self.asked += 1;
                format!("q{}", self.asked)
            }
        };
        if room.is_some_and(|room| self.sessions[&number].is_taken(&id, room)) {
            return;
        }
        if let Some(room) = room.and_then(|room| self.model.rooms.get(room)) {
            payload["room_id"] = json!(room.name);
        }
        self.log.line(format!("{} #{number} {kind} {id} {room:?} {what:?}", self.step));
        let text = json!({"type": kind, "payload": payload, "metadata": {"message_id": id}}).to_string();
        let asked = Asked::new(id, what, room);
        self.sessions.get_mut(&number).unwrap().ask(text, asked);
    }

    /// A run begins in the middle of things.
    pub(super) fn many_connect(&mut self) {
        for client in 0..self.clients.len() {
            self.connects(client);
            let number = self.next_session;
            for room in self.clients[client].rooms.clone() {
                if self.dice.percent(50) {
                    self.joins(number, room);
                }
            }
        }
    }

    fn someone_connects(&mut self) {
        let client = self.dice.below(self.clients.len());
        if self.sessions.values().filter(|s| s.client == client).count() < SESSIONS_PER_CLIENT {
            self.connects(client);
        }
    }

    pub(super) fn connects(&mut self, client: usize) {
        let shard = self.dice.below(world::SHARDS);
        let slow = self.dice.percent(15).then(|| (self.dice.between(2, 16) << 10, self.dice.between(12, 64) << 10));
        let name = self.clients[client].name.clone();
        let (house, place) = self.world.at(shard);
        let mut session = Session::open(house, place, (client, &name), slow);
        session.shard = shard;
        session.was_full = self.was_full;
        self.next_session += 1;
        let number = self.next_session;
        self.log.line(format!("{} #{number} is {name} at {shard}, slow {slow:?}", self.step));
        self.sessions.insert(number, session);
        let known = &mut self.clients[client];
        // It may have been forgotten by now.
        if known.unsure || known.there.elapsed() > Seconds::from_secs(300) {
            let said = known.said;
            known.hidden_since = None;
            self.says(number, said);
        }
        let seen: Vec<usize> = self.clients[client].seen.keys().copied().collect();
        for room in seen {
            if self.dice.percent(60) {
                self.joins(number, room);
            }
        }
        for message in self.clients[client].unacknowledged.clone() {
            if self.dice.percent(70) {
                self.publishes(number, message);
            }
        }
        self.count("sessions");
    }

    fn someone_joins(&mut self) {
        let Some(number) = self.someone() else { return };
        let likes = self.clients[self.sessions[&number].client].rooms.clone();
        let Some(room) = self.dice.pick(&likes) else { return };
        let is_in = self.sessions[&number].view.rooms.contains_key(&room);
        if !is_in || self.dice.percent(15) {
            self.joins(number, room);
        }
    }

    fn joins(&mut self, number: u32, room: usize) {
        let seen = self.clients[self.sessions[&number].client].seen.get(&room).cloned();
        let mut since = seen.filter(|_| self.dice.percent(80));
        if let Some(since) = &mut since {
            match self.dice.below(100) {
                0..=9 => since.offset = since.offset.saturating_sub(self.dice.between(1, 30) as u64),
                10..=11 => since.offset += self.dice.between(1, 5) as u64,
                12 => since.epoch = "another".into(),
                _ => (),
            }
        }
        let mut payload = json!({});
        if let Some(Position { epoch, offset }) = &since {
            payload["since"] = json!({"epoch": **epoch, "offset": offset});
        }
        self.ask(number, "join_room", What::Join { since }, Some(room), payload);
        if self.dice.percent(80) {
            self.ask(number, "room_members", What::Members, Some(room), json!({}));
        }
    }

    fn someone_leaves(&mut self) {
        if let Some((number, room)) = self.some_member() {
            self.ask(number, "leave_room", What::Leave, Some(room), json!({}));
        }
    }

    fn someone_publishes(&mut self) {
        let Some((number, mut room)) = self.some_member() else { return };
        if self.dice.percent(3) {
            room = self.dice.below(self.model.rooms.len());
        }
        let id = match self.dice.below(20) {
            // A name is of one client and one room.
            0 => format!("shared-{}", self.dice.below(5)),
            _ => format!("m{}", self.model.messages.len()),
        };
        let pad = if self.dice.percent(10) { self.dice.between(100, 8000) } else { self.dice.below(60) };
        self.says_anew(number, room, &id, pad);
    }

    fn says_anew(&mut self, number: u32, room: usize, id: &str, pad: usize) {
        let client = self.sessions[&number].client;
        let body = || json!({"by": client, "id": id, "pad": "x".repeat(pad)});
        let message = self.model.message(room, Some(client), id, body);
        self.publishes(number, message);
    }

    fn publishes(&mut self, number: u32, message: usize) {
        let client = &mut self.clients[self.sessions[&number].client];
        if !client.unacknowledged.contains(&message) {
            client.unacknowledged.push(message);
        }
        let (room, body) = (self.model.messages[message].room, self.model.messages[message].body.clone());
        self.ask(number, "message", What::Publish(message), Some(room), json!({"message": body}));
    }

    fn someone_sends_again(&mut self) {
        let has_sent = |c: &Client| !c.unacknowledged.is_empty() || !c.acknowledged.is_empty();
        let able = self.sessions.iter().filter(|(_, s)| s.can_ask() && has_sent(&self.clients[s.client]));
        let able: Vec<u32> = able.map(|(number, _)| *number).collect();
        let Some(number) = self.dice.pick(&able) else { return };
        let client = &self.clients[self.sessions[&number].client];
        let (open, done) = (client.unacknowledged.clone(), client.acknowledged.clone());
        let sent = if self.dice.percent(50) && !open.is_empty() { open } else { done.into() };
        if let Some(message) = self.dice.pick(&sent) {
            let room = self.model.messages[message].room;
            let known = self.sessions[&number].view.rooms.contains_key(&room);
            if !known && room < self.model.rooms.len() && !self.sessions[&number].view.is_asking_for(room) {
                self.joins(number, room);
            }
            self.publishes(number, message);
        }
    }

    /// Many messages in a row, so that those who read slowly, or recover, have something to do.
    fn someone_says_much(&mut self) {
        let Some((number, room)) = self.some_member() else { return };
        let (count, pad) = (self.dice.between(20, 150), self.dice.between(50, 2500));
        for _ in 0..count.min(40_000 / pad.max(1) * 4) {
            let id = format!("m{}", self.model.messages.len());
            self.says_anew(number, room, &id, pad);
        }
    }

    fn someone_tells_everyone(&mut self) {
        let Some(number) = self.someone() else { return };
        let (room, id) = (self.model.everyone(), format!("m{}", self.model.messages.len()));
        self.says_anew(number, room, &id, 10);
    }

    /// One session says something of its client and ends, while another one comes.
    fn someone_moves(&mut self) {
        let Some(number) = self.someone() else { return };
        let status = STATUSES[self.dice.below(STATUSES.len())];
        self.says(number, status);
        self.session_turn(number);
        self.connects(self.sessions[&number].client);
        if self.dice.percent(70) {
            self.session_turn(self.next_session);
        }
        self.lose(number);
    }

    /// A socket is lost, and the gateway learns it at once, or with a heartbeat that fails.
    fn someone_is_lost(&mut self) {
        let Some(number) = self.someone() else { return };
        if self.dice.percent(30) {
            self.log.line(format!("{} #{number} is dead", self.step));
            self.sessions.get_mut(&number).unwrap().dead = true;
        } else {
            self.lose(number);
        }
    }

    fn someone_is_noticed(&mut self) {
        let dead: Vec<u32> = self.sessions.iter().filter(|(_, s)| s.dead).map(|(n, _)| *n).collect();
        if let Some(number) = self.dice.pick(&dead) {
            self.lose(number);
        }
    }

    fn a_crowd_is_lost(&mut self) {
        let numbers: Vec<u32> = self.sessions.keys().copied().collect();
        let mut clients = Vec::new();
        for number in numbers {
            if self.dice.percent(40) {
                clients.push(self.sessions[&number].client);
                self.lose(number);
            }
        }
        for client in clients {
            self.connects(client);
        }
    }

    /// The gateway has a session no more. Part of what was on the way to it may have been read before.
    pub(super) fn lose(&mut self, number: u32) {
        if self.dice.percent(50) {
            self.session_turn(number);
        }
        self.cut(number);
    }

    /// It is gone, and what was on the way to the gateway too.
    pub(super) fn cut(&mut self, number: u32) {
        self.log.line(format!("{} #{number} is lost", self.step));
        let mut session = self.sessions.remove(&number).unwrap();
        if session.is_live() {
            self.clients[session.client].there = Instant::now();
        }
        session.end(&mut self.world, None);
        self.count("lost");
    }

    fn someone_stops_reading(&mut self) {
        let slow: Vec<u32> = self.sessions.iter().filter(|(_, s)| s.slow && !s.dead).map(|(n, _)| *n).collect();
        for number in slow {
            let session = self.sessions.get_mut(&number).unwrap();
            session.reads = self.dice.percent(40);
        }
    }

    fn someone_says(&mut self) {
        let Some(number) = self.someone() else { return };
        let status = STATUSES[self.dice.below(STATUSES.len())];
        self.says(number, status);
    }

    pub(super) fn says(&mut self, number: u32, status: &'static str) {
        self.ask(number, "presence_update", What::Status(status), None, json!({"status": status}));
    }

    fn someone_types(&mut self) {
        let Some((number, room)) = self.some_member() else { return };
        for _ in 0..self.dice.between(1, 4) {
            let kind = if self.dice.percent(70) { "typing_start" } else { "typing_stop" };
            self.ask(number, kind, What::Silent, Some(room), json!({}));
        }
    }

    fn someone_has_read(&mut self) {
        let Some((number, room)) = self.some_member() else { return };
        let next = self.sessions[&number].view.rooms[&room].next;
        let beyond = if self.dice.percent(3) { 1000 } else { 0 };
        let offset = self.dice.below(next as usize) + beyond;
        self.ask(number, "read_receipt", What::Silent, Some(room), json!({"offset": offset}));
    }

    fn someone_looks_around(&mut self) {
        let Some((number, room)) = self.some_member() else { return };
        match self.dice.below(3) {
            0 => self.ask(number, "room_members", What::Members, Some(room), json!({})),
            1 => self.ask(number, "presence_query", What::Presences, Some(room), json!({})),
            _ => {
                let some: Vec<String> = (0..5).map(|_| self.clients[self.dice.below(160)].name.clone()).collect();
                self.ask(number, "presence_query", What::Presences, None, json!({"client_ids": some}));
            }
        }
    }

    fn a_mailbox_fills(&mut self) {
        let shard = self.dice.below(world::SHARDS);
        let bytes = if self.world.is_full() { 0 } else { world::FULL[usize::from(self.dice.percent(25))] };
        self.log.line(format!("{} the mailbox of {shard} has {bytes} bytes", self.step));
        if bytes > 0 {
            self.somebody_may_lose_its_place();
        }
        self.world.fill(shard, bytes);
        self.count("full mailboxes");
    }

    /// Until everything is at rest.
    pub(super) fn somebody_may_lose_its_place(&mut self) {
        self.was_full = true;
        self.sessions.values_mut().for_each(|session| session.was_full = true);
    }

    fn a_room_empties(&mut self) {
        let room = self.dice.between(4, self.model.rooms.len() - 1);
        let members = self.sessions.iter().filter(|(_, s)| s.can_ask() && s.view.rooms.contains_key(&room));
        for number in members.map(|(n, _)| *n).collect::<Vec<_>>() {
            self.ask(number, "leave_room", What::Leave, Some(room), json!({}));
        }
    }

    fn a_server_acts(&mut self) {
        let (act, member) = (self.dice.below(10), self.some_member());
        // Who is to be kicked should be in the room.
        let kicked = member.filter(|_| (5..=7).contains(&act)).map(|(_, room)| room);
        let room = kicked.unwrap_or_else(|| self.dice.below(self.model.rooms.len()));
        let name = self.model.rooms[room].name.clone();
        let session = member.map(|(number, _)| &self.sessions[&number]);
        let client = session.map_or_else(|| "c000".into(), |session| self.clients[session.client].name.clone());
        let (house, _) = self.world.at(session.map_or(0, |session| session.shard));
        let (desk, here) = (house.desk(), Namespace { index: 0 });
        self.log.line(format!("{} a server acts: {act} in {room} on {client}", self.step));
        let call: Call = match act {
            0..=4 => {
                let id = format!("server-{}", self.dice.below(200));
                let message = self.model.message(room, None, &id, || json!(id));
                self.model.sent(message);
                let text = serde_json::value::RawValue::from_string(format!("\"{id}\"")).unwrap();
                let new = desk::NewMessage { sender: None, message_id: Some(id.into()), message: text };
                Box::pin(async move { Some((message, desk.publish(here, &name, new).await.unwrap())) })
            }
            5..=7 => Box::pin(async move {
                desk.kick(here, &name, &client, Code::Administrator).await;
                None
            }),
            8 => Box::pin(async move {
                let _ = desk.history(here, &name, Some(0), 10).await;
                None
            }),
            _ => Box::pin(async move {
                desk.disconnect(here, &client, Close::gateway(Code::Administrator)).await;
                None
            }),
        };
        self.desk.push(call);
        self.ask_servers();
    }

    /// Mostly nothing is on the way when time passes.
    async fn time_passes(&mut self, least: usize, most: usize) {
        let time = Seconds::from_millis(self.dice.between(least * 1000, most * 1000) as u64);
        let rests = self.dice.percent(80) || self.restless + time > RESTLESS_MAX;
        if rests {
            self.world.fill_none();
            self.settle();
        }
        self.log.line(format!("{} {time:?} pass", self.step));
        self.restless += time;
        tokio::time::advance(time).await;
        self.nodes_remind_each_other();
        self.world.houses.iter().for_each(|house| house.shards[0].shared.sweep());
        // What is due is done when it is due, unless a shard has much to do.
        if rests {
            self.settle();
        }
        let gone: Vec<bool> =
            (0..self.clients.len()).map(|c| !self.sessions.values().any(|s| s.client == c && s.is_live())).collect();
        for (client, gone) in self.clients.iter_mut().zip(gone) {
            if !gone {
                client.there = Instant::now();
            }
        }
    }
}
