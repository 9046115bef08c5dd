//! What sessions are told without having asked.
use super::answers::position;
use super::model::client_of;
use super::view::Span;
use super::*;

impl Sim {
    pub(super) fn saw_push(&mut self, number: u32, kind: &str, message: &Value, bytes: usize, span: Span) {
        let payload = &message["payload"];
        match kind {
            "connection_established" => (),
            "disconnect" => self.was_disconnected(number, payload),
            "chat_message" => self.saw_chat(number, message, bytes, span),
            "room_left" => self.was_removed(number, payload),
            "presence_update" => {
                let (client, status) = (payload["client_id"].as_str().unwrap(), payload["status"].as_str().unwrap());
                self.seen_of(number, payload, span).presence(client, status);
                self.count(if status == "offline" { "offline" } else { "online" });
            }
            "typing_start" | "typing_stop" => {
                let client = payload["client_id"].as_str().unwrap();
                self.seen_of(number, payload, span).types(client, kind == "typing_start", span);
                self.count("typing");
            }
            "read_receipt" => {
                let client = payload["client_id"].as_str().unwrap();
                let offset = payload["offset"].as_u64().unwrap();
                let full = self.sessions[&number].was_full;
                let seen = self.seen_of(number, payload, span);
                seen.receipt(client, offset);
                // It may overtake messages only where those are read again.
                let late = full || seen.recovers || seen.conflated;
                assert!(offset < seen.next || late, "a receipt for what has not come: {payload}");
                self.count("receipts");
            }
            _ => panic!("#{number} is told {message}"),
        }
    }

    /// The room of a push about some client, as this session sees it.
    fn seen_of(&mut self, number: u32, payload: &Value, span: Span) -> &mut view::Seen {
        let client = client_of(payload["client_id"].as_str().unwrap());
        let session = self.sessions.get_mut(&number).unwrap();
        // Its own receipts go to its other sessions.
        let own = client == session.client && payload.get("offset").is_none();
        assert!(!own, "a session is told of its own client: {payload}");
        let hidden = self.clients[client].hidden_since.is_some_and(|since| since <= span.from);
        assert!(!hidden || client == session.client, "one who is invisible is shown: {payload}");
        let room = self.model.room(&payload["room_id"]);
        let seen = session.view.rooms.get_mut(&room);
        seen.unwrap_or_else(|| panic!("#{number} is told of a room that it is not in: {payload}"))
    }

    fn saw_chat(&mut self, number: u32, message: &Value, bytes: usize, span: Span) {
        let payload = &message["payload"];
        let (room, at) = (self.model.room(&payload["room_id"]), position(payload));
        let session = self.sessions.get_mut(&number).unwrap();
        if room == self.model.everyone() {
            let before = session.view.everyone.replace(at.clone());
            assert!(before.is_none_or(|b| b.offset + 1 == at.offset), "to everyone: a message is missing");
        } else {
            let seen = session.view.rooms.get_mut(&room);
            seen.unwrap_or_else(|| panic!("#{number} is not in the room: {message}")).message(&at);
            self.clients[session.client].seen.insert(room, at.clone());
        }
        self.model.reached(room, &at, span.to, true);
        self.model.seen(room, message, at, span, bytes);
        self.count("deliveries");
    }

    /// The gateway has ended a membership.
    fn was_removed(&mut self, number: u32, payload: &Value) {
        let room = self.model.room(&payload["room_id"]);
        let session = self.sessions.get_mut(&number).unwrap();
        let removed = session.view.rooms.remove(&room);
        match payload["code"].as_u64().unwrap() {
            4010 => {
                let seen = removed.expect("the loss of a place in a room that it is not in");
                assert!(session.was_full || seen.recovers, "#{number} has lost its place for nothing: {payload}");
                self.count(if seen.recovers { "overtaken in recovery" } else { "overtaken" });
            }
            4013 => {
                assert!(removed.is_some(), "#{number} is removed where it is not: {payload}");
                self.count("kicked");
            }
            _ => panic!("#{number} is removed: {payload}"),
        }
    }

    fn was_disconnected(&mut self, number: u32, payload: &Value) {
        match payload["code"].as_u64().unwrap() {
            4010 => {
                let session = &self.sessions[&number];
                assert!(session.slow || session.was_full, "#{number} reads what comes, and is closed: {payload}");
                self.count("closed for not reading");
            }
            4013 => self.count("disconnected"),
            _ => panic!("#{number} is closed: {payload}"),
        }
    }
}
