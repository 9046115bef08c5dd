//! Many small rooms in which everyone publishes.
use super::Place;
use super::crowd::{Ear, Group, Tally};
use super::seat::{Heard, Seat, text_of};
use crate::proc;
use crate::report::Report;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Instant;

/// A member that publishes its next message when it sees the one before.
struct Talker {
    seat: Seat,
    room: usize,
    size: usize,
    /// Its number in the room, and for each number the messages that it has seen.
    own: usize,
    seen: Vec<u64>,
    messages: u64,
    /// Of all messages in the order in which they came.
    order: DefaultHasher,
}

impl Talker {
    fn text(&self, member: usize, n: u64) -> String {
        text_of(&format!("{member}-{n}"), self.size)
    }

    fn next(&self) -> String {
        self.seat.publish(&self.text(self.own, self.seen[self.own] + 1))
    }
}

impl Ear for Talker {
    fn hear(&mut self, payload: &[u8], tally: &Tally) -> Result<Option<String>, String> {
        let text = match self.seat.hear(payload)? {
            Heard::Presence | Heard::Crowd(_) => return Ok(None),
            Heard::Chat(text) => text,
            Heard::Joined(_) | Heard::Sent | Heard::Members(_) => {
                tally.add();
                return Ok(None);
            }
        };
        let member = text.split_once('-').and_then(|(member, _)| member.parse().ok()).filter(|m| *m < self.seen.len());
        let member: usize = member.ok_or_else(|| format!("a message of nobody in room {}: {text:?}", self.room))?;
        if text != self.text(member, self.seen[member] + 1) {
            return Err(format!("after {} messages of member {member} came {text:?}", self.seen[member]));
        }
        self.seen[member] += 1;
        self.order.write(text.as_bytes());
        tally.add();
        Ok((member == self.own && self.seen[member] < self.messages).then(|| self.next()))
    }

    fn join(&self) -> String {
        self.seat.join()
    }

    fn begin(&self) -> Option<String> {
        Some(self.next())
    }
}

/// Measures deliveries while every member of every room publishes `messages`.
pub async fn run(place: &Place, members: usize, messages: u64) -> Result<Report, String> {
    if members == 0 || messages == 0 || !place.clients.is_multiple_of(members) {
        return Err("--clients must be a multiple of --members, and --messages at least 1".into());
    }
    let mut group = Group::open(place, 0..place.clients, |i| Talker {
        seat: Seat::new(format!("room-{}", i / members), None),
        room: i / members,
        size: place.size,
        own: i % members,
        seen: vec![0; members],
        messages,
        order: DefaultHasher::new(),
    })
    .await?;
    group.join().await?;
    group.tally.calm().await?;
    let published = messages * place.clients as u64;
    let deliveries = published * members as u64;
    let redis = place.watch_redis()?;
    let (cpu0, started) = (proc::cpu(&place.pids), Instant::now());
    group.begin();
    group.tally.reach(published + deliveries, "deliveries and answers").await?;
    let (secs, cpu) = (started.elapsed().as_secs_f64(), proc::cpu(&place.pids) - cpu0);
    let mut report = Report::default().count("published", published).work("deliveries", deliveries, secs, cpu);
    if let Some(redis) = redis {
        report = redis.charge(report, published)?;
    }
    group.tally.calm().await?;
    let mut orders = HashMap::new();
    for talker in group.end().await? {
        let order = talker.order.finish();
        if *orders.entry(talker.room).or_insert(order) != order {
            return Err(format!("members of room {} saw different orders", talker.room));
        }
    }
    Ok(report.count("rooms", orders.len() as u64))
}
