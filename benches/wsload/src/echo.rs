//! Every connection sends a message and waits for its echo.
use crate::conn::{Conn, Target};
use crate::report::{Report, histogram};
use crate::{Common, frame, open_all, proc};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Phase {
    /// Connections that have had an echo.
    warm: AtomicUsize,
    measured: AtomicBool,
    stop: AtomicBool,
}

/// Measures echoes of `size` bytes, `window` of them in flight on each connection.
pub async fn run(c: Common, size: usize, window: usize) -> Result<Report, String> {
    let target = Target::new(&c.url, true)?;
    let mut conns = Vec::with_capacity(c.conns);
    open_all(&c, &target, |_, conn| conns.push(conn)).await?;
    let phase = Arc::new(Phase::default());
    let mut set = tokio::task::JoinSet::new();
    for conn in conns {
        set.spawn(one(conn, phase.clone(), size, window));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    while phase.warm.load(Relaxed) < c.conns {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Some(ended) = set.try_join_next() {
            return Err(ended.map_err(|e| e.to_string())?.err().unwrap_or_else(|| "a connection stopped".into()));
        }
    }
    let cpu0 = proc::cpu(&c.pids);
    phase.measured.store(true, Relaxed);
    let t0 = Instant::now();
    tokio::time::sleep(c.secs()).await;
    phase.measured.store(false, Relaxed);
    let (secs, cpu) = (t0.elapsed().as_secs_f64(), proc::cpu(&c.pids) - cpu0);
    phase.stop.store(true, Relaxed);
    let mut all = histogram();
    let mut n = 0;
    while let Some(r) = set.join_next().await {
        let (k, h) = r.map_err(|e| e.to_string())??;
        n += k;
        all.add(&h).map_err(|e| e.to_string())?;
    }
    Ok(Report::default().work("echoes", n, secs, cpu).times(&all))
}

async fn one(mut conn: Conn, phase: Arc<Phase>, size: usize, window: usize) -> Result<(u64, Histogram<u64>), String> {
    let mut h = histogram();
    let frame = frame::client_frame(1, &vec![b'x'; size]);
    let mut sent = VecDeque::new();
    let (mut n, mut cold) = (0u64, true);
    for _ in 0..window {
        sent.push_back(Instant::now());
        conn.write(&frame).await?;
    }
    while !phase.stop.load(Relaxed) {
        let mut wrong = 0;
        let got = conn.read_messages(|payload| wrong += usize::from(payload.len() != size)).await?;
        if wrong > 0 {
            return Err(format!("{wrong} messages are not the echo of {size} bytes"));
        }
        if std::mem::take(&mut cold) {
            phase.warm.fetch_add(1, Relaxed);
        }
        let measured = phase.measured.load(Relaxed);
        let mut burst = Vec::with_capacity(frame.len() * got);
        for _ in 0..got {
            let Some(t) = sent.pop_front() else { continue };
            if measured {
                h.record(t.elapsed().as_micros() as u64).ok();
                n += 1;
            }
            burst.extend_from_slice(&frame);
            sent.push_back(Instant::now());
        }
        if !burst.is_empty() {
            conn.write(&burst).await?;
        }
    }
    Ok((n, h))
}
