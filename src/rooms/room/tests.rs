//! Who is in a room, and who is seen.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::limits::{ClientPermit, ClientRooms};

const CAME: Option<Change> = Some(Change::Client { visible: true });

fn session(shard: u16, slot: u32) -> SessionRef {
    SessionRef { shard, slot, generation: 0 }
}

fn rooms() -> ClientRooms {
    ClientPermit::alone().rooms()
}

fn room(shards: usize) -> Room {
    Room::new(shards, Arc::default())
}

fn join(room: &mut Room, client: &str, session: SessionRef) -> Option<Change> {
    join_saying(room, client, session, None)
}

fn join_saying(room: &mut Room, client: &str, session: SessionRef, said: Option<Arc<Said>>) -> Option<Change> {
    let client = &Arc::from(client);
    room.join(Newcomer { client, session, deflate: false, said, recovers: None }, || rooms().enter(9))
}

fn said(status: Status, version: u64) -> Arc<Said> {
    Arc::new(Said { version, since: Timestamp::UNIX_EPOCH, status })
}

#[test]
fn clients_are_counted_and_not_sessions() {
    let mut room = room(2);
    assert_eq!(join(&mut room, "alice", session(0, 1)), CAME);
    assert_eq!(join(&mut room, "alice", session(1, 1)), Some(Change::Session));
    assert_eq!(join(&mut room, "alice", session(1, 1)), Some(Change::Nothing));
    assert_eq!((room.count(), room.sessions()), (1, 2));
    assert_eq!(room.leave("alice", session(0, 1)), Change::Session);
    assert_eq!(room.leave("alice", session(0, 1)), Change::Nothing);
    assert_eq!(room.leave("alice", session(1, 1)), Change::Client { visible: true });
    assert_eq!((room.count(), room.sessions()), (0, 0));
}

#[test]
fn a_client_is_in_so_many_rooms_over_all_its_sessions() {
    let (mut one, mut two, mut three) = (room(1), room(1), room(1));
    let (alice, rooms) = (Arc::from("alice"), rooms());
    let enter = |room: &mut Room, slot| {
        let new = Newcomer { client: &alice, session: session(0, slot), deflate: false, said: None, recovers: None };
        room.join(new, || rooms.enter(2))
    };
    assert_eq!(enter(&mut one, 1), CAME);
    assert_eq!(enter(&mut two, 1), CAME);
    assert_eq!(enter(&mut one, 2), Some(Change::Session));
    assert_eq!(enter(&mut three, 2), None);
    assert_eq!(three.count(), 0);
    one.leave("alice", session(0, 1));
    assert_eq!(enter(&mut three, 2), None);
    one.leave("alice", session(0, 2));
    assert_eq!(enter(&mut three, 2), CAME);
}

#[test]
fn pages_go_on_where_the_last_ended() {
    let mut room = room(1);
    for i in 0..5 {
        join(&mut room, &format!("c{i}"), session(0, i));
    }
    let (first, more) = room.page(3, None, Some("c0"));
    assert_eq!((first.len(), more), (3, true));
    let (second, more) = room.page(3, Some(&first[2].client), Some("c0"));
    assert_eq!((&*second[0].client, second.len(), more), ("c3", 2, false));
}

#[test]
fn a_shard_that_fell_behind_gets_no_message_until_its_members_left() {
    let mut room = room(2);
    join(&mut room, "alice", session(0, 1));
    join(&mut room, "bob", session(1, 1));
    room.fell_behind(1, 7, false);
    assert_eq!(room.behind(1), Some(7));
    assert_eq!(room.shards().collect::<Vec<_>>(), [0]);
    assert_eq!(room.shards_to_tell().collect::<Vec<_>>(), [0, 1]);
    room.fell_behind(1, 8, true);
    assert_eq!(room.behind(1), Some(8));
    assert_eq!(room.shards_to_tell().collect::<Vec<_>>(), [0]);
    assert_eq!(room.leave_shard(1), [(Arc::from("bob"), Change::Client { visible: true })]);
    assert_eq!(room.behind(1), None);
}

#[test]
fn who_is_invisible_is_seen_by_itself_alone() {
    let mut room = room(1);
    join(&mut room, "alice", session(0, 1));
    join(&mut room, "bob", session(0, 2));
    let hides = Shown { before: Some(Status::Online), after: Some(Status::Offline) };
    assert_eq!(room.say("alice", said(Status::Invisible, 1)), Some(hides));
    assert_eq!((room.count_for("bob"), room.count_for("alice"), room.count()), (1, 2, 2));
    assert_eq!((room.sessions_for("bob"), room.sessions_for("alice")), (1, 2));
    assert_eq!(room.page(9, None, Some("bob")).0.len(), 1);
    assert_eq!(room.page(9, None, Some("alice")).0.len(), 2);
    assert!(room.those_of(&["alice".into()], "bob").is_empty());
    // Another of its sessions, and one that knows less.
    assert_eq!(join_saying(&mut room, "alice", session(0, 3), None), Some(Change::Session));
    assert_eq!((room.sessions_for("bob"), room.sessions_for("alice")), (1, 3));
    assert_eq!(room.say("alice", said(Status::Online, 1)), None);
    assert_eq!(room.say("alice", said(Status::Text("away".into()), 2)).unwrap().before, Some(Status::Offline));
    assert_eq!((room.count_for("bob"), room.sessions_for("bob")), (2, 3));
    room.say("alice", said(Status::Invisible, 3));
    room.leave("alice", session(0, 1));
    assert_eq!(room.leave("alice", session(0, 3)), Change::Client { visible: false });
    assert_eq!((room.count_for("bob"), room.sessions_for("bob")), (1, 1));
    let carol = join_saying(&mut room, "carol", session(0, 4), Some(said(Status::Invisible, 1)));
    assert_eq!(carol, Some(Change::Client { visible: false }));
    assert_eq!((room.count_for("bob"), room.sessions_for("bob")), (1, 1));
    room.leave_shard(0);
    assert_eq!((room.count_for("x"), room.sessions_for("x")), (0, 0));
}

#[test]
fn receipts_go_only_forward_and_are_bounded() {
    let mut room = room(1);
    let alice = Arc::from("alice");
    assert!(room.read_up_to(&alice, 5));
    assert!(!room.read_up_to(&alice, 3) && !room.read_up_to(&alice, 5));
    assert!(room.read_up_to(&alice, 6));
    for i in 0..10_000 {
        room.read_up_to(&Arc::from(format!("gone-{i}")), 1);
    }
    assert!(room.receipts.len() <= 2000, "{}", room.receipts.len());
}
