//! The part of a run in which the tasks of its connections count.
use crate::report::histogram;
use crate::{Common, proc};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long tasks work before they count.
pub const WARM_UP: Duration = Duration::from_millis(500);

/// What one task has counted: how often, and how long each took.
pub type Counted = Result<(u64, Histogram<u64>), String>;

/// Where tasks see whether they count, and whether they go on.
#[derive(Default)]
pub struct Phase {
    measured: AtomicBool,
    stop: AtomicBool,
}

impl Phase {
    /// Has the tasks count for the time of a run, and then stop. How many seconds that were, and how many of CPU time
    /// were charged to the server.
    pub async fn measure(&self, c: &Common) -> (f64, f64) {
        let cpu0 = proc::cpu(&c.pids);
        self.measured.store(true, Relaxed);
        let t0 = Instant::now();
        tokio::time::sleep(c.secs()).await;
        self.measured.store(false, Relaxed);
        let found = (t0.elapsed().as_secs_f64(), proc::cpu(&c.pids) - cpu0);
        self.stop.store(true, Relaxed);
        found
    }

    /// Whether what is done now counts.
    pub fn is_measured(&self) -> bool {
        self.measured.load(Relaxed)
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// What all tasks have counted, when the last has ended.
pub async fn sum(mut tasks: JoinSet<Counted>) -> Counted {
    let mut all = histogram();
    let mut n = 0;
    while let Some(task) = tasks.join_next().await {
        let (k, h) = task.map_err(|e| e.to_string())??;
        n += k;
        all.add(&h).map_err(|e| e.to_string())?;
    }
    Ok((n, all))
}
