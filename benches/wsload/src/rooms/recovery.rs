//! All members but one are cut off, miss messages, and ask for them at once.
use super::Place;
use super::crowd::Group;
use super::listener::{Listener, Publisher};
use crate::proc;
use crate::report::Report;
use std::time::{Duration, Instant};

/// Messages that all see before they are cut off.
const BEFORE: u64 = 10;

/// Measures joins with `since` and the deliveries of all that was missed; with `presence` also its pushes.
pub async fn run(place: &Place, messages: u64, presence: bool) -> Result<Report, String> {
    let clients = place.clients as u64;
    let mut group = Group::open(place, 0..place.clients, |_| Listener::new(place, None)).await?;
    group.join().await?;
    let mut publisher = Publisher::open(place).await?;
    for _ in 0..BEFORE {
        publisher.publish().await?;
        group.tally.reach(clients, "deliveries of one message").await?;
    }
    group.tally.calm().await?;
    let cut = group.end().await?;
    alone(&publisher, place.within()).await?;
    for _ in 0..messages {
        publisher.publish().await?;
    }
    let since: Vec<_> = cut.into_iter().map(|listener| listener.seat.position).collect();
    let group = Group::open(place, 0..place.clients, |i| Listener::new(place, since[i].clone())).await?;
    publisher.calm().await?;
    let (cpu0, started) = (proc::cpu(&place.pids), Instant::now());
    group.storm();
    let due = clients * (1 + messages);
    group.tally.reach(due, "answers to join_room and missed messages").await?;
    let (secs, mut cpu) = (started.elapsed().as_secs_f64(), proc::cpu(&place.pids) - cpu0);
    group.tally.calm().await?;
    if presence {
        cpu = proc::cpu(&place.pids) - cpu0;
    }
    // What is live comes after all that was missed.
    publisher.publish().await?;
    group.tally.reach(clients, "deliveries of the message after the recovery").await?;
    group.tally.calm().await?;
    publisher.end().await?;
    group.end().await?;
    Ok(Report::default().count("clients", clients).count("missed", messages).number("last_ms", secs * 1e3, 1).work(
        "recovered",
        clients * messages,
        secs,
        cpu,
    ))
}

/// Waits until the server knows that only the publisher is left.
async fn alone(publisher: &Publisher, within: Duration) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let count = publisher.count().await?;
        if count == 1 {
            return Ok(());
        }
        if began.elapsed() > within {
            return Err(format!(
                "{count} members are in the room {} s after all but one were cut off",
                within.as_secs_f64()
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
