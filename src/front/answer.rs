//! What is answered to a request, whatever version of HTTP it came by.
use super::{Body, Front, Opens};
use crate::admission::refusal::Refusal;
use crate::admission::token::uri_without_token;
use crate::admission::{Admitted, Entered, Entrance, Passed, Who};
use crate::close::{Close, Code};
use crate::config::Service;
use crate::metrics::{Handshake, Refused};
use crate::outbox::wire::Wire;
use crate::session::{self, Surroundings, Upgraded};
use crate::shard::Shard;
use crate::upstream::{Backend, Forward, Unopened};
use crate::ws::deflate;
use hyper::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

/// What rooms call their protocol.
const ROOMS_PROTOCOL: &str = "rooms.v1";

/// What is answered.
pub(super) enum Answer {
    /// This, and nothing follows.
    Whole(Response<Body>),
    /// The connection, or the stream, carries frames from here on.
    Switch(Switch),
}

/// An upgrade that is granted, be it only to say why not.
pub(super) struct Switch {
    /// Subprotocol, extensions, and what a backend has said besides.
    pub headers: HeaderMap,
    /// `Sec-WebSocket-Accept`; `None` over HTTP/2, which has none.
    pub accept: Option<HeaderValue>,
    /// What follows.
    pub then: Then,
}

/// What follows an answer that grants an upgrade.
pub(super) enum Then {
    /// A session.
    Session {
        around: Surroundings,
        admitted: Box<Admitted>,
        deflate: bool,
        backend: Option<Box<Backend>>,
        opens: Opens,
    },
    /// The Close that refuses it.
    Refusal { shard: Rc<Shard>, entrance: Rc<Entrance>, close: Close, opens: Opens },
}

impl Then {
    /// Frames may go over `wire`; `early` came already.
    pub(super) async fn begin(self, wire: Wire, early: Vec<u8>) {
        match self {
            Then::Session { around, admitted, deflate, backend, opens } => {
                let upgraded = Upgraded { wire, early, deflate, backend: backend.map(|b| *b) };
                session::start(around, *admitted, upgraded);
                drop(opens);
            }
            Then::Refusal { shard, entrance, close, opens } => {
                session::refuse(&shard, wire, &close).await;
                drop((entrance, opens));
            }
        }
    }
}

impl Front {
    /// Judges a request and answers it.
    pub(super) async fn answer(self: &Rc<Self>, entrance: &Rc<Entrance>, head: Parts, body: Body) -> Answer {
        if self.draining.load(Relaxed) {
            return self.refuse(entrance, &Refusal::draining());
        }
        let opens = self.opening.enter();
        match self.around.gate.admit(entrance, &head).await {
            Ok(Entered::Session(admitted)) => self.open(entrance, admitted, &head, opens).await,
            Ok(Entered::Request(passed)) => self.pass(entrance, passed, head, body).await,
            Err(refusal) => self.refuse(entrance, &refusal),
        }
    }

    /// Ordinary HTTP.
    async fn pass(self: &Rc<Self>, entrance: &Rc<Entrance>, _: Passed, _: Parts, _: Body) -> Answer {
        let message = "ordinary requests are not proxied yet";
        self.refuse(entrance, &Refusal::plain(StatusCode::UPGRADE_REQUIRED, Refused::UpgradeRequired, message))
    }

    async fn open(&self, entrance: &Rc<Entrance>, admitted: Admitted, head: &Parts, opens: Opens) -> Answer {
        let opened = match admitted.route.service {
            Service::Proxy(upstream) => self.connect(upstream, &admitted, head).await,
            Service::Echo | Service::Rooms => return self.host(admitted, opens),
        };
        match opened {
            Ok(backend) => self.relay(admitted, backend, opens),
            Err(Unopened::Answer(answer)) => {
                self.around.shard.metrics().refused(Refused::Backend);
                self.around.shard.metrics().handshake(Handshake::Refused);
                Answer::Whole(answer.map(Body::Http1))
            }
            Err(Unopened::Unavailable { status, reason }) => {
                tracing::warn!(target: "wsgate::upstream", route = admitted.route.name(), %reason, "no backend");
                let refusal = admitted.refusal(Code::UpstreamUnavailable, Refused::Upstream).status(status);
                self.refuse(entrance, &refusal)
            }
        }
    }

    async fn connect(&self, upstream: usize, admitted: &Admitted, head: &Parts) -> Result<Backend, Unopened> {
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
            proxied: None,
        };
        self.upstreams.open(upstream, forward).await
    }

    /// A session that the gateway itself talks with.
    fn host(&self, admitted: Admitted, opens: Opens) -> Answer {
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
        self.accept(admitted, headers, deflate, None, opens)
    }

    /// A session with a backend that has answered 101.
    fn relay(&self, admitted: Admitted, mut backend: Backend, opens: Opens) -> Answer {
        let mut headers = std::mem::take(&mut backend.headers);
        if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
            && let Some(pair) = admitted.upgrade.protocol("")
        {
            // Browsers insist on an answer to what they offered.
            headers.insert(SEC_WEBSOCKET_PROTOCOL, pair);
        }
        self.accept(admitted, headers, false, Some(Box::new(backend)), opens)
    }

    fn accept(
        &self,
        admitted: Admitted,
        headers: HeaderMap,
        deflate: bool,
        backend: Option<Box<Backend>>,
        opens: Opens,
    ) -> Answer {
        self.around.shard.metrics().handshake(Handshake::Accepted);
        let accept = admitted.upgrade.accept.clone();
        let (around, admitted) = (self.around.clone(), Box::new(admitted));
        Answer::Switch(Switch { headers, accept, then: Then::Session { around, admitted, deflate, backend, opens } })
    }

    fn refuse(&self, entrance: &Rc<Entrance>, refusal: &Refusal) -> Answer {
        let metrics = self.around.shard.metrics();
        metrics.refused(refusal.reason);
        metrics.handshake(Handshake::Refused);
        tracing::debug!(target: "wsgate::admission", reason = refusal.reason.label(), "refused");
        let response = refusal.response().map(Body::Full);
        match refusal.close() {
            None => Answer::Whole(response),
            Some(close) => {
                let (shard, entrance, opens) = (self.around.shard.clone(), entrance.clone(), self.opening.enter());
                let headers = response.into_parts().0.headers;
                let then = Then::Refusal { shard, entrance, close, opens };
                // The refusal's headers are all that a 101 has.
                Answer::Switch(Switch { headers, accept: None, then })
            }
        }
    }
}
