//! What another node asks this one, as it comes over the wire.
use super::*;

async fn answered(house: &House, question: Value) -> Value {
    serde_json::from_slice(&house.desk().answer(question.to_string().as_bytes()).await).unwrap()
}

async fn found(house: &House, ask: Value) -> Value {
    let mut answer = answered(house, json!({"v": 1, "namespace": "default", "ask": ask})).await;
    answer["found"].take()
}

#[tokio::test(start_paused = true)]
async fn another_node_asks_for_what_is_here() {
    with_every_broker(rules(), async |house| {
        let (mut alice, mut other, mut bob) =
            (house.tab(0, "alice").await, house.tab(1, "alice").await, house.tab(2, "bob").await);
        alice.joined("tea").await;
        other.joined("tea").await;
        bob.joined("cake").await;
        let rooms = json!([{"room": "cake", "members": 1, "offset": 0}, {"room": "tea", "members": 1, "offset": 0}]);
        assert_eq!(found(house, json!({"rooms": {"prefix": "", "after": null, "limit": 10}})).await, rooms);
        assert_eq!(
            found(house, json!({"rooms": {"prefix": "", "after": "cake", "limit": 1}})).await,
            json!([rooms[1]])
        );
        let sessions = found(house, json!({"sessions": {"client": "alice"}})).await;
        assert_eq!(sessions.as_array().unwrap().len(), 2, "{sessions}");
        assert_eq!((&sessions[0]["rooms"], &sessions[0]["status"]), (&json!(["tea"]), &json!("online")));
        let text = json!({"type": "n", "payload": {"at": 5}});
        assert_eq!(found(house, json!({"notify": {"clients": ["alice", "eve"], "text": text}})).await, 2);
        assert_eq!(found(house, json!({"notify": {"clients": null, "text": text}})).await, 3);
        assert_eq!((bob.expect("n").await, alice.expect("n").await), (text.clone(), text));
        assert_eq!(found(house, json!({"kick": [{"client": "alice"}, "tea", 4009]})).await, 2);
        alice.expect("n").await;
        assert_eq!(alice.expect("room_left").await["payload"]["code"], 4009);
        assert_eq!(found(house, json!({"disconnect": [{"client": "bob"}, {"code": 4013, "reason": "out"}]})).await, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_understood_is_said_and_not_done() {
    with_every_broker(rules(), async |house| {
        let mut alice = house.tab(0, "alice").await;
        alice.joined("tea").await;
        let kick = json!({"kick": [{"client": "alice"}, "tea", 4009]});
        for question in [
            json!({"v": 2, "namespace": "default", "ask": kick}),
            json!({"v": 1, "namespace": "default", "ask": {"dance": {}}}),
            json!({"v": 1, "namespace": "default", "ask": {"rooms": {"prefix": ""}}}),
            json!({"v": 1, "ask": kick}),
            json!([]),
            json!("x"),
        ] {
            assert_eq!(answered(house, question).await, json!({"v": 1, "node": "", "found": null}));
        }
        // A namespace that this node does not have holds nothing.
        let elsewhere = json!({"v": 1, "namespace": "games", "ask": kick});
        assert_eq!(answered(house, elsewhere).await["found"], 0);
        assert_eq!(alice.until_mark("tea").await, Vec::<Value>::new());
    })
    .await;
}

/// A shard that does not answer must not hold the asking node up.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_stuck_says_so() {
    let house = House::new(1, rules(), memory);
    let answer = answered(&house, json!({"v": 1, "namespace": "default", "ask": {"sessions": {"client": "a"}}})).await;
    assert_eq!(answer["found"], Value::Null);
}
