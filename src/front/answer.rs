//! What is answered to a request, whatever version of HTTP it came by.
use super::{Body, Front, Opens};
use crate::admission::forwarded::Client;
use crate::admission::refusal::Refusal;
use crate::admission::token::uri_without_token;
use crate::admission::{Admitted, Entered, Entrance, Who};
use crate::close::{Close, Code};
use crate::config::{PathPattern, Route, Service};
use crate::identity::Identity;
use crate::metrics::{Handshake, Refused};
use crate::outbox::wire::Wire;
use crate::session::{self, Surroundings, Upgraded};
use crate::shard::Shard;
use crate::upstream::{Backend, Forward, Hints, Proxied, Unavailable, Unopened};
use crate::ws::deflate;
use hyper::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use hyper::http::request::Parts;
use hyper::{Response, Uri};
use std::borrow::Cow;
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

    /// The client has gone before the answer was out. A backend that has upgraded for it is told; takes at most 2 s.
    pub(super) async fn abandon(self) {
        match self {
            Then::Session { around, admitted, backend: Some(backend), opens, .. } => {
                drop((admitted, opens));
                backend.leave(&around.shard.scratch).await;
            }
            Then::Session { backend: None, .. } | Then::Refusal { .. } => (),
        }
    }
}

impl Front {
    /// Judges a request and answers it. `hints`: where what a backend says before its answer goes; `None` where the
    /// client cannot be sent that.
    pub(super) async fn answer(
        self: &Rc<Self>,
        entrance: &Rc<Entrance>,
        head: Parts,
        body: Body,
        hints: Option<Hints>,
    ) -> Answer {
        if self.draining.load(Relaxed) {
            return self.refuse(entrance, &Refusal::draining());
        }
        let opens = self.opening.enter();
        match self.around.gate.admit(entrance, &head).await {
            Ok(Entered::Session(admitted)) => self.open(entrance, admitted, &head, opens).await,
            Ok(Entered::Request(passed)) => self.pass(passed, head, body, hints).await,
            Err(refusal) => self.refuse(entrance, &refusal),
        }
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
                Answer::Whole(answer.map(|body| Body::Refused(Box::new(body))))
            }
            Err(Unopened::Unavailable(Unavailable { status, reason })) => {
                tracing::warn!(target: "wsgate::upstream", route = admitted.route.name(), %reason, "no backend");
                let refusal = admitted.refusal(Code::UpstreamUnavailable, Refused::Upstream).status(status);
                self.refuse(entrance, &refusal)
            }
        }
    }

    async fn connect(&self, upstream: usize, admitted: &Admitted, head: &Parts) -> Result<Backend, Unopened> {
        let protocols = admitted.upgrade.protocols.join(", ");
        let path = self.path(&admitted.route, &head.uri);
        let identity = match &admitted.who {
            Who::Client(identity, _) => Some(identity),
            Who::Visitor => None,
        };
        let protocols = Some(protocols.as_str()).filter(|p| !p.is_empty());
        let forward = Forward { protocols, ..describe(head, &path, &admitted.origin, identity) };
        self.upstreams.open(upstream, forward).await
    }

    /// Path and query as a backend sees them: without the token, and without the route's prefix where it is stripped.
    pub(super) fn path<'a>(&self, route: &Route, uri: &'a Uri) -> Cow<'a, str> {
        let whole = uri_without_token(&self.around.gate.config().auth, uri);
        match &route.path {
            // The slash before the `*` stays.
            PathPattern::Below { prefix, .. } if route.strip_prefix => match whole {
                Cow::Borrowed(whole) => whole[prefix.len() - 1..].into(),
                Cow::Owned(whole) => whole[prefix.len() - 1..].to_owned().into(),
            },
            PathPattern::Below { .. } | PathPattern::Exact(_) => whole,
        }
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

/// What a backend is told of a request and its client.
pub(super) fn describe<'a>(
    head: &'a Parts,
    path_and_query: &'a str,
    origin: &'a Client,
    identity: Option<&'a Identity>,
) -> Forward<'a> {
    Forward {
        headers: &head.headers,
        path_and_query,
        protocols: None,
        client_ip: origin.ip,
        version: head.version,
        forwarded_for: origin.chain.as_deref(),
        forwarded: origin.forwarded.as_deref(),
        peer_ip: origin.peer(),
        proto: origin.proto,
        host: &origin.host,
        client_id: identity.filter(|identity| !identity.is_anonymous()).map(|identity| &*identity.client),
        proxied: origin.proxied().map(|ends| Proxied { source: ends.peer, destination: ends.local }),
    }
}
