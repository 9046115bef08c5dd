//! The admin interface: health, metrics, publishing and moderation over plain HTTP/1.1, on an address
//! of its own (protocol.md, "The admin interface").
//!
//! It runs on the main thread, so that it answers even where a shard is stuck. The way of a call:
//! `guard` (Host, Origin), then `route`: the token, then the path, which names its methods. What is
//! asked of the rooms goes over their desk, and is waited for a bounded time.
mod answer;
mod bans;
mod body;
mod clients;
mod guard;
mod name;
mod notify;
mod publish;
mod query;
mod rooms;
mod status;

use crate::bans::Bans;
use crate::cluster::Nodes;
use crate::cluster::nodes::Standing;
use crate::config::{self, Config, Namespace};
use crate::health::{Health, Phase, STALE_AFTER};
use crate::metrics::{self, Metrics};
use crate::rooms::desk::{Desk, Refusal};
use crate::upstream::Upstreams;
use answer::{Answer, Fault};
use body::Body;
use guard::Own;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use query::Query;
pub use status::about;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Connections at one time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request head, also for the next one of a connection that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Age at which a connection is closed after its current call, so that none is held for good.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Time for that current call to end: for its body, the answer of the rooms, and the way back.
const LAST_CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the rooms to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one request head, and of hyper's buffers (8 KiB is the least that it takes).
const BUFFER_BYTES: usize = 16 * 1024;
/// Pause after a failed accept: a want of descriptors does not end at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the calls look at.
pub struct State {
    /// The counters of `/metrics`.
    pub metrics: Arc<Metrics>,
    /// What `/healthz` and `/readyz` answer from.
    pub health: Arc<Health>,
    /// Its token guards all but health; its address is the Host that calls must carry.
    pub admin: config::Admin,
    /// Namespaces, and how large a message may be.
    pub config: Arc<Config>,
    /// Where the rooms are asked.
    pub desk: Desk,
    /// Notified, once or more often, by `POST /api/drain`: the gateway is to stop.
    pub drain: Arc<Notify>,
    /// The bans that are made and lifted here.
    pub bans: Arc<Bans>,
    /// How servers do.
    pub upstreams: Arc<Upstreams>,
    /// The other nodes, where there may be some.
    pub nodes: Option<Arc<Nodes>>,
}

impl State {
    /// The state of a gateway that serves this configuration, whose `[admin]` is `admin`, alone.
    pub fn new(
        admin: config::Admin,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        desk: Desk,
        bans: Arc<Bans>,
        upstreams: Arc<Upstreams>,
    ) -> State {
        State { metrics, health, admin, config, desk, drain: Arc::default(), bans, upstreams, nodes: None }
    }
}

/// The interface, from before there is anything to look at.
pub struct Interface {
    address: SocketAddr,
    state: OnceLock<Arc<State>>,
}

impl Interface {
    /// One that says that the gateway lives, and is starting.
    pub fn new(admin: &config::Admin) -> Arc<Interface> {
        Arc::new(Interface { address: admin.address, state: OnceLock::new() })
    }

    /// Takes every call from now on. Only the first state counts.
    pub fn open(&self, state: Arc<State>) {
        let _ = self.state.set(state);
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Fault> {
        match self.state.get() {
            Some(state) => route(state, request).await,
            None if request.uri().path() == "/healthz" => {
                Verb::of(request.method()).only(Verb::Read).map(|()| Answer::ok())
            }
            None => Err(Fault::Unavailable("starting")),
        }
    }
}

/// Answers calls for as long as the future is polled. Dropping it ends every open connection.
pub async fn serve(listener: TcpListener, interface: Arc<Interface>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut paused = false;
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Once, however long it takes.
                if !std::mem::replace(&mut paused, true) {
                    tracing::warn!(%error, "the admin interface cannot accept");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        paused = false;
        while connections.try_join_next().is_some() {}
        let interface = Arc::clone(&interface);
        connections.spawn(async move {
            connection(stream, interface).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, interface: Arc<Interface>) {
    let Ok(reached) = stream.local_addr() else { return };
    let own = Own::new(interface.address, reached);
    let service = service_fn(move |request| {
        let interface = Arc::clone(&interface);
        async move {
            let answered = match guard::check(&request, own) {
                Ok(()) => interface.answer(request).await,
                Err(fault) => Err(fault),
            };
            Ok::<_, Infallible>(answered.unwrap_or_else(Answer::from).into_response())
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // A peer that breaks off or sends no HTTP is no event of the gateway's.
    if timeout(CONNECTION_AGE_MAX, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_CALL_TIMEOUT, connection).await;
    }
}

/// What a call wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// GET or HEAD.
    Read,
    Post,
    Put,
    Delete,
    Other,
}

/// A call that has passed its guards.
struct Call<'a> {
    state: &'a State,
    query: Option<&'a str>,
    body: Body<'a>,
}

/// Every call there is.
async fn route(state: &State, request: Request<Incoming>) -> Result<Answer, Fault> {
    let path = request.uri().path();
    if path == "/metrics" || path.starts_with("/api/") {
        guard::token(&request, state.admin.token.as_ref())?;
    }
    let (head, incoming) = request.into_parts();
    let verb = Verb::of(&head.method);
    let call = Call { state, query: head.uri.query(), body: Body { headers: &head.headers, incoming } };
    let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    match segments[..] {
        ["healthz"] => verb.only(Verb::Read).and_then(|()| healthz(state)),
        ["readyz"] => verb.only(Verb::Read).and_then(|()| readyz(state)),
        ["metrics"] => verb.only(Verb::Read).map(|()| Answer::text(metrics::CONTENT_TYPE, state.metrics.encode())),
        ["api", "status"] => verb.only(Verb::Read).and_then(|()| status::show(&call)),
        ["api", "drain"] => {
            verb.only(Verb::Post)?;
            status::drain(call).await
        }
        ["api", "publish"] => {
            verb.only(Verb::Post)?;
            publish::publish(call).await
        }
        ["api", "notify"] => {
            verb.only(Verb::Post)?;
            notify::notify(call).await
        }
        ["api", "rooms"] => {
            verb.only(Verb::Read)?;
            rooms::list(call).await
        }
        ["api", "rooms", room] => {
            verb.only(Verb::Read)?;
            rooms::show(call, room).await
        }
        ["api", "rooms", room, "history"] => {
            verb.only(Verb::Read)?;
            rooms::history(call, room).await
        }
        ["api", "rooms", room, "kick"] => {
            verb.only(Verb::Post)?;
            rooms::kick(call, room).await
        }
        ["api", "clients", client] => match verb {
            Verb::Read => clients::show(call, client).await,
            Verb::Delete => clients::disconnect(call, client).await,
            _ => Err(Fault::Method { allowed: "GET, HEAD, DELETE" }),
        },
        ["api", "bans"] => {
            verb.only(Verb::Read)?;
            bans::list(call).await
        }
        ["api", "bans", client] => match verb {
            Verb::Put => bans::put(call, client).await,
            Verb::Delete => bans::lift(call, client).await,
            _ => Err(Fault::Method { allowed: "PUT, DELETE" }),
        },
        _ => Err(Fault::NotFound),
    }
}

impl Verb {
    fn of(method: &Method) -> Verb {
        match *method {
            Method::GET | Method::HEAD => Verb::Read,
            Method::POST => Verb::Post,
            Method::PUT => Verb::Put,
            Method::DELETE => Verb::Delete,
            _ => Verb::Other,
        }
    }

    /// Refuses every other one.
    fn only(self, wanted: Verb) -> Result<(), Fault> {
        if self == wanted {
            return Ok(());
        }
        let allowed = match wanted {
            Verb::Read => "GET, HEAD",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
            Verb::Other => "",
        };
        Err(Fault::Method { allowed })
    }
}

impl<'a> Call<'a> {
    /// The query, which may hold these parameters.
    fn query(&self, known: &[&'static str]) -> Result<Query, Fault> {
        Query::parse(self.query, known)
    }

    /// The namespace that the query names, or the obvious one.
    fn namespace(&self, query: &Query) -> Result<Namespace, Fault> {
        name::namespace(&self.state.config.namespaces, query.get("namespace"))
    }

    /// The desk, where every shard is alive: mail for a stuck one would pile up.
    fn desk(&self) -> Result<&'a Desk, Fault> {
        healthz(self.state).map(|_| &self.state.desk)
    }
}

/// When the rooms must have answered.
fn deadline() -> Instant {
    Instant::now() + ANSWER_TIMEOUT
}

/// An answer of the rooms, within the usual time.
async fn asked<T>(answer: impl Future<Output = T>) -> Result<T, Fault> {
    asked_until(deadline(), answer).await
}

/// An answer of the rooms. What was asked may still be done after it came too late.
async fn asked_until<T>(deadline: Instant, answer: impl Future<Output = T>) -> Result<T, Fault> {
    asked_or("the rooms did not answer in time", deadline, answer).await
}

/// An answer, or these words where it comes too late.
async fn asked_or<T>(late: &'static str, deadline: Instant, answer: impl Future<Output = T>) -> Result<T, Fault> {
    let late = Refusal { code: crate::close::Code::Unknown, message: late };
    timeout_at(deadline, answer).await.map_err(|_| Fault::Refused(late))
}

/// Whether the process lives and no shard is stuck.
fn healthz(state: &State) -> Result<Answer, Fault> {
    if state.health.fresh(Instant::now().into_std(), STALE_AFTER) {
        Ok(Answer::ok())
    } else {
        Err(Fault::Unavailable("a shard does not answer"))
    }
}

/// Whether new connections are wanted.
fn readyz(state: &State) -> Result<Answer, Fault> {
    match state.health.phase() {
        Phase::Ready => match state.nodes.as_ref().map(|nodes| *nodes.standing().borrow()) {
            None | Some(Standing::Reached) => healthz(state),
            Some(Standing::Away) => Err(Fault::Unavailable("Redis is not reached")),
            Some(Standing::Nameless) => Err(Fault::Unavailable("another node has this node's name")),
        },
        Phase::Starting => Err(Fault::Unavailable("starting")),
        Phase::Draining => Err(Fault::Unavailable("draining")),
    }
}

#[cfg(test)]
mod tests;
