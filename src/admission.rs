//! admit(): every check in order. What it lets in is an [`Admitted`], which nothing else can make.
pub mod forwarded;
pub mod origin;
pub mod refusal;
mod request;
pub mod route;
pub mod token;
pub mod upgrade;

use crate::bans::Bans;
use crate::close::Code;
use crate::config::{Config, Listener, Route, Service, TokenSource};
use crate::identity::Identity;
use crate::limits::{ClientPermit, Denied, IpPermit, Limiter, ProcessPermit, meter::Rates};
use crate::metrics::{Metrics, Refused};
use crate::shard::Place;
use forwarded::Ends;
use hyper::http::request::Parts;
use hyper::{Method, Version};
use refusal::Refusal;
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use token::{Keyring, TokenFault};
use upgrade::Upgrade;

/// What admission judges by.
pub struct Gate {
    config: Arc<Config>,
    limiter: Arc<Limiter>,
    bans: Arc<Bans>,
    keyring: Keyring,
    rates: Vec<Rates>,
}

/// A connection that was let in as far as its address goes: its permits.
pub struct Knock {
    ends: Option<Ends>,
    listener: usize,
    secure: bool,
    /// Whether the peer is a proxy whose word on the client is taken.
    trusted: bool,
    _process: ProcessPermit,
    _ip: Option<IpPermit>,
}

/// A connection on its shard, with its permits, until the last holder is gone: hyper's connection
/// ends at the 101, so a session holds it too.
pub struct Entrance {
    knock: Knock,
    /// The handshake of the first request was counted when the connection came.
    counted: Cell<bool>,
    _place: Place,
}

impl Entrance {
    /// The connection has come to its shard.
    pub fn new(knock: Knock, place: Place) -> Entrance {
        let counted = Cell::new(!knock.trusted);
        Entrance { knock, counted, _place: place }
    }
}

/// What a request may do that passed every check.
pub enum Entered {
    /// It becomes a session.
    Session(Admitted),
    /// It is ordinary HTTP, and is passed on to a backend.
    Request(Passed),
}

/// An ordinary request, on a proxy route, that passed every check.
pub struct Passed {
    /// The route.
    pub route: Arc<Route>,
    /// The place of its upstream in [`Config::upstreams`].
    pub upstream: usize,
    /// Who it is; anonymous where no token came and none is required.
    pub identity: Identity,
    /// Where the request really came from.
    pub origin: forwarded::Client,
    /// What is given back when it has been answered.
    pub permits: Permits,
}

/// An upgrade that passed every check. The session that is made from it gives everything back.
pub struct Admitted {
    /// The route.
    pub route: Arc<Route>,
    /// The route's rates, ready for use.
    pub rates: Rates,
    /// Who it is, or that it must say so first.
    pub who: Who,
    /// The upgrade, as it was asked for.
    pub upgrade: Upgrade,
    /// Where the request really came from.
    pub origin: forwarded::Client,
    /// What is given back when the session ends.
    pub permits: Permits,
}

/// The places that a session holds in the process, on its shard and among those of its address. Over HTTP/2, where a
/// connection carries many, it has its own besides the connection's.
pub struct Permits {
    _entrance: Rc<Entrance>,
    _ip: Option<IpPermit>,
    _process: Option<ProcessPermit>,
}

/// Who a session belongs to.
pub enum Who {
    /// A client, and its place among the client's sockets.
    Client(Identity, ClientPermit),
    /// Nobody yet: the first message must be `auth`.
    Visitor,
}

impl Gate {
    /// Judges by this configuration, and by who is banned. Keys are read now, and again by [`reload`](Self::reload).
    pub fn new(config: Arc<Config>, limiter: Arc<Limiter>, bans: Arc<Bans>) -> Result<Gate, token::LoadError> {
        let keyring = Keyring::load(&config.auth)?;
        let rates = config.routes.iter().map(|r| Rates::new(&r.limits)).collect();
        Ok(Gate { config, limiter, bans, keyring, rates })
    }

    /// Reads the keys again, or has them fetched. On an error the old ones stay.
    pub fn reload(&self) -> Result<(), token::LoadError> {
        self.keyring.reload(&self.config.auth)
    }

    /// Fetches the keys, again and again, where they come from a URL; does not end then.
    pub async fn fetch_keys(&self, metrics: &Metrics) {
        self.keyring.fetch(&self.config.auth, metrics).await;
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// A connection came: its place in the process.
    ///
    /// # Errors
    /// [`Denied::ProcessFull`].
    pub fn enter(&self) -> Result<ProcessPermit, Denied> {
        self.limiter.enter()
    }

    /// Both ends of a connection are known, or will not be: its place among those of its address, and its handshake.
    /// For a trusted proxy these are the client's, once a request names it.
    ///
    /// # Errors
    /// [`Denied::IpConnections`], [`Denied::HandshakeRate`].
    pub fn knock(&self, process: ProcessPermit, ends: Option<Ends>, listener: usize) -> Result<Knock, Denied> {
        let listens: &Listener = &self.config.listeners[listener];
        let peer = ends.map(|ends| ends.peer.ip());
        let trusted = forwarded::is_trusted(peer, &listens.trusted_proxies);
        let by_address = peer.filter(|_| !trusted);
        let ip = by_address.map(|ip| self.limiter.enter_ip(ip)).transpose()?;
        by_address.map_or(Ok(()), |ip| self.limiter.handshake(ip))?;
        let secure = !listens.tls.is_empty();
        Ok(Knock { ends, listener, secure, trusted, _process: process, _ip: ip })
    }

    /// Judges a request: permits of the address, handshake rate, route, method and upgrade, Origin,
    /// token, permits of the client. An ordinary request on a proxy route is no handshake, unless it is refused.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn admit(&self, entrance: &Rc<Entrance>, head: &Parts) -> Result<Entered, Refusal> {
        let Knock { ends, listener, secure, trusted, .. } = entrance.knock;
        let networks = &self.config.listeners[listener].trusted_proxies;
        let origin = forwarded::client(ends, secure, trusted, networks, head);
        let route = route::find(&self.config.routes, &origin.host, head.uri.path());
        if let Some((route, upstream)) = route.and_then(|route| Some((route, ordinary(route, head)?))) {
            let ip = self.enter_address(entrance, &origin)?;
            let identity = match self.judge(route, head).await {
                Ok(identity) => identity,
                Err(refusal) => return Err(self.count_handshake(entrance, &origin).err().unwrap_or(refusal)),
            };
            let permits = Permits { _entrance: entrance.clone(), _ip: ip, _process: None };
            return Ok(Entered::Request(Passed { route: route.clone(), upstream, identity, origin, permits }));
        }
        let ip = self.enter_address(entrance, &origin)?;
        self.count_handshake(entrance, &origin)?;
        let route = route.ok_or_else(|| match head.method {
            // To a host, which has no path (RFC 9110, section 9.3.6).
            Method::CONNECT if head.version != Version::HTTP_2 => request::not_served(),
            _ => Refusal::no_route(),
        })?;
        let upgrade = Upgrade::read(&self.config.auth, head)?;
        let refuse = |code, reason| Refusal::closing(code, reason, route, &upgrade);
        judge_origin(route, head).map_err(|(code, reason)| refuse(code, reason))?;
        let (ip, process) = self.enter_stream(entrance, head, &origin, ip)?;
        let who = match self.identify(route, &route.auth.sources, head).await {
            Ok(Some(identity)) => self.place(route, identity),
            Ok(None) => Ok(Who::Visitor),
            Err(refused) => Err(refused),
        };
        let who = who.map_err(|(code, reason)| refuse(code, reason))?;
        Ok(Entered::Session(Admitted {
            route: route.clone(),
            rates: self.rates[route.index],
            who,
            upgrade,
            origin,
            permits: Permits { _entrance: entrance.clone(), _ip: ip, _process: process },
        }))
    }

    /// Judges an ordinary request.
    async fn judge(&self, route: &Route, head: &Parts) -> Result<Identity, Refusal> {
        upgrade::check(head)?;
        request::check(head)?;
        let refuse = |(code, reason)| Refusal::by_status(code, reason);
        if !request::says_no_origin(head) {
            judge_origin(route, head).map_err(refuse)?;
        }
        if request::is_preflight(head) {
            return Ok(Identity::anonymous());
        }
        // Where no token came, none comes later: there is no message to wait for.
        let identity = self.identify(route, &request::sources(route, head), head).await.map_err(refuse)?;
        let identity = identity.ok_or_else(|| refuse((Code::AuthRequired, Refused::AuthRequired)))?;
        if !identity.is_anonymous() && self.is_banned(route, &identity.client) {
            return Err(refuse((Code::Banned, Refused::Banned)));
        }
        Ok(identity)
    }

    /// A place among the connections of the address that a trusted proxy names; any other has one since it knocked.
    fn enter_address(&self, entrance: &Entrance, origin: &forwarded::Client) -> Result<Option<IpPermit>, Refusal> {
        match self.proxied(entrance, origin) {
            Some(ip) => self.limiter.enter_ip(ip).map(Some).map_err(Refusal::denied),
            None => Ok(None),
        }
    }

    /// The address that a trusted proxy asks for. The proxy itself is exempt: it asks for its own, or has not said for
    /// whom.
    fn proxied(&self, entrance: &Entrance, origin: &forwarded::Client) -> Option<IpAddr> {
        let Knock { listener, trusted, .. } = entrance.knock;
        let networks = &self.config.listeners[listener].trusted_proxies;
        origin.ip.filter(|ip| trusted && !forwarded::is_trusted(Some(*ip), networks))
    }

    /// The handshake of a request; that of the first was counted when the connection came.
    fn count_handshake(&self, entrance: &Entrance, origin: &forwarded::Client) -> Result<(), Refusal> {
        if entrance.knock.trusted {
            let denied = |ip| self.limiter.handshake(ip).map_err(Refusal::denied);
            return self.proxied(entrance, origin).map_or(Ok(()), denied);
        }
        match origin.ip {
            // Whoever is too fast knocks anew, where nothing is read before the count.
            Some(ip) if !entrance.counted.replace(false) => {
                self.limiter.handshake(ip).map_err(|denied| Refusal::denied(denied).last())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A socket that is one of many on its connection is counted as if it had one of its own. `ip`: its place among the
    /// connections of an address that a trusted proxy names.
    fn enter_stream(
        &self,
        entrance: &Entrance,
        head: &Parts,
        origin: &forwarded::Client,
        ip: Option<IpPermit>,
    ) -> Result<(Option<IpPermit>, Option<ProcessPermit>), Refusal> {
        if head.version != Version::HTTP_2 {
            return Ok((ip, None));
        }
        let process = self.limiter.enter().map_err(Refusal::denied)?;
        let own = origin.ip.filter(|_| !entrance.knock.trusted);
        let own = own.map(|ip| self.limiter.enter_ip(ip)).transpose().map_err(Refusal::denied)?;
        Ok((own.or(ip), Some(process)))
    }

    /// Who the request's token names; `None` where the first message must tell.
    async fn identify(
        &self,
        route: &Route,
        sources: &[TokenSource],
        head: &Parts,
    ) -> Result<Option<Identity>, (Code, Refused)> {
        let bad = (Code::AuthFailed, Refused::AuthFailed);
        let found = token::find(&self.config.auth, sources, &head.headers, &head.uri).map_err(|_| bad)?;
        if let Some(found) = found {
            return self.verify(&found.token).await.map(Some).map_err(|fault| match fault {
                TokenFault::NoKeys => (fault.code(), Refused::NoKeys),
                TokenFault::Invalid | TokenFault::Expired | TokenFault::UnknownKey => bad,
            });
        }
        if !route.auth.required {
            return Ok(Some(Identity::anonymous()));
        }
        let asks = route.service == Service::Rooms && sources.contains(&TokenSource::Message);
        if asks { Ok(None) } else { Err((Code::AuthRequired, Refused::AuthRequired)) }
    }

    /// Who a token names. Where its key is not known, and keys are fetched, waits up to 5 s for newer ones.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenFault> {
        self.keyring.verify(token).await
    }

    fn place(&self, route: &Route, identity: Identity) -> Result<Who, (Code, Refused)> {
        let permit = self.client_permit(route, &identity).map_err(|code| match code {
            Code::Banned => (code, Refused::Banned),
            code => (code, Refused::ClientConnections),
        })?;
        Ok(Who::Client(identity, permit))
    }

    /// Whether a client may not come in, by this route or any of its namespace.
    pub fn is_banned(&self, route: &Route, client: &str) -> bool {
        self.bans.from_gateway(route.namespace, client).is_some()
    }

    /// A place among the client's sockets on the route.
    ///
    /// # Errors
    /// [`Code::Banned`], [`Code::TooManyConnections`].
    pub fn client_permit(&self, route: &Route, identity: &Identity) -> Result<ClientPermit, Code> {
        if identity.is_anonymous() {
            return Ok(ClientPermit::alone());
        }
        if self.is_banned(route, &identity.client) {
            return Err(Code::Banned);
        }
        self.limiter
            .enter_client(route.index, &identity.client, route.limits.connections_per_client)
            .map_err(|_| Code::TooManyConnections)
    }
}

/// The upstream of an ordinary request: on a proxy route that takes them, and no upgrade.
fn ordinary(route: &Route, head: &Parts) -> Option<usize> {
    match route.service {
        Service::Proxy(upstream) if !route.websocket_only && !upgrade::is_asked(head) => Some(upstream),
        Service::Proxy(_) | Service::Echo | Service::Rooms => None,
    }
}

fn judge_origin(route: &Route, head: &Parts) -> Result<(), (Code, Refused)> {
    let header = head.headers.get(hyper::header::ORIGIN).map(|v| v.as_bytes());
    let allowed = origin::allowed(&route.origins, header);
    if allowed { Ok(()) } else { Err((Code::OriginNotAllowed, Refused::Origin)) }
}

impl Admitted {
    /// The same route's refusal, for what goes wrong after admission.
    pub fn refusal(&self, code: Code, reason: Refused) -> Refusal {
        Refusal::closing(code, reason, &self.route, &self.upgrade)
    }
}
