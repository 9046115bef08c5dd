//! What is kept of rooms, and for how long.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::Namespace;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::advance;

const ALL: Batch = Batch { messages: usize::MAX, bytes: usize::MAX };

fn key(name: &str) -> RoomKey {
    RoomKey { namespace: Namespace { index: 0 }, name: name.into() }
}

fn event(memory: &mut Memory) -> Event {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    memory.poll_timers(&mut cx);
    match memory.poll_event(&mut cx) {
        Poll::Ready(event) => event,
        Poll::Pending => panic!("no event"),
    }
}

fn open(memory: &mut Memory, room: &RoomKey) -> Position {
    memory.open(room, &Arc::default());
    match event(memory) {
        Event::Opened { position, .. } => position,
        other => panic!("{other:?}"),
    }
}

/// Publishes as alice: the place, and whether it is a duplicate.
fn publish(memory: &mut Memory, room: &RoomKey, id: &str) -> (Position, bool) {
    let message = RawValue::from_string(format!("\"{id}\"")).unwrap();
    let sender = Some(Arc::from("alice"));
    memory.publish(1, room, Publication { sender, message_id: id.into(), named: true, message });
    let accepted = match event(memory) {
        Event::Accepted { position, duplicate, .. } => (position, duplicate),
        other => panic!("{other:?}"),
    };
    if !accepted.1 {
        assert!(matches!(event(memory), Event::Delivered { .. }));
    }
    accepted
}

fn read(memory: &mut Memory, room: &RoomKey, after: u64) -> Option<usize> {
    memory.read(1, room, after, ALL);
    match event(memory) {
        Event::Read { messages, .. } => messages.map(|m| m.len()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_that_empties_keeps_everything_for_its_age() {
    let (mut memory, room) = (Memory::default(), key("r"));
    let opened = open(&mut memory, &room);
    publish(&mut memory, &room, "one");
    publish(&mut memory, &room, "two");
    memory.shut(&room);
    advance(Duration::from_secs(299)).await;
    assert_eq!(open(&mut memory, &room), Position { offset: 2, ..opened.clone() });
    assert_eq!(read(&mut memory, &room, 0), Some(2));
    assert_eq!(publish(&mut memory, &room, "one"), (Position { offset: 1, ..opened.clone() }, true));
    memory.shut(&room);
    // The messages are too old, epoch and offset are not yet.
    advance(Duration::from_secs(400)).await;
    assert_eq!(open(&mut memory, &room).offset, 2);
    assert_eq!(read(&mut memory, &room, 1), None);
    assert_eq!(read(&mut memory, &room, 2), Some(0));
    memory.shut(&room);
    advance(Duration::from_secs(601)).await;
    let anew = open(&mut memory, &room);
    assert_eq!(anew.offset, 0);
    assert_ne!(anew.epoch, opened.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_was_never_written_to_leaves_no_trace_and_keeps_its_epoch() {
    let (mut memory, room) = (Memory::default(), key("r"));
    let first = open(&mut memory, &room);
    memory.shut(&room);
    assert_eq!(memory.kept(), (0, 0));
    assert_eq!(open(&mut memory, &room), first);
}

#[tokio::test(start_paused = true)]
async fn churn_leaves_no_growth() {
    let mut memory = Memory::default();
    for i in 0..60_000 {
        let room = key(&format!("room-{i}"));
        open(&mut memory, &room);
        publish(&mut memory, &room, "x");
        memory.shut(&room);
    }
    let (rooms, bytes) = memory.kept();
    assert!(bytes <= shelf::BYTES_MAX && rooms < 45_000, "{rooms} rooms, {bytes} bytes");
    // What is left is forgotten when its time is over.
    advance(Duration::from_secs(601)).await;
    for _ in 0..1000 {
        memory.poll_timers(&mut Context::from_waker(std::task::Waker::noop()));
    }
    assert_eq!(memory.kept(), (0, 0));
    assert!(memory.rooms.capacity() < 2000, "{}", memory.rooms.capacity());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_message_gets_its_first_place_however_busy_the_room() {
    let (mut memory, room) = (Memory::default(), key("r"));
    open(&mut memory, &room);
    let (first, _) = publish(&mut memory, &room, "first");
    for i in 0..127 {
        assert!(!publish(&mut memory, &room, &i.to_string()).1);
    }
    assert_eq!(publish(&mut memory, &room, "first"), (first, true));
    // One more of the same client, and the first is forgotten.
    publish(&mut memory, &room, "last");
    assert!(!publish(&mut memory, &room, "first").1);
    advance(Duration::from_secs(300)).await;
    assert!(!publish(&mut memory, &room, "last").1);
}

#[tokio::test(start_paused = true)]
async fn messages_that_age_in_an_open_room_are_let_go() {
    let (mut memory, room) = (Memory::default(), key("r"));
    open(&mut memory, &room);
    publish(&mut memory, &room, "one");
    advance(Duration::from_secs(500)).await;
    publish(&mut memory, &room, "two");
    advance(Duration::from_secs(101)).await;
    memory.poll_timers(&mut Context::from_waker(std::task::Waker::noop()));
    assert_eq!(memory.rooms[&room].history.first(), Some(2));
    advance(Duration::from_secs(500)).await;
    memory.poll_timers(&mut Context::from_waker(std::task::Waker::noop()));
    assert_eq!(memory.rooms[&room].history.first(), None);
    assert!(memory.rooms[&room].seen.is_empty());
}
