//! Opens and closes connections.
use crate::Common;
use crate::conn::{Conn, Opening, Target};
use crate::phase::{Phase, WARM_UP};
use crate::report::{Report, histogram};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Measures whole handshakes: TCP, TLS, the upgrade and the init messages.
pub async fn run(c: Common, resume: bool) -> Result<Report, String> {
    let target = Target::new(&c.url, resume)?;
    let phase = Arc::new(Phase::default());
    let mut set = tokio::task::JoinSet::new();
    for i in 0..c.conns {
        set.spawn(one(target.clone(), i, c.opening(), phase.clone()));
    }
    tokio::time::sleep(WARM_UP).await;
    let (secs, cpu) = phase.measure(&c).await;
    let mut all = histogram();
    let (mut n, mut failed) = (0, 0);
    while let Some(r) = set.join_next().await {
        let (k, f, h) = r.map_err(|e| e.to_string())?;
        n += k;
        failed += f;
        all.add(&h).map_err(|e| e.to_string())?;
    }
    Ok(Report::default().work("handshakes", n, secs, cpu).count("failed", failed).times(&all))
}

async fn one(target: Target, i: usize, opening: Opening, phase: Arc<Phase>) -> (u64, u64, Histogram<u64>) {
    let mut h = histogram();
    let (mut n, mut failed) = (0, 0);
    while !phase.is_over() {
        let t = Instant::now();
        match Conn::open(&target, i, &opening).await {
            Ok(_) if phase.is_measured() => {
                h.record(t.elapsed().as_micros() as u64).ok();
                n += 1;
            }
            Ok(_) => (),
            Err(e) => {
                if failed == 0 {
                    eprintln!("wsload: {e}");
                }
                failed += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    (n, failed, h)
}
