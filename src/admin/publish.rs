//! `POST /api/publish`: messages of servers to rooms, one or a list of them.
use super::answer::{Answer, Fault};
use super::body::{self, Object, needed};
use super::{Call, State, asked_until, deadline, name, rooms};
use crate::rooms::desk::{NewMessage, Refusal, Sent};
use crate::rooms::protocol::NAME_MAX;
use hyper::StatusCode;
use serde_json::{Value, json};

/// Messages of one call.
const LIST_MAX: usize = 1000;

const MEMBERS: &[&str] = &["namespace", "room_id", "message", "sender_id", "message_id"];

/// One object, answered with its status; or a list, answered with 207 and a status for each item.
pub(super) async fn publish(call: Call<'_>) -> Result<Answer, Fault> {
    let query = call.query(&["namespace"])?;
    let (state, namespace) = (call.state, query.get("namespace"));
    if namespace.is_some() {
        call.namespace(&query)?;
    }
    call.desk()?;
    let text = call.body.text().await?;
    if !text.trim_ascii_start().starts_with('[') {
        let sent = asked_until(deadline(), post(state, &text, namespace)?).await?.map_err(Fault::Refused)?;
        return Ok(Answer::json(StatusCode::OK, &Value::Object(told(&sent))));
    }
    // All are posted before the first answer is waited for, so that one call is one turn of each home.
    let posted: Vec<_> =
        body::list(&text, LIST_MAX)?.into_iter().map(|item| post(state, item.get(), namespace)).collect();
    let deadline = deadline();
    let mut items = Vec::with_capacity(posted.len());
    for answer in posted {
        let sent = match answer {
            Ok(answer) => asked_until(deadline, answer).await.and_then(|sent| sent.map_err(Fault::Refused)),
            Err(fault) => Err(fault),
        };
        items.push(match sent {
            Ok(sent) => {
                let mut item = told(&sent);
                item.insert("status".to_owned(), 200.into());
                Value::Object(item)
            }
            Err(fault) => json!({ "status": fault.status().as_u16(), "error": fault.error() }),
        });
    }
    Ok(Answer::json(StatusCode::MULTI_STATUS, &Value::Array(items)))
}

/// Posts a message; the future is its answer. A namespace of its own comes before that of the call.
fn post(
    state: &State,
    text: &str,
    namespace: Option<&str>,
) -> Result<impl Future<Output = Result<Sent, Refusal>> + use<>, Fault> {
    let item = Object::parse(text, MEMBERS)?;
    let own = item.string("namespace")?;
    let room = needed(item.room("room_id")?, "room_id")?;
    let message = needed(item.passed_on("message", state.config.rooms.max_message_size)?, "message")?;
    let sender = item.client("sender_id")?;
    let message_id = item.string("message_id")?;
    if message_id.as_ref().is_some_and(|id| !(1..=NAME_MAX).contains(&id.len())) {
        return Err(Fault::bad(format!("\"message_id\" must be 1 to {NAME_MAX} bytes")));
    }
    let namespace = name::namespace(&state.config.namespaces, own.as_deref().or(namespace))?;
    let message = NewMessage {
        sender: sender.map(Into::into),
        message_id: message_id.map(Into::into),
        message: message.to_owned(),
    };
    Ok(state.desk.publish(namespace, &room, message))
}

fn told(sent: &Sent) -> serde_json::Map<String, Value> {
    let mut told = serde_json::Map::new();
    told.insert("position".to_owned(), rooms::position(&sent.position));
    told.insert("duplicate".to_owned(), sent.duplicate.into());
    told.insert("recipients".to_owned(), sent.recipients.into());
    told
}
