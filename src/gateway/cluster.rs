//! This node among the others of `[cluster]`.
use super::{Parts, Stop};
use crate::cluster::nodes::{About, BEAT, LEAVE, Nodes, Standing, Topic};
use crate::cluster::{NodeId, Script, rates};
use crate::health::Health;
use crate::metrics::{ClusterLevels, Metrics};
use crate::notify::Notifier;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Those of all calls of the main thread.
static SCRIPTS: &[&Script] = &[&BEAT, &LEAVE, &rates::SETTLE];
/// Time for the last words to Redis.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

impl Parts {
    /// Takes this node's place among the others, where there may be some. `false`: a signal came first.
    pub(super) async fn join(&mut self, serving: &mut JoinSet<()>, stop: &mut Stop) -> Result<bool, String> {
        let Some(cluster) = &self.config.cluster else { return Ok(true) };
        let about = about(self.metrics.clone(), self.health.clone());
        let (nodes, running) = tokio::select! {
            joined = Nodes::join(cluster, SCRIPTS, about) => joined?,
            () = stop.next() => return Ok(false),
        };
        serving.spawn(running);
        let own = nodes.live().now().own;
        tracing::info!(node = %cluster.node, id = %own, "one of {} nodes", nodes.live().now().nodes.len());
        let levels = nodes.clone();
        self.metrics.read_cluster(move || ClusterLevels {
            nodes: levels.live().now().nodes.len(),
            reached: levels.reaches_redis(),
            unanswered: levels.unanswered(),
        });
        let (drain, live) = (self.drain.clone(), nodes.live().clone());
        let stops = move |id: Bytes| {
            if std::str::from_utf8(&id).ok().and_then(|id| id.parse::<NodeId>().ok()) == Some(live.now().own) {
                tracing::info!("a drain was asked for at another node");
                drain.notify_one();
            }
        };
        nodes.handle(Topic::Drain, Box::new(stops));
        if cluster.shared_limits {
            serving.spawn(rates::settle(nodes.clone(), self.limiter.clone(), cluster.prefix.clone()));
        }
        self.nodes = Some(nodes);
        Ok(true)
    }

    /// Gives the place up.
    pub(super) async fn leave(&self) {
        if let Some(nodes) = &self.nodes {
            nodes.leave(LEAVE_TIMEOUT).await;
        }
    }
}

fn about(metrics: Arc<Metrics>, health: Arc<Health>) -> About {
    Box::new(move || {
        let levels = metrics.levels();
        let sessions: Map<String, Value> =
            levels.sessions.iter().map(|(service, n)| (service.label().to_owned(), (*n).into())).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "phase": health.phase().word(),
            "connections": levels.connections,
            "sessions": sessions,
            "rooms": levels.rooms,
        })
        .to_string()
    })
}

/// Says how this node stands, in the log and to systemd.
pub(super) async fn tell_standing(nodes: Arc<Nodes>, health: Arc<Health>, notifier: Notifier) {
    let mut standing = nodes.standing();
    while standing.changed().await.is_ok() {
        let now = *standing.borrow_and_update();
        let text = match now {
            Standing::Reached => "serving",
            Standing::Away => "serving; Redis is not reached",
            Standing::Nameless => "serving; another node has taken this node's name",
        };
        match now {
            Standing::Reached => tracing::info!("Redis is reached again"),
            Standing::Away => tracing::error!("Redis is not reached: nothing can be published, no room be opened"),
            Standing::Nameless => (),
        }
        if health.phase() == crate::health::Phase::Ready {
            notifier.status(text);
        }
    }
}
