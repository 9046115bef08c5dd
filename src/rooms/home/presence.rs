//! What is told of who is in a room: to its members, to the other nodes, and to the application.
use super::Home;
use crate::config::HookEvent;
use crate::rooms::crowd::CROWD;
use crate::rooms::mail::{Except, RoomKey};
use crate::rooms::protocol::{Status, push};
use crate::rooms::room::{Change, Room, Shown};
use crate::rooms::statuses::Said;
use std::sync::Arc;

impl Home {
    /// A client came: its first session of all is here.
    pub(super) fn came(&mut self, key: &RoomKey, client: &Arc<str>) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        let after = room.shown(client);
        if !std::mem::replace(&mut room.occupied, true) {
            self.tell_hook(HookEvent::Occupied, key, None);
        }
        self.tell_hook(HookEvent::Joined, key, Some(client));
        self.shows(key, client, &Shown { before: None, after });
    }

    /// A session is a member no more, and that was its client's last one or not.
    pub(super) fn went(&mut self, key: &RoomKey, client: &Arc<str>, change: Change) {
        if change != Change::Nothing {
            self.holds(key, client);
            self.shard.metrics().members_left(1);
        }
        if let Change::Client { visible } = change {
            let before = Some(if visible { Status::Online } else { Status::Offline });
            self.shows(key, client, &Shown { before, after: None });
            self.tell_hook(HookEvent::Left, key, Some(client));
        }
    }

    /// Tells the application once that nobody is in the room any more.
    pub(super) fn tell_vacated(&mut self, key: &RoomKey) {
        let room = self.rooms.get_mut(key).filter(|room| room.count() == 0);
        if room.is_some_and(|room| std::mem::take(&mut room.occupied)) {
            self.tell_hook(HookEvent::Vacated, key, None);
        }
    }

    /// Tells the application, where it wants to know.
    pub(super) fn tell_hook(&self, event: HookEvent, key: &RoomKey, client: Option<&Arc<str>>) {
        if let Some(hook) = self.shared.hook.as_ref().filter(|hook| hook.tells(event)) {
            hook.tell(event, self.shared.namespace(key.namespace), &key.name, client.map(|c| &**c));
        }
    }

    /// A client has changed its status.
    pub(super) fn status(&mut self, key: &RoomKey, client: &Arc<str>, said: Arc<Said>) {
        let Some(shown) = self.rooms.get_mut(key).and_then(|room| room.say(client, said)) else { return };
        self.holds(key, client);
        self.shows(key, client, &shown);
    }

    /// Tells the other nodes what this one holds of a client.
    pub(super) fn holds(&mut self, key: &RoomKey, client: &Arc<str>) {
        let held = self.rooms.get(key).and_then(|room| room.held(client));
        self.broker.holds(key, client, held);
    }

    /// Tells the members here how a client is seen from now on.
    pub(super) fn shows(&mut self, key: &RoomKey, client: &Arc<str>, shown: &Shown) {
        if shown.before == shown.after {
            return;
        }
        let seen = |status: &Option<Status>| status.as_ref().is_some_and(|status| *status != Status::Offline);
        let (Shown { before, after }, crowded) = (shown, self.rooms.get(key).map_or(0, Room::count) > CROWD);
        match (seen(before), after) {
            (false, Some(status)) if seen(after) => {
                let text = matches!(status, Status::Text(_)) && before.is_none();
                if !text {
                    return self.presence(key, client, status);
                }
                self.presence(key, client, &Status::Online);
                // Those who are there would take it for online until it says something else.
                if !crowded {
                    self.presence(key, client, status);
                }
            }
            // In a crowd only who comes and goes is counted.
            (true, Some(status)) if seen(after) => {
                if !crowded {
                    self.presence(key, client, status);
                }
            }
            (was_seen, _) => {
                self.stops_typing(key, client, was_seen);
                if was_seen {
                    self.presence(key, client, &Status::Offline);
                }
            }
        }
    }

    /// Tells the others of a client's status, or counts it where the room is crowded.
    fn presence(&mut self, key: &RoomKey, client: &Arc<str>, status: &Status) {
        // What nobody here is told is not to be counted either.
        let room = self.rooms.get(key).filter(|room| room.has_members_here());
        let Some(room) = room.filter(|_| self.shared.rules.presence) else { return };
        if room.count() > CROWD {
            self.crowds.note(key, status);
        } else {
            let text = push::presence(&key.name, client, status);
            self.push(key, &text, Except::Client(client.clone()));
        }
    }
}
