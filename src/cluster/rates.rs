//! Rates that count over all nodes (`shared_limits`): what [`limits::shared`](crate::limits::shared) collects is settled
//! with Redis, again and again.
use super::link::Trouble;
use super::nodes::Nodes;
use super::script::{Call, Reply, Script};
use crate::limits::Limiter;
use crate::limits::shared::Due;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinSet, yield_now};
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
pub static SETTLE: Script = Script::new(include_str!("rates.lua"));

/// Settles what `limiter` collects; does not end. Where Redis does not answer, what was taken meanwhile counts on this node
/// alone.
pub async fn settle(nodes: Arc<Nodes>, limiter: Arc<Limiter>, prefix: Arc<str>) {
    let mut writer = writer_name();
    let mut every = interval(SETTLE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let call = |call| {
            let nodes = nodes.clone();
            async move { nodes.call(call).await }
        };
        if !round(&limiter, &prefix, &writer, call).await {
            // Redis may have taken it for this node's, which has not heard what the others took before.
            writer = writer_name();
        }
    }
}

/// Settles what waits, once. Whether all of it was answered.
async fn round<F>(limiter: &Limiter, prefix: &str, writer: &str, answer: impl Fn(Call) -> F) -> bool
where
    F: Future<Output = Result<Reply, Trouble>> + Send + 'static,
{
    let mut calls = JoinSet::new();
    for (part, due) in parts(limiter.to_settle(ROUND_MAX)) {
        let answer = answer(call(prefix, part, writer, &due));
        calls.spawn(async move { (due, answer.await) });
        // Encoding all of them takes milliseconds.
        yield_now().await;
    }
    let mut heard = true;
    while let Some(answered) = calls.join_next().await {
        heard &= answered.is_ok_and(|(due, answer)| settled(limiter, due, answer));
    }
    heard
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::file;
    use std::sync::Mutex;

    fn limiter() -> Arc<Limiter> {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/echo\"\nservice = \"echo\"\n\
                    [auth]\nrequired = false\nsources = []\n[limits]\nhandshakes_per_second = 1\n\
                    [cluster]\nredis = \"redis://127.0.0.1\"\nnode = \"one\"\nshared_limits = true\n";
        let config = file::parse(text, "gateway.toml", &|_| None, 1).unwrap_or_else(|faults| panic!("{faults}"));
        Limiter::of(&config)
    }

    fn handshakes(limiter: &Limiter, addresses: u32) {
        (0..addresses).for_each(|n| limiter.handshake(std::net::Ipv4Addr::from(n).into()).unwrap());
    }

    /// Whether a round in which this is answered was heard.
    async fn heard(limiter: &Limiter, answer: Result<Reply, Trouble>) -> bool {
        round(limiter, "p", "w", |_| std::future::ready(answer.clone())).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_has_the_buckets_of_one_slot_and_not_too_many() {
        let limiter = limiter();
        handshakes(&limiter, 3 * 4096);
        let parts = parts(limiter.to_settle(2 * 3 * 4096));
        assert_eq!(parts.iter().map(|(_, due)| due.len()).sum::<usize>(), 3 * 4096);
        assert!(parts.len() > 3 * PARTS);
        for (part, due) in &parts {
            assert!(due.len() <= CALL_MAX && due.iter().all(|due| due.part(PARTS) == *part));
        }
        let slots: std::collections::HashSet<u16> =
            parts.iter().map(|(part, due)| call("p", *part, "w", due).slot).collect();
        assert_eq!(slots.len(), PARTS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_names_who_takes_how_much_of_what() {
        let (limiter, calls) = (limiter(), Mutex::new(Vec::new()));
        handshakes(&limiter, 1);
        let answer = |call: Call| {
            let words = String::from_utf8(call.bytes).unwrap();
            let words: Vec<_> = words.split("\r\n").skip(2).step_by(2).map(str::to_owned).collect();
            calls.lock().unwrap().push(words);
            std::future::ready(Ok(Reply::List(vec![Reply::Int(1_500_000)])))
        };
        assert!(round(&limiter, "p", "w", answer).await);
        let calls = calls.into_inner().unwrap();
        let [words] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!((&*words[0], &*words[1], &*words[2]), ("EVALSHA", SETTLE.sha(), "1"));
        assert!(words[3].starts_with("p:{rate/") && words[3].len() > 40, "{words:?}");
        // A second of refilling, just now; at most 64 nodes' bursts of 2 s, and a second each.
        assert_eq!(words[4..], ["w", "1000000", "0", "192000000"]);
        // Another node has taken the other half of a second.
        assert!(limiter.handshake(std::net::Ipv4Addr::from(0).into()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_none_is_noticed() {
        let limiter = limiter();
        for answer in [
            Err(Trouble::Away),
            Ok(Reply::Nil),
            Ok(Reply::Int(0)),
            Ok(Reply::List(Vec::new())),
            Ok(Reply::List(vec![Reply::Int(9_000_000); 2])),
        ] {
            handshakes(&limiter, 1);
            assert!(!heard(&limiter, answer.clone()).await, "{answer:?}");
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        assert!(heard(&limiter, Ok(Reply::Nil)).await, "nothing waits, and nothing is asked");
        for nonsense in [Reply::Int(-5), Reply::Nil, Reply::Text("x".into())] {
            handshakes(&limiter, 1);
            assert!(heard(&limiter, Ok(Reply::List(vec![nonsense]))).await);
            tokio::time::advance(Duration::from_secs(2)).await;
        }
    }
}
