//! This node among the others of `[cluster]`.
use super::{Early, Parts};
use crate::admin;
use crate::bans;
use crate::cluster::nodes::{About, BEAT, LEAVE, Nodes, Standing, Topic};
use crate::cluster::{NodeId, Script, rates};
use crate::health::{Health, Phase, STALE_AFTER};
use crate::metrics::ClusterLevels;
use crate::notify::Notifier;
use crate::rooms::{self, Clustered, Shared, desk::Desk};
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Those of all calls of the main thread.
static SCRIPTS: &[&Script] = {
    let ([put, lift, restore, purge], [say, read]) = (bans::SCRIPTS, rooms::STATUS_SCRIPTS);
    &[&BEAT, &LEAVE, &rates::SETTLE, put, lift, restore, purge, say, read]
};
/// Bans that wait until the sessions here have ended.
const LATE_BANS: usize = 64;
/// Time for the last words to Redis.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the shards to reach Redis, which the main thread reaches already.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(5);

impl Early {
    /// Takes this node's place among the others; `None`: this gateway is alone.
    pub(super) async fn join(&self, serving: &mut JoinSet<()>) -> Result<Option<Clustered>, String> {
        let (Some(cluster), Some(redis)) = (&self.config.cluster, &self.redis) else { return Ok(None) };
        let (metrics, health) = (self.metrics.clone(), self.health.clone());
        let about: About = Box::new(move || admin::about(&metrics.levels(), health.phase()).to_string());
        let (nodes, running) = Nodes::join(cluster, redis, SCRIPTS, about).await?;
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
        Ok(Some(Clustered { config: cluster.clone(), redis: redis.clone(), nodes }))
    }
}

impl Parts {
    pub(super) fn nodes(&self) -> Option<&Arc<Nodes>> {
        self.cluster.as_ref().map(|cluster| &cluster.nodes)
    }

    /// Waits until the rooms of every shard reach Redis, so that who comes first is not refused.
    pub(super) async fn shards_reach(&self) {
        let Some(Clustered { redis, .. }) = &self.cluster else { return };
        if tokio::time::timeout(SHARDS_TIMEOUT, redis.reached_by(self.config.server.shards)).await.is_err() {
            tracing::warn!("not every shard reaches Redis yet");
        }
    }

    /// Shares bans, and what clients say of themselves, with the other nodes, and has what they ask answered.
    pub(super) async fn share(&self, desk: &Desk, rooms: &Shared, serving: &mut JoinSet<()>) {
        let Some(nodes) = self.nodes() else { return };
        answer(nodes, desk.clone(), self.health.clone());
        rooms.hear_statuses().await;
        let (late, mut bans_late) = mpsc::channel(LATE_BANS);
        let (bans, desk) = (self.lasting.bans.clone(), desk.clone());
        serving.spawn(async move { bans.follow(late).await });
        serving.spawn(async move {
            while let Some(ban) = bans_late.recv().await {
                desk.keep_out(ban.namespace, &ban.client, ban.room.as_deref()).await;
            }
        });
        serving.spawn(rooms.clone().share_statuses());
    }
}

/// Unless a shard is stuck: mail for it would pile up.
fn answer(nodes: &Nodes, desk: Desk, health: Arc<Health>) {
    let answer = move |question: Bytes| {
        let (desk, lives) = (desk.clone(), health.fresh(Instant::now(), STALE_AFTER));
        let answer = async move { if lives { desk.answer(&question).await } else { desk.no_answer() } };
        Box::pin(answer) as Pin<Box<dyn Future<Output = Bytes> + Send>>
    };
    nodes.answer(Box::new(answer));
}

/// A line for `systemctl status`.
pub(super) fn status(nodes: Option<&Arc<Nodes>>) -> &'static str {
    match nodes.map(|nodes| *nodes.standing().borrow()) {
        None | Some(Standing::Reached) => "serving",
        Some(Standing::Away) => "serving; Redis is not reached",
        Some(Standing::Nameless) => "serving; another node has taken this node's name",
    }
}

/// Says how this node stands, in the log and to systemd.
pub(super) async fn tell_standing(nodes: Arc<Nodes>, health: Arc<Health>, notifier: Notifier) {
    let mut standing = nodes.standing();
    let mut before = *standing.borrow_and_update();
    while standing.changed().await.is_ok() {
        let now = *standing.borrow_and_update();
        match now {
            Standing::Reached if before == Standing::Nameless => tracing::info!("this node has its name again"),
            Standing::Reached => tracing::info!("Redis is reached again"),
            Standing::Away => tracing::error!("Redis is not reached: nothing can be published, no room be opened"),
            // The driver has said so.
            Standing::Nameless => (),
        }
        before = now;
        if health.phase() == Phase::Ready {
            notifier.status(status(Some(&nodes)));
        }
    }
}
