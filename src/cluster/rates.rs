//! Rates that count over all nodes (`shared_limits`): what [`limits::shared`](crate::limits::shared) collects is settled
//! with Redis, again and again.
use super::link::Trouble;
use super::nodes::Nodes;
use super::script::{Call, Reply, Script};
use crate::limits::Limiter;
use crate::limits::shared::Due;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// How often what was taken is settled, where Redis answers sooner.
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// Buckets that are settled at a time; the others wait for the next.
const ROUND_MAX: usize = 8192;
/// Buckets of one call: they keep Redis busy for less than a millisecond.
const CALL_MAX: usize = 256;
/// Slots over which the buckets of a Redis Cluster are spread.
const PARTS: usize = 16;

/// See [`settle`].
pub static SETTLE: Script = Script::new("rates", include_str!("rates.lua"));

/// Settles what `limiter` collects; does not end. Where Redis does not answer, what was taken meanwhile counts on this node
/// alone.
pub async fn settle(nodes: Arc<Nodes>, limiter: Arc<Limiter>, prefix: Arc<str>) {
    let mut writer = writer_name();
    let mut every = interval(SETTLE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let mut calls = JoinSet::new();
        for (part, due) in parts(limiter.to_settle(ROUND_MAX)) {
            let (nodes, call) = (nodes.clone(), call(&prefix, part, &writer, &due));
            calls.spawn(async move { (due, nodes.call(call).await) });
        }
        while let Some(answered) = calls.join_next().await {
            let heard = answered.is_ok_and(|(due, answer)| settled(&limiter, due, answer));
            if !heard {
                // Redis may have taken it for this node's, which has not heard what the others took before.
                writer = writer_name();
            }
        }
    }
}

/// Who this is, until an answer is lost.
fn writer_name() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Those of one slot, and of one call, together.
fn parts(due: Vec<Due>) -> Vec<(usize, Vec<Due>)> {
    let mut parts: [Vec<Due>; PARTS] = Default::default();
    for due in due {
        parts[due.part(PARTS)].push(due);
    }
    let mut calls = Vec::new();
    for (part, mut due) in parts.into_iter().enumerate() {
        while !due.is_empty() {
            let rest = due.split_off(due.len().min(CALL_MAX));
            calls.push((part, std::mem::replace(&mut due, rest)));
        }
    }
    calls
}

fn call(prefix: &str, part: usize, writer: &str, due: &[Due]) -> Call {
    let micros = |nanos: u64| nanos.div_ceil(1000).to_string();
    let keys: Vec<String> = due.iter().map(|due| format!("{prefix}:{{rate/{part}}}:{}", due.name())).collect();
    let times = due.iter().flat_map(|due| [micros(due.cost), micros(due.age), micros(due.most)]);
    let args: Vec<String> = std::iter::once(writer.to_owned()).chain(times).collect();
    let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let args: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
    Call::script(&SETTLE, &keys, &args)
}

/// Takes an answer; whether it is one.
fn settled(limiter: &Limiter, due: Vec<Due>, answer: Result<Reply, Trouble>) -> bool {
    let Ok(answer) = answer else { return false };
    let Some(ahead) = answer.list().filter(|list| list.len() == due.len()) else { return false };
    for (due, ahead) in due.into_iter().zip(ahead) {
        let micros = ahead.int().and_then(|micros| u64::try_from(micros).ok()).unwrap_or(0);
        limiter.settled(due, Duration::from_micros(micros));
    }
    true
}
