//! A session's whole life, from what admission let in to the Close that ends it.
//!
//! `Admitted -> Close`: nothing else makes a session, and every session ends in one `Close`, which is
//! counted, logged and, where the socket can still take it, sent.
mod talk;

use crate::admission::{Admitted, Gate, Permits, Who};
use crate::close::{By, Close, Code};
use crate::config::{Route, Service};
use crate::identity::Identity;
use crate::limits::ClientPermit;
use crate::limits::deadlines::Deadlines;
use crate::limits::meter::{Meter, Rates, Traffic};
use crate::logging::{Ended, session_ended};
use crate::metrics::ServiceLabel;
use crate::outbox::ending::{Awaits, linger};
use crate::outbox::wire::Wire;
use crate::rooms::Rooms;
use crate::shard::{Seat, Shard};
use crate::upstream::{self, Backend, Relay};
use crate::ws::frame::{Opcode, frame};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use talk::Talk;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

/// The time over which the sessions of a server that is lost are closed.
const LOST_WITHIN: Duration = Duration::from_secs(1);

/// What sessions of one shard use.
#[derive(Clone)]
pub struct Surroundings {
    /// What judges tokens.
    pub gate: Arc<Gate>,
    /// The thread.
    pub shard: Rc<Shard>,
    /// The rooms.
    pub rooms: Rc<Rooms>,
}

/// An upgraded connection, and what its 101 agreed on.
pub struct Upgraded {
    /// The connection.
    pub wire: Wire,
    /// What the client sent behind its request head: frames.
    pub early: Vec<u8>,
    /// Whether permessage-deflate was agreed on (rooms and echo).
    pub deflate: bool,
    /// The backend, on a proxy route.
    pub backend: Option<Backend>,
}

/// Runs a session, as a task of its own, until its socket is closed. Echo and rooms, and the relay,
/// are tasks of two types: an idle socket costs the memory of its own kind alone.
pub fn start(around: Surroundings, admitted: Admitted, upgraded: Upgraded) {
    let Upgraded { wire, early, deflate, backend } = upgraded;
    let (record, who, rates) = Record::new(&around.shard, admitted);
    let seat = around.shard.seat(wire);
    seat.handle.ip.set(record.peer);
    match backend {
        Some(backend) => {
            let (client, relay) = relay(&around, seat, &record.route, rates, who, early, backend);
            spawn_local(record.ends_relayed(client, relay));
        }
        None => {
            let talk = Talk::new(around, seat, record.route.clone(), rates, who, early, deflate);
            spawn_local(record.ends_talked(talk));
        }
    }
}

fn relay(
    around: &Surroundings,
    seat: Seat,
    route: &Arc<Route>,
    rates: Rates,
    who: Who,
    early: Vec<u8>,
    backend: Backend,
) -> (Arc<str>, impl Future<Output = upstream::Ended> + use<>) {
    let (identity, permit) = match who {
        Who::Client(identity, permit) => (identity, permit),
        // Admission makes visitors on rooms routes only.
        Who::Visitor => (Identity::anonymous(), ClientPermit::alone()),
    };
    name(around, &seat, route, &identity.client);
    let server = &backend.lease.server;
    seat.handle.server.set(server.number());
    if server.closes_sessions() {
        // Found unhealthy while the backend was being asked.
        seat.handle.order(unhealthy());
    }
    let mut deadlines = Deadlines::new(&route.limits, Instant::now());
    deadlines.expire_at(expiry(around, route, &identity));
    let meter = Meter::new(permit, rates);
    let relay = Relay { seat, backend, early: early.into(), meter, route: route.clone(), deadlines };
    (identity.client, relay.run())
}

/// Closes the sessions with a server that checks have found unhealthy, spread over a second: their clients are to look
/// for another one after another.
pub fn lose(shard: &Shard, server: u64) {
    let delay = |handle| (LOST_WITHIN.mul_f64(rand::random()), handle);
    let mut lost: Vec<_> = shard.sessions_with(server).into_iter().map(delay).collect();
    lost.sort_by_key(|(delay, _)| *delay);
    let now = Instant::now();
    spawn_local(async move {
        for (delay, handle) in lost {
            sleep_until(now + delay).await;
            handle.order(unhealthy());
        }
    });
}

fn unhealthy() -> Close {
    Close::because(Code::UpstreamUnavailable, "upstream is unhealthy")
}

/// A session's client is known, and may have been banned since it was let in.
fn name(around: &Surroundings, seat: &Seat, route: &Arc<Route>, client: &Arc<str>) {
    seat.name(route, client);
    // Now that whoever bans it finds the session.
    if around.gate.is_banned(route, client) {
        seat.handle.order(Close::gateway(Code::Banned));
    }
}

/// What is written down of a session when it ends, and its permits until then.
struct Record {
    route: Arc<Route>,
    peer: Option<IpAddr>,
    started: Instant,
    count: Counted,
    /// Of what admission let in, only the permits are left.
    _permits: Permits,
}

impl Record {
    fn new(shard: &Rc<Shard>, admitted: Admitted) -> (Record, Who, Rates) {
        let Admitted { route, rates, who, origin, permits, .. } = admitted;
        let count = Counted::new(shard.clone(), route.service);
        (Record { route, peer: origin.ip, started: Instant::now(), count, _permits: permits }, who, rates)
    }

    #[expect(clippy::manual_async_fn, reason = "the future of an `async fn` would hold its arguments twice")]
    fn ends_talked(self, mut talk: Talk) -> impl Future<Output = ()> {
        async move {
            let close = talk.run().await;
            let client = talk.client();
            self.write(&client, &close, &talk.traffic());
            end(&self.count.shard, talk.seat(), &close).await;
        }
    }

    #[expect(clippy::manual_async_fn, reason = "the future of an `async fn` would hold its arguments twice")]
    fn ends_relayed(self, client: Arc<str>, relay: impl Future<Output = upstream::Ended>) -> impl Future<Output = ()> {
        async move {
            let ended = relay.await;
            self.write(&client, &ended.close, &ended.traffic);
        }
    }

    fn write(&self, client: &str, close: &Close, traffic: &Traffic) {
        self.count.shard.metrics().closed(self.count.service, close.by, close);
        let peer = self.peer.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
        session_ended(&Ended {
            route: self.route.name(),
            client,
            peer: &peer,
            duration: self.started.elapsed(),
            close,
            messages_in: traffic.messages_in,
            messages_out: traffic.messages_out,
            bytes_in: traffic.bytes_in,
            bytes_out: traffic.bytes_out,
        });
    }
}

/// When a token ends a session: its `exp` plus the leeway.
fn expiry(around: &Surroundings, route: &Route, identity: &Identity) -> Option<Instant> {
    let expires_at = identity.expires_at.filter(|_| route.auth.close_on_expiry)?;
    let at = Duration::from_secs(expires_at).checked_add(around.gate.config().auth.leeway)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::now().checked_add(at.saturating_sub(now))
}

/// Says goodbye as the close wants it, and ends the connection.
async fn end(shard: &Shard, seat: &Seat, close: &Close) {
    if let Some(code) = close.number {
        seat.handle.peer.borrow_mut().push(frame(Opcode::Close, &close.payload()));
        let awaits = if close.by == By::Client { Awaits::Nothing } else { Awaits::Answer(code) };
        linger(&seat.handle.peer, &shard.scratch, awaits).await;
    }
}

/// Refuses an upgraded connection: the Close, and nothing else.
pub async fn refuse(shard: &Rc<Shard>, wire: Wire, close: &Close) {
    let seat = shard.seat(wire);
    end(shard, &seat, close).await;
}

/// A session among the counters, also where it ends by a panic.
struct Counted {
    shard: Rc<Shard>,
    service: ServiceLabel,
}

impl Counted {
    fn new(shard: Rc<Shard>, service: Service) -> Counted {
        let service = ServiceLabel::from(service);
        shard.metrics().session_opened(service);
        Counted { shard, service }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shard.metrics().session_closed(self.service);
        if std::thread::panicking() {
            self.shard.metrics().panicked();
            tracing::error!(service = self.service.label(), "a session ended by a panic");
        }
    }
}

#[cfg(test)]
mod tests;
