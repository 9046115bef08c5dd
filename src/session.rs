//! A session's whole life, from what admission let in to the Close that ends it.
//!
//! `Admitted -> Close`: nothing else makes a session, and every session ends in one `Close`, which is
//! counted, logged and, where the socket can still take it, sent.
mod talk;

use crate::admission::{Admitted, Gate, Who};
use crate::close::{By, Close};
use crate::config::{Route, Service};
use crate::identity::Identity;
use crate::limits::ClientPermit;
use crate::limits::deadlines::Deadlines;
use crate::limits::meter::{Meter, Rates, Traffic};
use crate::logging::{Ended, session_ended};
use crate::metrics::ServiceLabel;
use crate::outbox::ending::linger;
use crate::outbox::wire::Wire;
use crate::rooms::Rooms;
use crate::shard::{Seat, Shard};
use crate::upstream::{Backend, Relay};
use crate::ws::frame::{Opcode, frame};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

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

/// Runs a session until its socket is closed.
pub async fn run(around: Surroundings, admitted: Admitted, upgraded: Upgraded) {
    let started = Instant::now();
    // What is left in `admitted` are its permits, which are held until the socket is closed.
    let Admitted { route, rates, who, origin, .. } = admitted;
    let peer = origin.ip;
    let count = Counted::new(around.shard.clone(), route.service);
    let seat = around.shard.seat(upgraded.wire);
    let (client, ended) = match upgraded.backend {
        Some(backend) => relay(&around, seat, &route, rates, who, upgraded.early, backend).await,
        None => talk::run(&around, seat, &route, rates, who, upgraded.early, upgraded.deflate).await,
    };
    count.shard.metrics().closed(count.service, ended.close.by, &ended.close);
    log(&route, &client, peer, started.elapsed(), &ended);
}

/// How a session ended, and what went through it.
pub struct Outcome {
    close: Close,
    traffic: Traffic,
}

async fn relay(
    around: &Surroundings,
    seat: Seat,
    route: &Arc<Route>,
    rates: Rates,
    who: Who,
    early: Vec<u8>,
    backend: Backend,
) -> (Arc<str>, Outcome) {
    let (identity, permit) = match who {
        Who::Client(identity, permit) => (identity, permit),
        // Admission makes visitors on rooms routes only.
        Who::Visitor => (Identity::anonymous(), ClientPermit::alone()),
    };
    let mut deadlines = Deadlines::new(&route.limits, Instant::now());
    deadlines.expire_at(expiry(around, route, &identity));
    let meter = Meter::new(permit, rates);
    let relay = Relay { seat, backend, early: early.into(), meter, route: route.clone(), deadlines };
    let ended = relay.run().await;
    (identity.client, Outcome { close: ended.close, traffic: ended.traffic })
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
    let peer_is_done = close.by == By::Client;
    if close.number.is_some() {
        seat.handle.peer.borrow_mut().push(frame(Opcode::Close, &close.payload()));
        linger(&seat.handle.peer, &shard.scratch, peer_is_done).await;
    }
}

/// Refuses an upgraded connection: the Close, and nothing else.
pub async fn refuse(shard: &Rc<Shard>, wire: Wire, close: &Close) {
    let seat = shard.seat(wire);
    end(shard, &seat, close).await;
}

fn log(route: &Route, client: &str, peer: Option<IpAddr>, duration: Duration, ended: &Outcome) {
    let peer = peer.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
    let traffic = &ended.traffic;
    session_ended(&Ended {
        route: route.name(),
        client,
        peer: &peer,
        duration,
        close: &ended.close,
        messages_in: traffic.messages_in,
        messages_out: traffic.messages_out,
        bytes_in: traffic.bytes_in,
        bytes_out: traffic.bytes_out,
    });
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
