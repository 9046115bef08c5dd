//! One room: a member publishes to all, itself included.
use super::Place;
use super::crowd::Group;
use super::listener::{Listener, Publisher};
use crate::proc;
use crate::report::Report;
use std::time::Instant;

/// Measures deliveries to all members; a tenth as many messages go before.
pub async fn run(place: &Place, messages: u64) -> Result<Report, String> {
    let others = place.clients.checked_sub(1).filter(|n| *n > 0).ok_or("a room needs two clients at least")?;
    let mut group = Group::open(place, 0..others, |_| Listener::new(place, None)).await?;
    if !place.floor {
        group.join().await?;
    }
    let mut publisher = Publisher::open(place).await?;
    publisher.calm().await?;
    for _ in 0..messages.div_ceil(10) {
        publish(&mut publisher, &group).await?;
    }
    let (cpu0, started) = (proc::cpu(&place.pids), Instant::now());
    for _ in 0..messages {
        publish(&mut publisher, &group).await?;
    }
    let (secs, cpu) = (started.elapsed().as_secs_f64(), proc::cpu(&place.pids) - cpu0);
    group.tally.calm().await?;
    publisher.end().await?;
    group.end().await?;
    Ok(Report::default().count("members", place.clients as u64).count("published", messages).work(
        "deliveries",
        messages * place.clients as u64,
        secs,
        cpu,
    ))
}

async fn publish(publisher: &mut Publisher, group: &Group<Listener>) -> Result<(), String> {
    publisher.publish().await?;
    group.tally.reach(group.len() as u64, "deliveries of one message").await
}
