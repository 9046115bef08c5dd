//! Opens connections, lets them rest, and takes the server's memory for each.
use crate::conn::{Conn, Target};
use crate::report::Report;
use crate::{Common, open_all, proc};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Measures the memory that the connections have added. They keep reading and answer pings.
pub async fn run(c: Common) -> Result<Report, String> {
    let target = Target::new(&c.url, true)?;
    let before = proc::memory(&c.pids);
    let lost = Arc::new(AtomicU64::new(0));
    let rest = |mut conn: Conn, lost: Arc<AtomicU64>| async move {
        while conn.read_messages(|_| ()).await.is_ok() {}
        lost.fetch_add(1, Relaxed);
    };
    open_all(&c, &target, |_, conn| drop(tokio::spawn(rest(conn, lost.clone())))).await?;
    tokio::time::sleep(c.secs()).await;
    let after = proc::memory(&c.pids);
    let grown_bytes = after.saturating_sub(before) as f64 * 1024.0;
    Ok(Report::default()
        .count("connections", c.conns as u64)
        .count("lost_connections", lost.load(Relaxed))
        .count("memory_kib", after)
        .count("memory_before_kib", before)
        .number("bytes_per_connection", grown_bytes / c.conns as f64, 0))
}
