//! `/api/status` and `/api/drain`: the process as a whole.
use super::answer::{Answer, Fault};
use super::body::Object;
use super::{Call, State};
use crate::cluster::NodeId;
use crate::cluster::nodes::{NodeView, Topic};
use crate::health::Phase;
use crate::metrics::Levels;
use crate::upstream::{AddressLevel, Level};
use hyper::StatusCode;
use serde_json::{Map, Value, json};

/// `GET /api/status`.
pub(super) fn show(call: &Call<'_>) -> Result<Answer, Fault> {
    call.query(&[])?;
    let state = call.state;
    let levels = state.metrics.levels();
    let nodes = state.nodes.as_ref().map(|nodes| nodes.live().now());
    let nodes = nodes.iter().flat_map(|live| live.nodes.iter().map(|n| node(n, live.own)));
    let mut body = about(&levels, state.health.phase());
    body["uptime_seconds"] = levels.uptime.as_secs().into();
    body["shards"] = state.config.server.shards.into();
    body["upstreams"] = state.upstreams.levels().iter().map(upstream).collect();
    body["nodes"] = nodes.collect();
    Ok(Answer::json(StatusCode::OK, &body))
}

/// What a gateway says of itself, here and to the other nodes.
pub fn about(levels: &Levels, phase: Phase) -> Value {
    let sessions: Map<String, Value> =
        levels.sessions.iter().map(|(service, n)| (service.label().to_owned(), (*n).into())).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "phase": phase.word(),
        "connections": levels.connections,
        "sessions": sessions,
        "rooms": levels.rooms,
    })
}

/// A node with what it says of itself, of which another version may say more.
fn node(node: &NodeView, own: NodeId) -> Value {
    let mut view: Map<String, Value> = serde_json::from_str(&node.about).unwrap_or_default();
    view.insert("name".into(), (*node.name).into());
    view.insert("id".into(), node.id.to_string().into());
    view.insert("own".into(), (node.id == own).into());
    Value::Object(view)
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
    let node = Object::parse(&text, &["node"])?.string("node")?;
    if let Some(name) = node.as_deref().filter(|name| !is_own(state, name)) {
        return drain_other(state, name).await;
    }
    tracing::info!("a drain was asked for at the admin interface");
    state.drain.notify_one();
    let window = state.config.server.drain.as_secs_f64();
    Ok(Answer::json(StatusCode::ACCEPTED, &json!({ "phase": "draining", "window_seconds": window })))
}

fn is_own(state: &State, node: &str) -> bool {
    state.config.cluster.as_ref().is_some_and(|cluster| *cluster.node == *node)
}

/// Answered when Redis has taken it. How long it takes there is the other's own setting.
async fn drain_other(state: &State, name: &str) -> Result<Answer, Fault> {
    let Some(nodes) = &state.nodes else { return Err(Fault::Missing("there is one node, without a name")) };
    let live = nodes.live().now();
    let node = live.nodes.iter().find(|node| *node.name == *name).ok_or(Fault::Missing("no node of this name"))?;
    let told = nodes.tell_all(Topic::Drain, node.id.to_string().into()).await;
    told.map_err(|_| Fault::Unavailable("Redis is not reached"))?;
    tracing::info!(node = name, "a drain of another node was asked for at the admin interface");
    Ok(Answer::json(StatusCode::ACCEPTED, &json!({ "phase": "draining", "node": name })))
}
