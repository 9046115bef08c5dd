//! Joining and leaving, in every order and without waiting for answers.
use super::*;

fn kinds(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|m| m["type"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_without_waiting_is_answered_in_order() {
    with_every_broker(rules(), async |house: &House| {
        for home in 0..3 {
            let room = house.room_at(home);
            let mut alice = house.tab(0, "alice").await;
            for i in 0..20 {
                alice.join(&room, &format!("join-{i}"));
                alice.leave(&room, &format!("leave-{i}"));
            }
            alice.join(&room, "last");
            for i in 0..20 {
                let joined = alice.expect("room_joined").await;
                assert_eq!(joined["metadata"]["correlation_id"], format!("join-{i}"));
                let left = alice.expect("room_left").await;
                assert_eq!(left["metadata"]["correlation_id"], format!("leave-{i}"));
            }
            alice.expect("room_joined").await;
            assert!(alice.until_mark(&room).await.is_empty());
            assert!(alice.member.as_ref().unwrap().may_ask());
            assert_eq!(house.gauges(), (1, 1));
            alice.lose();
            house.emptied().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_publish_between_a_join_and_a_leave_is_answered() {
    with_every_broker(rules(), async |house: &House| {
        let room = house.room_at(1);
        let mut alice = house.tab(0, "alice").await;
        for i in 0..10 {
            alice.join(&room, "join");
            alice.publish(&room, "in");
            alice.leave(&room, "leave");
            alice.publish(&room, "out");
            let (joined, before) = alice.answer("join").await;
            assert_eq!((&joined["type"], before.len()), (&json!("room_joined"), 0), "{i}: {joined} {before:?}");
            let mut answers = Vec::new();
            while answers.len() < 3 {
                let message = alice.next().await;
                if message["metadata"].get("correlation_id").is_some() {
                    answers.push(message);
                }
            }
            let of = |id: &str| answers.iter().find(|m| m["metadata"]["correlation_id"] == id).unwrap();
            assert_eq!(of("in")["type"], "message_sent", "{}", of("in"));
            assert_eq!(of("leave")["type"], "room_left", "{}", of("leave"));
            assert_eq!(of("out")["payload"]["code"], 4007, "{}", of("out"));
        }
        alice.lose();
        house.emptied().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_not_told_of_its_own_going() {
    with_every_broker(rules(), async |house: &House| {
        for home in 0..3 {
            let room = house.room_at(home);
            let mut bob = house.tab(0, "bob").await;
            let mut alice = house.tab(0, "alice").await;
            bob.joined(&room).await;
            alice.joined(&room).await;
            assert_eq!(bob.expect("presence_update").await["payload"]["status"], "online");
            alice.leave(&room, "leave");
            let (left, before) = alice.answer("leave").await;
            assert_eq!((&left["type"], before.len()), (&json!("room_left"), 0), "{before:?}");
            assert_eq!(bob.expect("presence_update").await["payload"]["status"], "offline");
            bob.lose();
            alice.lose();
            house.emptied().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_room_one_is_not_in_cannot_be_left_whoever_else_is_there() {
    with_every_broker(rules(), async |house: &House| {
        let room = house.room_at(1);
        let mut bob = house.tab(2, "bob").await;
        bob.joined(&room).await;
        let mut alice = house.tab(0, "alice").await;
        alice.join(&room, "join");
        alice.leave(&room, "one");
        alice.leave(&room, "two");
        assert_eq!(alice.answer("one").await.0["type"], "room_left");
        let (refused, _) = alice.answer("two").await;
        assert_eq!(refused["payload"]["code"], 4007, "{refused}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_room_refuses_and_a_place_that_comes_free_is_taken() {
    with_every_broker(rules_with(|r| r.max_members = 1), async |house: &House| {
        let room = house.room_at(1);
        let mut bob = house.tab(2, "bob").await;
        bob.joined(&room).await;
        let mut alice = house.tab(0, "alice").await;
        alice.join(&room, "full");
        alice.publish(&room, "not in");
        alice.leave(&room, "not in either");
        assert_eq!(alice.answer("full").await.0["payload"]["code"], 4008);
        assert_eq!(alice.answer("not in").await.0["payload"]["code"], 4007);
        assert_eq!(alice.answer("not in either").await.0["payload"]["code"], 4007);
        bob.leave(&room, "leave");
        bob.answer("leave").await;
        alice.joined(&room).await;
        alice.lose();
        bob.lose();
        house.emptied().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_at_any_moment_leaves_no_ghost() {
    with_every_broker(rules(), async |house: &House| {
        let room = house.room_at(1);
        // Turns of the shards between the requests and the end of the session.
        for turns in 0..60 {
            let mut alice = house.tab(0, "alice").await;
            alice.join(&room, "a");
            alice.leave(&room, "b");
            alice.join(&room, "c");
            alice.join(&room, "d");
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            alice.lose();
            house.emptied().await;
        }
    })
    .await;
}

/// Whatever has been answered of what was sent, the home forgets a session that ends.
#[tokio::test(start_paused = true)]
async fn a_join_under_way_is_given_back() {
    for mails in 0..8 {
        let house = House::new(2, rules(), memory);
        let room = house.room_at(1);
        let (here, there) = (&house.shards[0], &house.shards[1]);
        let mut alice = house.tab_with_member_only(0, "alice");
        alice.join(&room, "a");
        alice.leave(&room, "b");
        alice.join(&room, "c");
        house.handle_all(there);
        house.handle(here, mails);
        alice.lose();
        house.handle_all(there);
        house.handle_all(here);
        assert!(there.home.borrow().is_empty() && here.local.borrow().is_empty(), "after {mails}");
        assert_eq!(house.gauges(), (0, 0), "after {mails}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_join_does_not_undo_the_one_that_follows() {
    for mails in 0..8 {
        let house = House::new(2, rules_with(|r| r.max_members = 1), memory);
        let room = house.room_at(1);
        let (here, there) = (&house.shards[0], &house.shards[1]);
        let mut bob = house.tab_with_member_only(0, "bob");
        bob.join(&room, "bob");
        house.handle_all(there);
        let mut alice = house.tab_with_member_only(0, "alice");
        alice.join(&room, "full");
        house.handle_all(there);
        bob.lose();
        alice.join(&room, "free");
        house.handle_all(there);
        house.handle(here, mails);
        alice.lose();
        house.handle_all(there);
        house.handle_all(here);
        assert!(there.home.borrow().is_empty() && here.local.borrow().is_empty(), "after {mails}");
        assert_eq!(house.gauges(), (0, 0), "after {mails}");
    }
}

#[tokio::test(start_paused = true)]
async fn presence_is_by_client_on_whatever_shards_its_tabs_are() {
    with_every_broker(rules(), async |house: &House| {
        let room = house.room_at(2);
        let mut bob = house.tab(1, "bob").await;
        bob.joined(&room).await;
        let mut tabs = Vec::new();
        for shard in [0, 1, 2, 0] {
            let mut tab = house.tab(shard, "alice").await;
            assert_eq!(tab.joined(&room).await["count"], 2);
            tabs.push(tab);
        }
        for tab in &mut tabs {
            tab.lose();
        }
        let mut seen = bob.until_mark(&room).await;
        while seen.len() < 2 {
            seen.extend(bob.until_mark(&room).await);
        }
        assert_eq!(kinds(&seen), ["presence_update"; 2], "{seen:?}");
        assert_eq!(
            (&seen[0]["payload"]["status"], &seen[1]["payload"]["status"]),
            (&json!("online"), &json!("offline"))
        );
        bob.lose();
        house.emptied().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_joins_with_a_status_is_shown_with_it_to_those_who_are_there() {
    with_every_broker(rules(), async |house: &House| {
        let room = house.room_at(2);
        let mut bob = house.tab(1, "bob").await;
        bob.joined(&room).await;
        let mut alice = house.tab(0, "alice").await;
        alice.joined("another").await;
        alice.request("presence_update", "away", json!({"status": "away"}));
        alice.joined(&room).await;
        for status in ["online", "away"] {
            assert_eq!(bob.expect("presence_update").await["payload"]["status"], status);
        }
        assert!(bob.until_mark(&room).await.is_empty());
        alice.lose();
        bob.lose();
        house.emptied().await;
    })
    .await;
}

/// A session that comes knows the status already, and the one that has said it ends before its shard tells its rooms.
#[tokio::test(start_paused = true)]
async fn a_status_is_not_lost_with_the_session_that_said_it() {
    let house = House::new(2, rules(), memory);
    let room = house.room_at(1);
    let (here, there) = (&house.shards[0], &house.shards[1]);
    let mut bob = house.tab_with_member_only(1, "bob");
    let mut alice = house.tab_with_member_only(0, "alice");
    bob.join(&room, "join");
    alice.join(&room, "join");
    house.handle_all(there);
    house.handle_all(here);
    house.handle_all(there);
    alice.request("presence_update", "hide", json!({"status": "invisible"}));
    let mut again = house.tab_with_member_only(1, "alice");
    again.join(&room, "join");
    alice.lose();
    for rooms in [there, here, there] {
        house.handle_all(rooms);
    }
    bob.request("room_members", "members", json!({"room_id": room}));
    house.handle_all(there);
    let seen = house.seen(&mut bob).await;
    let last = seen.iter().rfind(|m| m["type"] == "presence_update").unwrap();
    assert_eq!(last["payload"]["status"], "offline", "{seen:?}");
    let members = seen.iter().find(|m| m["type"] == "room_members").unwrap();
    assert_eq!(members["payload"]["count"], 1, "{members}");
    again.lose();
    bob.lose();
    house.handle_all(there);
    house.handle_all(here);
    assert_eq!(house.gauges(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn rooms_are_bounded_and_messages_to_everyone_need_none() {
    with_every_broker(config::Rooms { max_rooms: 2, ..rules() }, async |house: &House| {
        let mut alice = house.tab(0, "alice").await;
        alice.joined("a").await;
        alice.joined("b").await;
        alice.join("c", "c");
        assert_eq!(alice.answer("c").await.0["payload"]["code"], 4008);
        alice.request("message", "all", json!({"message": "to all"}));
        // Which of the two comes first is not said.
        let (sent, mut before) = alice.answer("all").await;
        assert_eq!((&sent["type"], &sent["payload"]["room_id"]), (&json!("message_sent"), &Value::Null));
        let chat = match before.pop() {
            Some(chat) => chat,
            None => alice.expect("chat_message").await,
        };
        assert_eq!((&chat["payload"]["message"], before.len()), (&json!("to all"), 0));
        assert_eq!(house.gauges(), (2, 2));
        alice.leave("a", "leave");
        alice.answer("leave").await;
        alice.joined("c").await;
        alice.lose();
        house.emptied().await;
    })
    .await;
}
