//! `/api/clients/ID`: the sessions of a client, and their end.
use super::answer::{Answer, Fault};
use super::body::Object;
use super::{Call, asked, name};
use crate::close::{Close, Code};
use crate::rooms::desk::SessionView;
use crate::rooms::protocol::push::Time;
use serde_json::{Value, json};

/// Bytes of the reason in a Close frame (RFC 6455, 5.5.1).
const REASON_MAX: usize = 123;

/// `GET /api/clients/ID`. A client without a session is no fault: whoever asks wants to know just that.
pub(super) async fn show(call: Call<'_>, client: &str) -> Result<Answer, Fault> {
    let client = name::client_of(client)?;
    let query = call.query(&["namespace"])?;
    let namespace = call.namespace(&query)?;
    let seen = asked(call.desk()?.sessions(namespace, &client)).await?;
    let sessions: Vec<Value> = seen.found.iter().map(session).collect();
    Ok(Answer::of_all(json!({ "client_id": client, "sessions": sessions }), &seen.unanswered))
}

/// `DELETE /api/clients/ID`.
pub(super) async fn disconnect(call: Call<'_>, client: &str) -> Result<Answer, Fault> {
    let client = name::client_of(client)?;
    let query = call.query(&["namespace"])?;
    let (namespace, desk) = (call.namespace(&query)?, call.desk()?);
    let text = call.body.optional_text().await?;
    let close = close(Object::parse(&text, &["reason"])?.string("reason")?.as_deref());
    let reason = close.reason.clone();
    let closed = asked(desk.disconnect(namespace, &client, close)).await?;
    tracing::info!(client, sessions = closed.found, reason, "closed by the admin interface");
    Ok(Answer::of_all(json!({ "sessions": closed.found }), &closed.unanswered))
}

fn session(view: &SessionView) -> Value {
    let mut session = json!({
        "session_id": view.session_id.to_string(),
        "since": Time(view.since).to_string(),
        "route": *view.route,
        "rooms": view.rooms.iter().map(|room| &**room).collect::<Vec<_>>(),
    });
    if let Some(node) = &view.node {
        session["node"] = (**node).into();
    }
    if let Some(status) = &view.status {
        session["status"] = status.as_str().into();
    }
    session
}

/// The code's own words, then the administrator's.
fn close(reason: Option<&str>) -> Close {
    let own = Code::Administrator.message();
    match reason.map(str::trim).filter(|reason| !reason.is_empty()) {
        None => Close::gateway(Code::Administrator),
        Some(reason) => Close::because(Code::Administrator, name::words(&format!("{own}: {reason}"), REASON_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_a_close_frame() {
        assert_eq!(close(None).reason, "disconnected by an administrator");
        assert_eq!(close(Some(" ")).reason, "disconnected by an administrator");
        assert_eq!(close(Some("spam\n\u{1b}[2J")).reason, "disconnected by an administrator: spam  [2J");
        let long = close(Some(&"ä".repeat(100)));
        assert!(long.reason.len() <= REASON_MAX && long.reason.ends_with('ä'));
        assert_eq!(long.payload().len(), 2 + long.reason.len());
    }
}
