//! How long a message takes from the member that sends it to one at another server.
use super::Place;
use super::seat::{Heard, Seat, text_frame, text_of};
use crate::conn::{Conn, Opening};
use crate::proc;
use crate::report::{Report, histogram};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A room of its own.
const ROOM: &str = "latency";

/// One of the two.
struct Member {
    conn: Conn,
    seat: Seat,
    within: Duration,
}

impl Member {
    async fn open(place: &Place, number: usize) -> Result<Member, String> {
        let opening = Opening {
            headers: place.headers.clone(),
            init_until: Some("connection_established".into()),
            ..Opening::default()
        };
        let targets = place.targets()?;
        let conn = Conn::open(&targets[number % targets.len()], number, &opening).await?;
        let mut member = Member { conn, seat: Seat::new(ROOM.into(), None), within: place.within() };
        let join = member.seat.join();
        member.say(&join).await?;
        member.hears(|heard| matches!(heard, Heard::Joined(_))).await?;
        Ok(member)
    }

    async fn say(&mut self, text: &str) -> Result<(), String> {
        self.conn.write(&text_frame(text)).await
    }

    /// Reads until this has come.
    async fn hears(&mut self, wanted: impl Fn(&Heard) -> bool) -> Result<(), String> {
        let mut found = false;
        while !found {
            let (mut wrong, seat) = (None, &mut self.seat);
            let hear = |payload: &[u8]| match seat.hear(payload) {
                Ok(heard) => found |= wanted(&heard),
                Err(e) => wrong = wrong.take().or(Some(e)),
            };
            let read = timeout(self.within, self.conn.read_messages(hear)).await;
            read.map_err(|_| format!("nothing came within {} s", self.within.as_secs_f64()))??;
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
        }
        Ok(())
    }
}

/// Measures the times of `messages`, one after the other, after a tenth as many.
pub async fn run(place: &Place, messages: u64) -> Result<Report, String> {
    let mut sender = Member::open(place, 0).await?;
    let mut receiver = Member::open(place, 1).await?;
    let mut times = histogram();
    let before = messages.div_ceil(10);
    let (mut cpu0, mut started) = (0.0, Instant::now());
    for n in 0..before + messages {
        if n == before {
            (cpu0, started) = (proc::cpu(&place.pids), Instant::now());
        }
        let text = text_of(&format!("n{n}"), place.size);
        let publish = sender.seat.publish(&text);
        let began = Instant::now();
        sender.say(&publish).await?;
        receiver.hears(|heard| *heard == Heard::Chat(text.clone())).await?;
        if n >= before {
            times.saturating_record(began.elapsed().as_micros() as u64);
        }
        sender.comes_back(&text).await?;
    }
    let (secs, cpu) = (started.elapsed().as_secs_f64(), proc::cpu(&place.pids) - cpu0);
    Ok(Report::default().work("published", messages, secs, cpu).times(&times))
}

impl Member {
    /// What it sent has its place and has come back to it, in whatever order.
    async fn comes_back(&mut self, text: &str) -> Result<(), String> {
        let (mut sent, mut came) = (false, false);
        while !(sent && came) {
            let (mut wrong, seat) = (None, &mut self.seat);
            let hear = |payload: &[u8]| match seat.hear(payload) {
                Ok(Heard::Sent) => sent = true,
                Ok(Heard::Chat(said)) => came |= said == text,
                Ok(_) => (),
                Err(e) => wrong = wrong.take().or(Some(e)),
            };
            let read = timeout(self.within, self.conn.read_messages(hear)).await;
            read.map_err(|_| "a message does not come back to its sender")??;
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
        }
        Ok(())
    }
}
