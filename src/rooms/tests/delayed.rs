//! A broker as one on another machine would be: nothing comes of a call at once, and nothing comes
//! out of it twice in one turn.
use crate::config::Rules;
use crate::rooms::broker::{Batch, Broker, Event, Held, Publication, Telling};
use crate::rooms::mail::RoomKey;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Turns between two steps.
const TURNS: u32 = 3;

pub(super) struct Delayed<B> {
    behind: B,
    calls: VecDeque<Call>,
    events: VecDeque<Event>,
    turn: u32,
}

enum Call {
    Open(RoomKey, Arc<Rules>),
    Shut(RoomKey),
    Publish(u64, RoomKey, Publication),
    Read(u64, RoomKey, u64, Batch),
    Holds(RoomKey, Arc<str>, Option<Held>),
    Tell(RoomKey, Telling),
}

impl<B: Broker> Delayed<B> {
    pub(super) fn over(behind: B) -> Delayed<B> {
        Delayed { behind, calls: VecDeque::new(), events: VecDeque::new(), turn: 0 }
    }

    /// One call arrives there, and one event here.
    fn step(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        match self.calls.pop_front() {
            Some(Call::Open(room, rules)) => self.behind.open(&room, &rules),
            Some(Call::Shut(room)) => self.behind.shut(&room),
            Some(Call::Publish(ticket, room, publication)) => self.behind.publish(ticket, &room, publication),
            Some(Call::Read(ticket, room, after, batch)) => self.behind.read(ticket, &room, after, batch),
            Some(Call::Holds(room, client, held)) => self.behind.holds(&room, &client, held),
            Some(Call::Tell(room, telling)) => self.behind.tell(&room, telling),
            None => (),
        }
        while let Poll::Ready(event) = self.behind.poll_event(cx) {
            self.events.push_back(event);
        }
        self.events.pop_front()
    }
}

impl<B: Broker> Broker for Delayed<B> {
    fn open(&mut self, room: &RoomKey, rules: &Arc<Rules>) {
        self.calls.push_back(Call::Open(room.clone(), rules.clone()));
    }

    fn shut(&mut self, room: &RoomKey) {
        self.calls.push_back(Call::Shut(room.clone()));
    }

    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication) {
        self.calls.push_back(Call::Publish(ticket, room.clone(), publication));
    }

    fn read(&mut self, ticket: u64, room: &RoomKey, after: u64, batch: Batch) {
        self.calls.push_back(Call::Read(ticket, room.clone(), after, batch));
    }

    fn holds(&mut self, room: &RoomKey, client: &Arc<str>, held: Option<Held>) {
        self.calls.push_back(Call::Holds(room.clone(), client.clone(), held));
    }

    fn tell(&mut self, room: &RoomKey, telling: Telling) {
        self.calls.push_back(Call::Tell(room.clone(), telling));
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) {
        self.behind.poll_timers(cx);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.calls.is_empty() && self.events.is_empty() {
            // What others do.
            let Poll::Ready(event) = self.behind.poll_event(cx) else { return Poll::Pending };
            self.events.push_back(event);
        }
        self.turn += 1;
        if self.turn.is_multiple_of(TURNS)
            && let Some(event) = self.step(cx)
        {
            return Poll::Ready(event);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
