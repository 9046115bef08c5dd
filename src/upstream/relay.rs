//! The relay: the frames of both sides, walked and counted, and forwarded byte for byte.
//!
//! One task turns over both sockets. What the gateway itself says (its pings, and the Close) stands only between the
//! frames of the stream it is put into. A side that takes no more than it is sent holds up the other, which is not
//! read meanwhile: nothing is lost, and no more than a mark is queued.
//!
//! A Close of either side is forwarded, and the other has 2 s to answer; a client first has up to 30 s to take what came
//! before it. Where the gateway closes while a frame of
//! the backend is on its way to the client, the frame has 2 s to end; if it does not, the connection ends without a
//! code, since a Close inside of a frame would be payload. A backend that waits for the rest of a client's frame is
//! never told: its connection just ends.
mod closing;
mod side;

use super::handshake::Backend;
use super::server::Lease;
use crate::close::{Close, Code};
use crate::config::{Limits, Route};
use crate::limits::ClientPermit;
use crate::limits::deadlines::{Deadlines, Due};
use crate::limits::meter::{Meter, Rates, Traffic};
use crate::metrics::{Direction, ServiceLabel};
use crate::outbox::{Peer, wire::Wire};
use crate::shard::Seat;
use crate::ws::{InflatedSize, Masking, Opcode, Rsv, Rules, frame, masked_frame};
use bytes::Bytes;
use closing::{Stage, Told};
use side::{Count, Halt, Missing, Reach, Side, Turn};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The most that is queued for one side, and one read more.
const HIGH_MARK: usize = 256 * 1024;
/// The timer's next look where nothing has a time.
const NOTHING_DUE: Duration = Duration::from_secs(24 * 3600);

/// A client and a backend that have both upgraded.
pub struct Relay {
    /// The client.
    pub seat: Seat,
    /// The backend.
    pub backend: Backend,
    /// Frames that the client sent right behind its request head.
    pub early: Bytes,
    /// Charges the client.
    pub meter: Meter,
    /// The route, with its limits.
    pub route: Arc<Route>,
    /// The client's deadlines.
    pub deadlines: Deadlines,
}

/// How a relayed session ended.
#[derive(Debug)]
pub struct Ended {
    /// Who closed it, with which code, and why. Where a frame was in the way the client may not have got the code.
    pub close: Close,
    /// What was forwarded: messages, and payload bytes with those of pings and pongs.
    pub traffic: Traffic,
}

impl Relay {
    /// Relays until either side, or the gateway, closes. Both sockets are closed when it is done. Counts messages and
    /// bytes in the shard's metrics as they pass.
    pub fn run(self) -> impl Future<Output = Ended> {
        let Relay { seat, backend, early, meter, route, deadlines } = self;
        let Backend { wire, early: from_backend, rsv, client_takeover, lease, .. } = backend;
        let mut link = Link::new(seat, wire, (rsv, client_takeover), meter, &route.limits, deadlines);
        link.lease = Some(lease);
        link.forward_early(&early, &from_backend);
        link.run()
    }
}

/// Two sides, and how far they are with closing.
struct Link {
    seat: Seat,
    /// The backend's server is used as long as this is there; tests have none.
    lease: Option<Lease>,
    backend: RefCell<Peer>,
    /// What the client sends.
    up: Side,
    /// What the backend sends.
    down: Side,
    traffic: Traffic,
    /// The payload of the gateway's own pings, by which their pongs are known.
    nonce: [u8; 8],
    high_mark: usize,
    stage: Stage,
    /// Why it ends; there from the moment it leaves [`Stage::Open`].
    end: Option<Close>,
    /// A Close has been sent to the client.
    client_told: bool,
    backend_told: bool,
    /// Until when the client may take what the backend had said before its Close.
    last_words_until: Option<Instant>,
    /// Whoever was waited for has let its time pass.
    waited: bool,
    /// Something may have to happen before the timer's time.
    hurry: bool,
}

impl Link {
    /// `rsv`: the reserved bits of both streams; `takeover`: whether the client's compression may take its window over.
    fn new(
        seat: Seat,
        backend: Wire,
        (rsv, takeover): (Rsv, bool),
        meter: Meter,
        limits: &Limits,
        times: Deadlines,
    ) -> Link {
        let Limits { max_message_size, max_inflated_size, from_upstream, .. } = limits;
        let up_rules = |rsv, max_message_size| Rules { masking: Masking::Required, max_message_size, rsv };
        let up_rules = match rsv {
            Rsv::None => up_rules(rsv, (*max_message_size).min(*max_inflated_size)),
            // What an unknown extension makes of a message cannot be measured.
            Rsv::Any if *max_inflated_size < u64::MAX => {
                up_rules(Rsv::None, (*max_message_size).min(*max_inflated_size))
            }
            Rsv::Deflate | Rsv::Any => up_rules(rsv, *max_message_size),
        };
        let mut up = Side::new(up_rules, times, Some(meter));
        if rsv == Rsv::Deflate && *max_inflated_size < u64::MAX {
            up.follow(InflatedSize::new(*max_inflated_size, takeover));
        }
        let down_rules = Rules { masking: Masking::Forbidden, max_message_size: from_upstream.max_message_size, rsv };
        let not_idle = Limits { idle_timeout: None, ..limits.clone() };
        let rates = Rates::from_upstream(from_upstream);
        let down_meter = rates.map(|rates| Meter::new(ClientPermit::alone(), rates));
        Link {
            seat,
            lease: None,
            backend: RefCell::new(Peer::new(backend)),
            up,
            down: Side::new(down_rules, Deadlines::new(&not_idle, Instant::now()), down_meter),
            traffic: Traffic::default(),
            nonce: rand::random(),
            high_mark: limits.max_backlog.min(HIGH_MARK),
            stage: Stage::Open,
            end: None,
            client_told: false,
            backend_told: false,
            last_words_until: None,
            waited: false,
            hurry: false,
        }
    }

    #[expect(clippy::manual_async_fn, reason = "the future of an `async fn` would hold the link twice")]
    fn run(mut self) -> impl Future<Output = Ended> {
        async move {
            {
                let mut sleep = pin!(sleep_until(self.next_time()));
                poll_fn(|cx| self.poll(cx, sleep.as_mut())).await;
            }
            self.wind_up().await;
            let close = self.end.take().unwrap_or_else(|| Close::gateway(Code::Unknown));
            Ended { close, traffic: self.traffic }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<()> {
        let mut now = Instant::now();
        self.obey(now);
        loop {
            while self.turn(cx, now) {}
            if self.stage == Stage::Over {
                return Poll::Ready(());
            }
            self.hurry |= std::mem::take(&mut self.up.nearer) | std::mem::take(&mut self.down.nearer);
            if std::mem::take(&mut self.hurry) && self.next_time() < sleep.deadline() {
                sleep.as_mut().reset(self.next_time());
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            now = Instant::now();
            self.on_time(now);
            // Never in the past, so that the loop ends.
            sleep.as_mut().reset(self.next_time().max(now + Duration::from_millis(1)));
        }
    }

    /// What others on the thread have asked for.
    fn obey(&mut self, now: Instant) {
        if let Some(order) = self.seat.handle.take_order() {
            self.close(order, Told::GoingAway, now);
        }
        if let Some(at) = self.seat.handle.take_restart() {
            self.up.times.restart_at(at);
            self.hurry = true;
        }
    }

    /// Forwards what has come; says whether there is more to do at once.
    fn turn(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let before = self.stage;
        self.send_pings(now);
        if let Err(halt) = self.pump_client(cx, now) {
            self.client_halted(halt, now);
        }
        if let Err(halt) = self.pump_backend(cx, now) {
            self.backend_halted(halt, now);
        }
        self.end_unheard(now);
        self.end_waiting_for_frame();
        self.seat.shard.count_backlog(&self.seat.handle);
        self.stage != before
            || self.down.can_ping(&self.seat.handle.peer.borrow())
            || self.up.can_ping(&self.backend.borrow())
    }

    fn pump_client(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Halt> {
        let reach = match self.stage {
            Stage::Open | Stage::AwaitClient(_) => Reach::All,
            Stage::AwaitBackend(_) | Stage::AwaitFrameEnd(_) | Stage::Over => Reach::Nothing,
        };
        let Link { seat, backend, up, traffic, nonce, high_mark, .. } = self;
        let turn = Turn { shard: &seat.shard, high_mark: *high_mark, nonce: *nonce, now };
        let peers = (&mut *seat.handle.peer.borrow_mut(), backend.get_mut());
        up.pump(peers, reach, &turn, cx, |count| note_in(count, traffic, seat))
    }

    fn pump_backend(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Halt> {
        let reach = match self.stage {
            Stage::Open | Stage::AwaitBackend(_) => Reach::All,
            Stage::AwaitFrameEnd(_) => Reach::FrameEnd,
            Stage::AwaitClient(_) | Stage::Over => Reach::Nothing,
        };
        let Link { seat, backend, up, down, traffic, nonce, high_mark, .. } = self;
        let turn = Turn { shard: &seat.shard, high_mark: *high_mark, nonce: *nonce, now };
        let peers = (backend.get_mut(), &mut *seat.handle.peer.borrow_mut());
        down.pump(peers, reach, &turn, cx, |count| note_out(count, traffic, seat, &mut up.times, now))
    }

    /// What both sides sent before the relay began.
    fn forward_early(&mut self, client: &[u8], backend: &[u8]) {
        let now = Instant::now();
        let (from_client, from_backend) = {
            let Link { seat, backend: server, up, down, traffic, nonce, high_mark, .. } = self;
            let turn = Turn { shard: &seat.shard, high_mark: *high_mark, nonce: *nonce, now };
            let peer = &mut *seat.handle.peer.borrow_mut();
            let mut note = |count| note_out(count, traffic, seat, &mut up.times, now);
            let from_backend = down.take(backend, peer, Reach::All, &turn, &mut note);
            let mut note = |count| note_in(count, traffic, seat);
            (up.take(client, server.get_mut(), Reach::All, &turn, &mut note), from_backend)
        };
        if let Err(halt) = from_backend {
            self.backend_halted(halt, now);
        }
        if let Err(halt) = from_client {
            self.client_halted(halt, now);
        }
    }

    /// The pings that are owed and can stand now where the streams are.
    fn send_pings(&mut self, now: Instant) {
        let client = &mut *self.seat.handle.peer.borrow_mut();
        if self.down.can_ping(client) {
            client.push(frame(Opcode::Ping, &self.nonce));
            self.down.ping_owed = false;
            self.up.pinged(client, now);
            self.hurry = true;
        }
        let backend = self.backend.get_mut();
        if self.up.can_ping(backend) {
            backend.push(masked_frame(Opcode::Ping, &self.nonce, rand::random()));
            self.up.ping_owed = false;
            self.down.pinged(backend, now);
            self.hurry = true;
        }
    }

    fn next_time(&self) -> Instant {
        let closing = [self.stage.until(), self.up.times.paused(), self.down.times.paused()];
        let open = [self.up.times.next(), self.down.times.next()];
        let next = match self.stage {
            Stage::Open => open.into_iter().flatten().min(),
            _ => closing.into_iter().flatten().min(),
        };
        next.unwrap_or_else(|| Instant::now() + NOTHING_DUE)
    }

    fn on_time(&mut self, now: Instant) {
        self.up.times.resume(now);
        self.down.times.resume(now);
        if self.stage.until().is_some_and(|until| until <= now) {
            self.stop_waiting(now);
        }
        while self.stage == Stage::Open
            && let Some(due) = self.up.times.due(now)
        {
            self.on_client_due(due, now);
        }
        while self.stage == Stage::Open
            && let Some(due) = self.down.times.due(now)
        {
            self.on_backend_due(due, now);
        }
    }

    fn on_client_due(&mut self, due: Due, now: Instant) {
        let close = match due {
            Due::Ping => {
                self.up.expect_sign(&self.seat.handle.peer.borrow(), now);
                self.down.ping_owed = true;
                return;
            }
            Due::PongMissing => {
                let jam = self.is_jammed();
                let missing = self.up.missing_sign(&self.seat.handle.peer.borrow(), jam, now);
                match missing {
                    None => return,
                    Some(Missing::Pong) => Close::because(Code::Idle, "heartbeat lost"),
                    Some(Missing::Progress) => Close::because(Code::Idle, "client takes nothing"),
                }
            }
            // What either may not send yet is on its way.
            Due::Idle if self.up.times.paused().or(self.down.times.paused()).is_some() => {
                return self.up.times.message(now);
            }
            Due::Idle => Close::because(Code::Idle, "idle"),
            Due::Expired => Close::because(Code::AuthFailed, "token expired"),
            Due::AuthMissing => Close::gateway(Code::AuthRequired),
            Due::Restart => Close::restart(),
        };
        self.close(close, Told::GoingAway, now);
    }

    /// Whether neither side is read, since the other takes nothing.
    fn is_jammed(&self) -> bool {
        self.up.is_held_up() && self.down.is_held_up()
    }

    fn on_backend_due(&mut self, due: Due, now: Instant) {
        let jam = self.is_jammed();
        let silent = match due {
            Due::PongMissing => match self.down.missing_sign(self.backend.get_mut(), jam, now) {
                None => return,
                Some(Missing::Pong) => "upstream does not answer",
                Some(Missing::Progress) => "upstream takes nothing",
            },
            // A backend has no other times.
            Due::Ping | Due::Idle | Due::Expired | Due::AuthMissing | Due::Restart => {
                self.down.expect_sign(self.backend.get_mut(), now);
                self.up.ping_owed = true;
                return;
            }
        };
        self.close(Close::because(Code::UpstreamUnavailable, silent), Told::GoingAway, now);
    }
}

/// Counts what the client sent.
fn note_in(count: Count, traffic: &mut Traffic, seat: &Seat) {
    traffic.messages_in += count.messages;
    traffic.bytes_in += count.payload;
    let metrics = seat.shard.metrics();
    metrics.messages(ServiceLabel::Proxy, Direction::In, count.messages);
    metrics.bytes(ServiceLabel::Proxy, Direction::In, count.payload);
}

/// Counts what the backend sent; the client is not idle while messages come.
fn note_out(count: Count, traffic: &mut Traffic, seat: &Seat, client: &mut Deadlines, now: Instant) {
    if count.data {
        client.message(now);
    }
    traffic.messages_out += count.messages;
    traffic.bytes_out += count.payload;
    let metrics = seat.shard.metrics();
    metrics.messages(ServiceLabel::Proxy, Direction::Out, count.messages);
    metrics.bytes(ServiceLabel::Proxy, Direction::Out, count.payload);
}

#[cfg(test)]
mod tests;
