//! One room: a member publishes to all, itself included.
use super::Place;
use super::crowd::Group;
use super::listener::{Listener, Publisher};
use crate::proc;
use crate::report::Report;
use std::time::Instant;

/// Measures deliveries to all members of messages that are sent `batch` at a time; a tenth as many go before.
pub async fn run(place: &Place, messages: u64, batch: u64) -> Result<Report, String> {
    let others = place.clients.checked_sub(1).filter(|n| *n > 0).ok_or("a room needs two clients at least")?;
    if batch == 0 || messages == 0 || !messages.is_multiple_of(batch) {
        return Err("--messages must be a multiple of --batch, and neither 0".into());
    }
    let mut group = Group::open(place, 0..others, |_| Listener::new(place, None)).await?;
    if !place.floor {
        group.join().await?;
    }
    let mut publisher = Publisher::open(place).await?;
    publisher.calm().await?;
    for _ in 0..messages.div_ceil(10).div_ceil(batch) {
        publish(&mut publisher, &group, batch).await?;
    }
    let redis = place.watch_redis()?;
    let (cpu0, started) = (proc::cpu(&place.pids), Instant::now());
    for _ in 0..messages / batch {
        publish(&mut publisher, &group, batch).await?;
    }
    let (secs, cpu) = (started.elapsed().as_secs_f64(), proc::cpu(&place.pids) - cpu0);
    let report = Report::default().count("members", place.clients as u64).count("published", messages);
    let mut report = report.work("deliveries", messages * place.clients as u64, secs, cpu);
    if let Some(redis) = redis {
        report = redis.charge(report, messages)?;
    }
    group.tally.calm().await?;
    publisher.end().await?;
    group.end().await?;
    Ok(report)
}

async fn publish(publisher: &mut Publisher, group: &Group<Listener>, batch: u64) -> Result<(), String> {
    publisher.publish_many(batch).await?;
    group.tally.reach(batch * group.len() as u64, "deliveries").await
}
