//! What is heard of bans, without Redis.
#![allow(missing_docs)]
use super::super::REASON_MAX;
use super::*;

const N: Namespace = Namespace { index: 0 };

fn heard() -> Heard {
    Heard {
        shared: Arc::new(Shared::new()),
        namespaces: vec!["n".into()],
        order: Mutex::default(),
        told: ToldBans::default(),
        stale: Notify::new(),
    }
}

/// One that knows a count, of which nothing has been read yet.
fn of_epoch() -> Heard {
    let heard = heard();
    heard.replace("e", 0, &[]);
    heard
}

fn key(client: &str) -> BanKey {
    BanKey { namespace: "n".into(), client: client.into(), room: "".into() }
}

fn row(reason: &str) -> BanRow {
    BanRow { since_us: 5, until_us: None, reason: Some(reason.into()) }
}

fn change(client: &str, reason: Option<&str>) -> Change {
    Change { key: key(client), row: reason.map(row) }
}

/// Who is banned, and why.
fn holding(heard: &Heard) -> Vec<(String, String)> {
    let line = |ban: &Ban| (ban.client.to_string(), ban.reason.as_deref().unwrap_or_default().to_owned());
    heard.shared.read().after(N, None).map(line).collect()
}

/// All orders of so many things.
fn orders(of: usize) -> Vec<Vec<usize>> {
    if of == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(of - 1).into_iter();
    shorter.flat_map(|order| (0..of).map(move |at| [&order[..at], &[of - 1], &order[at..]].concat())).collect()
}

#[test]
fn changes_count_in_the_order_of_their_numbers_however_they_come() {
    let changes = [
        change("ann", Some("1")),
        change("bob", Some("2")),
        change("ann", None),
        change("bob", Some("4")),
        change("ann", Some("5")),
    ];
    for order in orders(changes.len()) {
        let heard = heard();
        heard.replace("e", 100, &[]);
        for &at in &order {
            heard.learn("e", 101 + at as u64, changes[at].clone());
            heard.learn("e", 101 + at as u64, changes[at].clone());
        }
        assert_eq!(holding(&heard), [("ann".into(), "5".into()), ("bob".into(), "4".into())], "{order:?}");
        let known = heard.order();
        assert_eq!((known.seen, known.ahead.len()), (105, 0), "{order:?}");
    }
}

#[test]
fn what_was_heard_while_all_was_read_counts_on_top() {
    let heard = of_epoch();
    // 7 is missing; 8 and 9 come before the bans of 6 have been read.
    heard.learn("e", 9, change("eve", Some("new")));
    heard.learn("e", 8, change("ann", None));
    heard.learn("e", 5, change("old", Some("lifted since")));
    heard.replace("e", 6, &[(key("ann"), row("read")), (key("bob"), row("read"))]);
    assert_eq!(holding(&heard), [("bob".into(), "read".into()), ("eve".into(), "new".into())]);
    assert_eq!(heard.order().seen, 6);
    heard.learn("e", 6, change("bob", None));
    heard.learn("e", 7, change("ann", Some("before 8")));
    assert_eq!(holding(&heard), [("bob".into(), "read".into()), ("eve".into(), "new".into())]);
    assert_eq!(heard.order().seen, 9);
}

#[test]
fn the_next_change_counts_also_where_the_pages_that_were_read_do_not_have_it() {
    let heard = of_epoch();
    heard.learn("e", 1, change("ann", Some("1")));
    assert_eq!(heard.begin_reading(), ("e".into(), 1));
    // Their pages have been read already.
    heard.learn("e", 2, change("bob", Some("2")));
    heard.learn("e", 3, change("ann", None));
    let held = [("bob".into(), "2".into())];
    assert_eq!(holding(&heard), held);
    heard.replace("e", 1, &[(key("ann"), row("1"))]);
    assert_eq!(holding(&heard), held);
    let known = heard.order();
    assert_eq!((known.seen, known.ahead.len()), (3, 0));
}

#[test]
fn a_change_that_is_missing_is_not_waited_for_with_ever_more() {
    let heard = of_epoch();
    for number in 2..3 * AHEAD_MAX as u64 {
        heard.learn("e", number, change("ann", Some("x")));
    }
    let known = heard.order();
    assert_eq!((known.seen, known.ahead.len()), (0, AHEAD_MAX));
}

#[test]
fn what_is_told_is_written_and_read_alike() {
    let heard = of_epoch();
    let written = [
        (BanKey { namespace: "n".into(), client: "J\"ü\\".into(), room: "a/b".into() }, row("it's \"spam\"")),
        (key("bob"), BanRow { since_us: -1, until_us: Some(i64::MAX), reason: None }),
    ];
    for (key, row) in written {
        assert_eq!(read_key(key_text(&key).as_bytes()), Some(key));
        assert_eq!(read_row(row_text(&row).as_bytes()), Some(row));
    }
    let (key, row) = (key_text(&key("ann")), row_text(&row("spam")));
    heard.told(
        &serde_json::to_vec(&Told { epoch: "e".into(), number: 1, key: key.into(), row: Some(row.into()) }).unwrap(),
    );
    assert_eq!(holding(&heard), [("ann".into(), "spam".into())]);
}

#[test]
fn what_no_gateway_has_told_does_nothing() {
    let heard = of_epoch();
    for told in [
        "x",
        "[]",
        r#"{"epoch":"e","number":1}"#,
        r#"{"epoch":"e","number":-1,"key":"[\"n\",\"a\",\"\"]","row":null}"#,
        r#"{"epoch":"e","number":1,"key":"[\"n\",\"a\"]","row":"[5,null,null]"}"#,
        r#"{"epoch":"e","number":1,"key":"[\"n\",\"\",\"\"]","row":"[5,null,null]"}"#,
        r#"{"epoch":"e","number":1,"key":"[\"n\",\"a\\u0007\",\"\"]","row":"[5,null,null]"}"#,
        r#"{"epoch":"e","number":1,"key":"[\"n\",\"a\",\"\"]","row":"[null,null,null]"}"#,
        r#"{"epoch":"e","number":1,"key":"[\"n\",\"a\",\"\"]","row":"[5.5,null,null]"}"#,
    ] {
        heard.told(told.as_bytes());
        assert_eq!(holding(&heard), [], "{told}");
        assert_eq!(heard.order().seen, 0, "{told}");
    }
    // Times that no date can hold, and a namespace that this node does not know: they count, and hold nobody.
    heard.told(br#"{"epoch":"e","number":1,"key":"[\"n\",\"a\",\"\"]","row":"[9223372036854775807,null,null]"}"#);
    heard.told(br#"{"epoch":"e","number":2,"key":"[\"m\",\"a\",\"\"]","row":"[5,null,null]"}"#);
    assert_eq!(holding(&heard), []);
    assert_eq!(heard.order().seen, 2);
    let reason = "x".repeat(REASON_MAX + 1);
    assert_eq!(read_row(format!(r#"[5,null,"{reason}"]"#).as_bytes()).unwrap().reason, None);
}

#[tokio::test]
async fn a_change_of_another_count_holds_at_once_and_all_is_read_again() {
    let heard = of_epoch();
    heard.learn("e", 2, change("ann", Some("2")));
    heard.learn("f", 1, change("bob", Some("1")));
    heard.stale.notified().await;
    assert_eq!(holding(&heard), [("ann".into(), "2".into()), ("bob".into(), "1".into())]);
    heard.replace("f", 1, &[(key("bob"), row("1"))]);
    assert_eq!(holding(&heard), [("bob".into(), "1".into())]);
    heard.told(b"");
    heard.stale.notified().await;
}
