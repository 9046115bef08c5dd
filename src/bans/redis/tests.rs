//! What is heard of bans, without Redis.
#![allow(missing_docs)]
use super::*;

const N: Namespace = Namespace { index: 0 };

fn heard() -> Heard {
    Heard { shared: Arc::new(Shared::new()), namespaces: vec!["n".into()], order: Mutex::default() }
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
        heard.replace(100, &[]);
        for &at in &order {
            heard.learn(101 + at as u64, changes[at].clone());
            heard.learn(101 + at as u64, changes[at].clone());
        }
        assert_eq!(holding(&heard), [("ann".into(), "5".into()), ("bob".into(), "4".into())], "{order:?}");
        let known = heard.order();
        assert_eq!((known.seen, known.ahead.len()), (105, 0), "{order:?}");
    }
}

#[test]
fn what_was_heard_while_all_was_read_counts_on_top() {
    let heard = heard();
    // 7 is missing; 8 and 9 come before the bans of 6 have been read.
    heard.learn(9, change("eve", Some("new")));
    heard.learn(8, change("ann", None));
    heard.learn(5, change("old", Some("lifted since")));
    heard.replace(6, &[(key("ann"), row("read")), (key("bob"), row("read"))]);
    assert_eq!(holding(&heard), [("bob".into(), "read".into()), ("eve".into(), "new".into())]);
    assert_eq!(heard.order().seen, 6);
    heard.learn(6, change("bob", None));
    heard.learn(7, change("ann", Some("before 8")));
    assert_eq!(holding(&heard), [("bob".into(), "read".into()), ("eve".into(), "new".into())]);
    assert_eq!(heard.order().seen, 9);
}

#[test]
fn a_change_that_is_missing_is_not_waited_for_with_ever_more() {
    let heard = heard();
    for number in 2..3 * AHEAD_MAX as u64 {
        heard.learn(number, change("ann", Some("x")));
    }
    let known = heard.order();
    assert_eq!((known.seen, known.ahead.len()), (0, AHEAD_MAX));
}

#[test]
fn what_is_told_is_written_and_read_alike() {
    let heard = heard();
    let written = [
        (BanKey { namespace: "n".into(), client: "J\"ü\\".into(), room: "a/b".into() }, row("it's \"spam\"")),
        (key("bob"), BanRow { since_us: -1, until_us: Some(i64::MAX), reason: None }),
    ];
    for (key, row) in written {
        assert_eq!(read_key(key_text(&key).as_bytes()), Some(key));
        assert_eq!(read_row(row_text(&row).as_bytes()), Some(row));
    }
    let (key, row) = (key_text(&key("ann")), row_text(&row("spam")));
    heard.told(&serde_json::to_vec(&Told { number: 1, key: key.into(), row: Some(row.into()) }).unwrap());
    assert_eq!(holding(&heard), [("ann".into(), "spam".into())]);
}

#[test]
fn what_no_gateway_has_told_does_nothing() {
    let heard = heard();
    for told in [
        "",
        "[]",
        r#"{"number":1}"#,
        r#"{"number":-1,"key":"[\"n\",\"a\",\"\"]","row":null}"#,
        r#"{"number":1,"key":"[\"n\",\"a\"]","row":"[5,null,null]"}"#,
        r#"{"number":1,"key":"[\"n\",\"\",\"\"]","row":"[5,null,null]"}"#,
        r#"{"number":1,"key":"[\"n\",\"a\\u0007\",\"\"]","row":"[5,null,null]"}"#,
        r#"{"number":1,"key":"[\"n\",\"a\",\"\"]","row":"[null,null,null]"}"#,
        r#"{"number":1,"key":"[\"n\",\"a\",\"\"]","row":"[5.5,null,null]"}"#,
    ] {
        heard.told(told.as_bytes());
        assert_eq!(holding(&heard), [], "{told}");
        assert_eq!(heard.order().seen, 0, "{told}");
    }
    // Times that no date can hold, and a namespace that this node does not know: they count, and hold nobody.
    heard.told(br#"{"number":1,"key":"[\"n\",\"a\",\"\"]","row":"[9223372036854775807,null,null]"}"#);
    heard.told(br#"{"number":2,"key":"[\"m\",\"a\",\"\"]","row":"[5,null,null]"}"#);
    assert_eq!(holding(&heard), []);
    assert_eq!(heard.order().seen, 2);
    let reason = "x".repeat(REASON_MAX + 1);
    assert_eq!(read_row(format!(r#"[5,null,"{reason}"]"#).as_bytes()).unwrap().reason, None);
}
