//! The threads of the shards.
use crate::admission::Gate;
use crate::front::{Front, Opening};
use crate::health::{BEAT_EVERY, Health};
use crate::listen::{self, Intake, Job, Sockets};
use crate::metrics::Metrics;
use crate::rooms::{Inbox, Rooms, Shared};
use crate::session::Surroundings;
use crate::shard::Shard;
use crate::upstream::{Lines, Upstreams};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tokio::sync::Barrier;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet, spawn_local};

/// What a shard's thread is made from.
pub(super) struct ShardParts {
    pub(super) index: usize,
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    pub(super) draining: Arc<AtomicBool>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) shared: Shared,
    pub(super) inbox: Inbox,
    /// Where the shards meet at the end.
    pub(super) ending: Arc<Barrier>,
}

/// The running shards.
pub(super) struct Running(JoinSet<Result<(), String>>);

impl Running {
    pub(super) fn start(parts: Vec<ShardParts>) -> Result<(Running, Vec<Intake>), String> {
        let mut running = JoinSet::new();
        let mut intakes = Vec::new();
        for parts in parts {
            let (intake, jobs) = Intake::new();
            intakes.push(intake);
            let (ended, end) = oneshot::channel();
            let index = parts.index;
            std::thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || {
                    let result = run(parts, jobs);
                    let _ = ended.send(result);
                })
                .map_err(|e| format!("cannot start a thread: {e}"))?;
            running.spawn(async move {
                // A thread that panicked sends nothing.
                end.await.unwrap_or_else(|_| Err(format!("shard {index} has died")))
            });
        }
        Ok((Running(running), intakes))
    }

    /// Waits for a shard to end by itself, which none should.
    pub(super) async fn next_end(&mut self) -> String {
        match self.0.join_next().await {
            Some(Ok(Err(died))) => died,
            _ => "a shard has ended".into(),
        }
    }

    /// Waits for all shards to end.
    pub(super) async fn all_ended(&mut self) {
        while let Some(ended) = self.0.join_next().await {
            if let Ok(Err(died)) = ended {
                tracing::error!(%died, "a shard did not end in order");
            }
        }
    }
}

fn run(parts: ShardParts, jobs: Receiver<Job>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start a shard's runtime: {e}"))?;
    let ShardParts { index, gate, metrics, health, draining, upstreams, sockets, shared, inbox, ending } = parts;
    let local = LocalSet::new();
    let opening = Opening::default();
    local.block_on(&runtime, async move {
        let shard = Shard::new(index, metrics);
        let rooms = Rooms::new(shared, shard.clone());
        spawn_local(shard.clone().run_fanout());
        spawn_local(rooms.clone().run(inbox));
        spawn_local(beat(shard.clone(), health.clone()));
        let around = Surroundings { gate, shard, rooms: rooms.clone() };
        let lines = Rc::new(Lines::default());
        spawn_local(lines.clone().sweep());
        let front = Rc::new(Front { around, upstreams, lines, draining, opening });
        listen::run(front, sockets, jobs).await;
        // The rooms whose home is here are in use until the last session of all shards has ended, and what that one
        // left behind is on its way then.
        ending.wait().await;
        rooms.settle().await;
        ending.wait().await;
        health.ended(index);
    });
    // A name look-up that hangs must not hold up the end.
    runtime.shutdown_background();
    Ok(())
}

/// Shows that the shard's loop runs, and how late it runs.
async fn beat(shard: Rc<Shard>, health: Arc<Health>) {
    loop {
        let due = Instant::now() + BEAT_EVERY;
        health.beat(shard.index, Instant::now());
        tokio::time::sleep(BEAT_EVERY).await;
        shard.metrics().loop_lag(due.elapsed());
    }
}
