//! `POST /api/notify`: a push of the application's own type to sessions of rooms routes.
use super::answer::{Answer, Fault};
use super::body::{self, Object, needed};
use super::{Call, asked, name};
use crate::rooms::protocol::push;
use serde_json::json;
use serde_json::value::RawValue;

/// Clients of one call.
const CLIENTS_MAX: usize = 1000;
/// Bytes of a type.
const TYPE_MAX: usize = 64;

/// The types of protocol.md, which an application must not forge.
const OWN_TYPES: [&str; 20] = [
    "auth",
    "auth_response",
    "chat_message",
    "connection_established",
    "disconnect",
    "error",
    "join_room",
    "leave_room",
    "message",
    "message_sent",
    "ping",
    "pong",
    "presence_query",
    "presence_update",
    "read_receipt",
    "room_joined",
    "room_left",
    "room_members",
    "typing_start",
    "typing_stop",
];

/// Answers with the number of sessions.
pub(super) async fn notify(call: Call<'_>) -> Result<Answer, Fault> {
    let query = call.query(&["namespace"])?;
    let (state, desk) = (call.state, call.desk()?);
    let text = call.body.text().await?;
    let body = Object::parse(&text, &["namespace", "client_ids", "everyone", "type", "payload"])?;
    let kind = needed(body.string("type")?, "type")?;
    check_type(&kind)?;
    let clients = clients(&body)?;
    let payload = body.passed_on("payload", state.config.rooms.max_message_size)?.map_or("{}", RawValue::get);
    let own = body.string("namespace")?;
    let namespace = name::namespace(&state.config.namespaces, own.as_deref().or(query.get("namespace")))?;
    let pushed = RawValue::from_string(push::envelope(&kind, &payload, None));
    let pushed = pushed.map_err(|_| Fault::Internal("the message is not JSON"))?;
    let notified = asked(desk.notify(namespace, clients, &pushed)).await?;
    Ok(Answer::of_all(json!({ "sessions": notified.found }), &notified.unanswered))
}

fn check_type(kind: &str) -> Result<(), Fault> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if !(1..=TYPE_MAX).contains(&kind.len()) || !kind.bytes().all(allowed) {
        return Err(Fault::bad(format!("\"type\" must be 1 to {TYPE_MAX} bytes of letters, digits and -_.:")));
    }
    if OWN_TYPES.contains(&kind) {
        return Err(Fault::bad("\"type\" is one of the protocol's own"));
    }
    Ok(())
}

/// `None`: everyone.
fn clients(body: &Object<'_>) -> Result<Option<Vec<Box<str>>>, Fault> {
    let everyone = body.has("everyone");
    if everyone == body.has("client_ids") {
        return Err(Fault::bad("exactly one of \"client_ids\" and \"everyone\" must be there"));
    }
    if everyone {
        let yes = body.raw("everyone").is_some_and(|value| value.get() == "true");
        return if yes { Ok(None) } else { Err(Fault::bad("\"everyone\" must be true")) };
    }
    let wrong = || Fault::bad(format!("\"client_ids\" must be a list of 1 to {CLIENTS_MAX} strings"));
    let listed = body.raw("client_ids").ok_or_else(wrong)?;
    let listed = body::list(listed.get(), CLIENTS_MAX).map_err(|_| wrong())?;
    let client = |item: &RawValue| {
        let client: Box<str> = serde_json::from_str(item.get()).map_err(|_| wrong())?;
        name::client(&client, "each of \"client_ids\"")?;
        Ok(client)
    };
    let mut clients = listed.into_iter().map(client).collect::<Result<Vec<_>, Fault>>()?;
    clients.sort_unstable();
    // A client that is named twice is told once.
    clients.dedup();
    Ok(Some(clients))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_the_applications_own() {
        for kind in ["notification", "order.shipped", "a:b-c_D9", &"x".repeat(64)] {
            assert_eq!(check_type(kind), Ok(()), "{kind}");
        }
        for kind in ["", "a b", "a\"b", "ä", "a/b", &"x".repeat(65), "chat_message", "error", "ping", "room_left"] {
            assert!(check_type(kind).is_err(), "{kind}");
        }
    }

    #[test]
    fn whom_it_is_for_is_said_once() {
        let read = |text: &'static str| {
            clients(&Object::parse(text, &["client_ids", "everyone"]).expect("an object"))
                .map(|c| c.map(|c| c.iter().map(ToString::to_string).collect::<Vec<_>>()))
        };
        assert_eq!(read(r#"{"everyone":true}"#), Ok(None));
        assert_eq!(read(r#"{"client_ids":["b","a","b"],"everyone":null}"#), Ok(Some(vec!["a".into(), "b".into()])));
        for text in [
            "{}",
            r#"{"everyone":false}"#,
            r#"{"everyone":1}"#,
            r#"{"everyone":true,"client_ids":["a"]}"#,
            r#"{"everyone":false,"client_ids":["a"]}"#,
            r#"{"client_ids":[]}"#,
            r#"{"client_ids":"a"}"#,
            r#"{"client_ids":[1]}"#,
            r#"{"client_ids":[""]}"#,
            r#"{"client_ids":["a\n"]}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
