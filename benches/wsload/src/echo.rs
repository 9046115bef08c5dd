//! Every connection sends a message and waits for its echo.
use crate::conn::{Conn, Target};
use crate::phase::{self, Counted, Phase, WARM_UP};
use crate::report::{Report, histogram};
use crate::{Common, frame, open_all};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Measures echoes of `size` bytes, `window` of them in flight on each connection.
pub async fn run(c: Common, size: usize, window: usize) -> Result<Report, String> {
    let target = Target::new(&c.url, true)?;
    let mut conns = Vec::with_capacity(c.conns);
    open_all(&c, &target, |_, conn| conns.push(conn)).await?;
    let phase = Arc::new(Phase::default());
    // Connections that have had an echo.
    let warm = Arc::new(AtomicUsize::new(0));
    let mut set = tokio::task::JoinSet::new();
    for conn in conns {
        set.spawn(one(conn, phase.clone(), warm.clone(), size, window));
    }
    tokio::time::sleep(WARM_UP).await;
    while warm.load(Relaxed) < c.conns {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Some(ended) = set.try_join_next() {
            return Err(ended.map_err(|e| e.to_string())?.err().unwrap_or_else(|| "a connection stopped".into()));
        }
    }
    let (secs, cpu) = phase.measure(&c).await;
    let (n, all) = phase::sum(set).await?;
    Ok(Report::default().work("echoes", n, secs, cpu).times(&all))
}

async fn one(mut conn: Conn, phase: Arc<Phase>, warm: Arc<AtomicUsize>, size: usize, window: usize) -> Counted {
    let mut h = histogram();
    let frame = frame::client_frame(1, &vec![b'x'; size]);
    let mut sent = VecDeque::new();
    let (mut n, mut cold) = (0u64, true);
    for _ in 0..window {
        sent.push_back(Instant::now());
        conn.write(&frame).await?;
    }
    while !phase.is_over() {
        let mut wrong = 0;
        let got = conn.read_messages(|payload| wrong += usize::from(payload.len() != size)).await?;
        if wrong > 0 {
            return Err(format!("{wrong} messages are not the echo of {size} bytes"));
        }
        if std::mem::take(&mut cold) {
            warm.fetch_add(1, Relaxed);
        }
        let measured = phase.is_measured();
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
