//! `/api/status` and `/api/drain`: the process as a whole.
use super::Call;
use super::answer::{Answer, Fault};
use super::body::Object;
use crate::health::Phase;
use crate::upstream::{AddressLevel, Level};
use hyper::StatusCode;
use serde_json::{Map, Value, json};

/// `GET /api/status`.
pub(super) fn show(call: &Call<'_>) -> Result<Answer, Fault> {
    call.query(&[])?;
    let state = call.state;
    let levels = state.metrics.levels();
    let sessions: Map<String, Value> =
        levels.sessions.iter().map(|(service, n)| (service.label().to_owned(), (*n).into())).collect();
    let phase = match state.health.phase() {
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Draining => "draining",
    };
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": levels.uptime.as_secs(),
        "phase": phase,
        "connections": levels.connections,
        "sessions": sessions,
        "rooms": levels.rooms,
        "shards": state.config.server.shards,
        "upstreams": state.upstreams.levels().iter().map(upstream).collect::<Vec<_>>(),
        "nodes": [],
    });
    Ok(Answer::json(StatusCode::OK, &body))
}

fn upstream((name, servers): &(String, Vec<Level>)) -> Value {
    json!({ "name": name, "servers": servers.iter().map(server).collect::<Vec<_>>() })
}

fn server(level: &Level) -> Value {
    let address =
        |level: &AddressLevel| json!({ "address": level.address, "healthy": level.healthy, "used": level.used });
    json!({
        "url": level.url,
        "weight": level.weight,
        "healthy": level.is_healthy(),
        "used": level.used,
        "addresses": level.addresses.iter().map(address).collect::<Vec<_>>(),
    })
}

/// `POST /api/drain`. Answered before the drain begins, and as well where it has begun.
pub(super) async fn drain(call: Call<'_>) -> Result<Answer, Fault> {
    call.query(&[])?;
    let state = call.state;
    let text = call.body.optional_text().await?;
    Object::parse(&text, &[])?;
    tracing::info!("a drain was asked for at the admin interface");
    state.drain.notify_one();
    let window = state.config.server.drain.as_secs_f64();
    Ok(Answer::json(StatusCode::ACCEPTED, &json!({ "phase": "draining", "window_seconds": window })))
}
