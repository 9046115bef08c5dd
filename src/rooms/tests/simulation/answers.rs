//! What sessions are answered.
use super::view::{Asked, Seen, Span, What};
use super::*;

impl Sim {
    /// A session has received a message of so many bytes.
    pub(super) fn saw(&mut self, number: u32, message: &Value, bytes: usize) {
        let session = &self.sessions[&number];
        let span = Span { from: session.rested, to: Instant::now() };
        let kind = message["type"].as_str().unwrap();
        let payload = &message["payload"];
        let about = |room: &Value| self.model.rooms.iter().position(|r| *room == *r.name);
        let what = (&payload["client_id"], &payload["status"], &payload["code"], &payload["duplicate"]);
        let place = (about(&payload["room_id"]), payload["position"]["offset"].as_u64());
        let id = &message["metadata"]["correlation_id"];
        self.log.line(format!("  #{number} sees {kind} {place:?} {what:?} {id}"));
        match id.as_str() {
            Some(id) => self.saw_answer(number, kind, id, payload, span),
            None => self.saw_push(number, kind, message, bytes, span),
        }
    }

    fn saw_answer(&mut self, number: u32, kind: &str, id: &str, payload: &Value, span: Span) {
        let view = &mut self.sessions.get_mut(&number).unwrap().view;
        let asked = view.answered(id, kind != "error");
        match (kind, &asked.what) {
            ("error", _) => self.was_refused(number, &asked, payload),
            ("room_joined", What::Join { since }) => {
                self.has_joined(number, asked.room.unwrap(), since.as_ref(), payload, span);
            }
            ("room_left", What::Leave) => {
                let left = view.rooms.remove(&asked.room.unwrap());
                // The shard may have told it of its loss before.
                let full = self.sessions[&number].was_full;
                assert!(left.is_some() || full, "it has left where it was not");
                self.count("leaves");
            }
            ("message_sent", What::Publish(message)) => {
                let at = position(payload);
                let duplicate = payload["duplicate"] == true;
                let late = self.sessions[&number].slow;
                self.model.reached(self.model.messages[*message].room, &at, span.to, late);
                self.model.acknowledged(*message, &at, duplicate, span);
                let client = self.sessions[&number].client;
                self.clients[client].answered(*message);
                self.count(if duplicate { "duplicates" } else { "messages" });
            }
            ("room_members", What::Members) => {
                let members = payload["members"].as_array().unwrap();
                assert_eq!(payload["count"], members.len());
                let own = &self.clients[self.sessions[&number].client].name;
                let others = members.iter().map(|m| (text(m, "client_id"), text(m, "status")));
                let believed = others.filter(|(client, _)| client != own).collect();
                let session = self.sessions.get_mut(&number).unwrap();
                match session.view.rooms.get_mut(&asked.room.unwrap()) {
                    Some(seen) => seen.believed = Some(believed),
                    // The shard told it of its loss before the home knew.
                    None => assert!(session.was_full, "an answer to one that is not in the room"),
                }
            }
            ("presence_update", What::Presences) => {
                view.presences = Some(payload.clone());
                self.count("presence queries");
            }
            _ => panic!("{asked:?} is answered by {kind}"),
        }
    }

    fn has_joined(&mut self, number: u32, room: usize, since: Option<&Position>, payload: &Value, span: Span) {
        let at = position(payload);
        let session = self.sessions.get_mut(&number).unwrap();
        self.model.reached(room, &at, span.to, session.slow);
        let conflated = payload["conflated"] == true;
        assert_eq!(conflated, self.model.rooms[room].conflated);
        let recovered = payload["recovered"].as_bool();
        assert_eq!(recovered.is_some(), since.is_some(), "{payload}");
        let mut seen = Seen::new(&at, conflated);
        let mut what = "joins";
        if let (Some(since), Some(recovered)) = (since, recovered) {
            let kept = self.model.is_kept(room, since, &at, span.to);
            assert!(kept.is_none_or(|kept| kept == recovered), "{since:?} recovered: {recovered}, and kept: {kept:?}");
            if recovered {
                seen.next = since.offset + 1;
                seen.recovers = seen.next <= at.offset;
            }
            what = if !recovered {
                "not recovered"
            } else if seen.recovers {
                "recovered"
            } else {
                "nothing missed"
            };
        }
        if let Some(before) = session.view.rooms.remove(&room) {
            assert!(before.epoch != at.epoch || before.next <= at.offset + 1, "it joins at what has passed: {at:?}");
            // It stays a member all the time.
            seen = Seen { believed: before.believed, started: before.started, typing: before.typing, ..seen };
            seen.receipts = before.receipts;
        }
        session.view.rooms.insert(room, seen);
        self.count(what);
    }

    fn was_refused(&mut self, number: u32, asked: &Asked, payload: &Value) {
        let code = payload["code"].as_u64().unwrap();
        let session = &self.sessions[&number];
        let is_in = asked.room.is_some_and(|room| session.view.rooms.contains_key(&room));
        let full = session.was_full;
        match (&asked.what, code) {
            (What::Join { .. }, 4008) => (),
            // A shard that fell behind takes nobody.
            (What::Join { .. }, 4000) => assert!(full, "refused: {payload}"),
            // To everyone, where a mailbox is full.
            (What::Publish(_), 4000) if asked.room == Some(self.model.everyone()) => {
                assert!(full, "refused: {payload}")
            }
            (What::Silent, 4006) => assert!(payload["message"].as_str().unwrap().contains("payload.offset")),
            (What::Leave | What::Publish(_) | What::Members | What::Presences | What::Silent, 4007) => {
                assert!(!is_in, "{asked:?} is refused to a member: {payload}");
            }
            _ => panic!("{asked:?} is refused: {payload}"),
        }
        if let What::Publish(message) = asked.what {
            self.model.refused(message);
            let client = session.client;
            self.clients[client].unacknowledged.retain(|m| *m != message);
        }
        self.count("refusals");
    }
}

/// The position in a payload.
pub(super) fn position(payload: &Value) -> Position {
    let position = &payload["position"];
    Position { epoch: position["epoch"].as_str().unwrap().into(), offset: position["offset"].as_u64().unwrap() }
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap().into()
}
