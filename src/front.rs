//! hyper in front: one request head after another, until one is let in and becomes a session.
mod patient;

use crate::admission::refusal::Refusal;
use crate::admission::token::uri_without_token;
use crate::admission::{Admitted, Entrance, Who, upgrade};
use crate::close::Code;
use crate::config::Service;
use crate::metrics::{Handshake, Refused};
use crate::outbox::wire::Stream;
use crate::session::{self, Surroundings, Upgraded};
use crate::upstream::{Backend, Forward, Unopened, Upstreams};
use crate::ws::deflate;
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use patient::Patient;
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

/// The largest request head, in bytes; beyond it hyper answers 431.
const HEAD_MAX: usize = 16 * 1024;
/// What rooms call their protocol.
const ROOMS_PROTOCOL: &str = "rooms.v1";

/// What requests are answered with on one shard.
pub struct Front {
    /// What sessions use.
    pub around: Surroundings,
    /// The backends.
    pub upstreams: Arc<Upstreams>,
    /// Whether the gateway stops: nothing more is let in.
    pub draining: Arc<AtomicBool>,
    /// Requests that are being judged, or were let in and are no session yet.
    pub opening: Opening,
}

/// How many are on their way to become sessions: a shard that stops waits for them too.
#[derive(Clone, Default)]
pub struct Opening(Rc<(Cell<usize>, Notify)>);

/// One of them, until it is dropped.
struct Opens(Opening);

impl Opening {
    fn enter(&self) -> Opens {
        self.0.0.set(self.0.0.get() + 1);
        Opens(self.clone())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.0.get() == 0
    }

    /// Returns when there are none.
    pub async fn emptied(&self) {
        while !self.is_empty() {
            self.0.1.notified().await;
        }
    }
}

impl Drop for Opens {
    fn drop(&mut self) {
        let Opening(shared) = &self.0;
        shared.0.set(shared.0.get() - 1);
        if shared.0.get() == 0 {
            shared.1.notify_one();
        }
    }
}

type Body = Either<Full<Bytes>, Incoming>;

/// Serves the requests of one connection. `head_timeout` is what is left for the first head, and
/// what every later one has.
pub async fn serve(front: Rc<Front>, stream: Stream, entrance: Rc<Entrance>, head_timeout: Duration) {
    // The first request, or the lack of one, has an outcome; later ones where they come.
    let owed = Rc::new(Cell::new(true));
    let service = service_fn({
        let (front, owed) = (front.clone(), owed.clone());
        move |request| {
            owed.set(true);
            let (front, entrance, owed) = (front.clone(), entrance.clone(), owed.clone());
            async move {
                let answer = front.answer(&entrance, request).await;
                owed.set(false);
                Ok::<_, Infallible>(answer)
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), service)
        .with_upgrades();
    let outcome = match connection.await {
        Err(error) if error.is_timeout() => Handshake::HeadTimeout,
        Err(error) if error.is_parse() => Handshake::Malformed,
        Err(_) | Ok(()) => Handshake::Disconnected,
    };
    if owed.get() {
        front.around.shard.metrics().handshake(outcome);
    }
}

impl Front {
    async fn answer(&self, entrance: &Rc<Entrance>, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if self.draining.load(Relaxed) {
            return self.refuse(entrance, &Refusal::draining(), None);
        }
        let opens = self.opening.enter();
        let admitted = match self.around.gate.admit(entrance, &head) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                let upgrade = hyper::upgrade::on(Request::from_parts(head, body));
                return self.refuse(entrance, &refusal, Some(upgrade));
            }
        };
        let opened = match admitted.route.service {
            Service::Proxy(upstream) => Some(self.open(upstream, &admitted, &head).await),
            Service::Echo | Service::Rooms => None,
        };
        let upgrade = hyper::upgrade::on(Request::from_parts(head, body));
        match opened {
            None => self.host(admitted, upgrade, opens),
            Some(Ok(backend)) => self.relay(admitted, backend, upgrade, opens),
            Some(Err(Unopened::Answer(answer))) => {
                self.around.shard.metrics().refused(Refused::Backend);
                self.around.shard.metrics().handshake(Handshake::Refused);
                answer.map(Either::Right)
            }
            Some(Err(Unopened::Unavailable { status, reason })) => {
                tracing::warn!(target: "wsgate::upstream", route = admitted.route.name(), %reason, "no backend");
                let refusal = admitted.refusal(Code::UpstreamUnavailable, Refused::Upstream).status(status);
                self.refuse(entrance, &refusal, Some(upgrade))
            }
        }
    }

    async fn open(&self, upstream: usize, admitted: &Admitted, head: &Parts) -> Result<Backend, Unopened> {
        let auth = &self.around.gate.config().auth;
        let protocols = admitted.upgrade.protocols.join(", ");
        let origin = &admitted.origin;
        let forward = Forward {
            headers: &head.headers,
            path_and_query: &uri_without_token(auth, &head.uri),
            protocols: Some(protocols.as_str()).filter(|p| !p.is_empty()),
            client_ip: origin.ip,
            forwarded_for: origin.chain.as_deref(),
            peer_ip: origin.peer,
            proto: origin.proto,
            host: &origin.host,
            client_id: match &admitted.who {
                Who::Client(identity, _) if !identity.is_anonymous() => Some(&identity.client),
                Who::Client(..) | Who::Visitor => None,
            },
        };
        self.upstreams.open(upstream, forward).await
    }

    /// A session that the gateway itself talks with.
    fn host(&self, admitted: Admitted, upgrade: OnUpgrade, opens: Opens) -> Response<Body> {
        let asked = &admitted.upgrade;
        let mut headers = HeaderMap::new();
        let protocol = match admitted.route.service {
            Service::Rooms => asked.protocol(ROOMS_PROTOCOL),
            Service::Echo | Service::Proxy(_) => asked.any_protocol(),
        };
        if let Some(protocol) = protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let offers = asked.extensions.iter().map(String::as_str);
        let agreed = if admitted.route.limits.compression { deflate::negotiate(offers) } else { None };
        let deflate = agreed.is_some();
        if let Some(agreed) = agreed.and_then(|a| HeaderValue::try_from(a).ok()) {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, agreed);
        }
        self.accept(admitted, headers, (upgrade, opens), deflate, None)
    }

    /// A session with a backend that has answered 101.
    fn relay(&self, admitted: Admitted, mut backend: Backend, upgrade: OnUpgrade, opens: Opens) -> Response<Body> {
        let mut headers = std::mem::take(&mut backend.headers);
        if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
            && let Some(pair) = admitted.upgrade.protocol("")
        {
            // Browsers insist on an answer to what they offered.
            headers.insert(SEC_WEBSOCKET_PROTOCOL, pair);
        }
        self.accept(admitted, headers, (upgrade, opens), false, Some(backend))
    }

    fn accept(
        &self,
        admitted: Admitted,
        headers: HeaderMap,
        (upgrade, opens): (OnUpgrade, Opens),
        deflate: bool,
        backend: Option<Backend>,
    ) -> Response<Body> {
        let mut response = Response::new(Either::Left(Full::default()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        upgrade::switch(response.headers_mut(), &admitted.upgrade.accept);
        self.around.shard.metrics().handshake(Handshake::Accepted);
        let around = self.around.clone();
        tokio::task::spawn_local(async move {
            let Some((stream, early)) = upgraded(upgrade).await else { return };
            let upgraded = Upgraded { wire: stream.into(), early, deflate, backend };
            session::start(around, admitted, upgraded);
            drop(opens);
        });
        response
    }

    fn refuse(&self, entrance: &Rc<Entrance>, refusal: &Refusal, upgrade: Option<OnUpgrade>) -> Response<Body> {
        let metrics = self.around.shard.metrics();
        metrics.refused(refusal.reason);
        metrics.handshake(Handshake::Refused);
        tracing::debug!(target: "wsgate::admission", reason = refusal.reason.label(), "refused");
        if let (Some(close), Some(upgrade)) = (refusal.close(), upgrade) {
            let (shard, entrance, opens) = (self.around.shard.clone(), entrance.clone(), self.opening.enter());
            tokio::task::spawn_local(async move {
                let Some((stream, _)) = upgraded(upgrade).await else { return };
                session::refuse(&shard, stream.into(), &close).await;
                drop((entrance, opens));
            });
        }
        refusal.response().map(Either::Left)
    }
}

/// The connection behind a 101, and what was read of it already.
async fn upgraded(upgrade: OnUpgrade) -> Option<(Stream, Vec<u8>)> {
    // The client has gone before the 101 was out.
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Patient<Stream>>>().ok()?;
    // Copied: what `Bytes` turns into would keep the whole buffer of the head, also for no byte of it.
    Some((parts.io.into_inner().into_inner(), parts.read_buf.to_vec()))
}
