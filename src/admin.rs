//! The admin interface: health and metrics over plain HTTP/1.1, on an address of its own
//! (protocol.md, "The admin interface").
//!
//! It runs on the main thread, so that it answers even where a shard is stuck. The way of a call:
//! `guard` (Host, Origin), then `route`, where each path names its methods and says whether it
//! asks for the token.
mod answer;
mod guard;

use crate::config;
use crate::health::{Health, Phase, STALE_AFTER};
use crate::metrics::{self, Metrics};
use answer::{Answer, Fault};
use guard::Own;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Connections at one time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request head, also for the next one of a connection that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Age at which a connection is closed after its current call, so that none is held for good.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Time for that current call to end.
const LAST_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one request head, and of hyper's buffers (8 KiB is the least that it takes).
const BUFFER_BYTES: usize = 16 * 1024;
/// Pause after a failed accept: a want of descriptors does not end at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the calls look at.
#[derive(Debug)]
pub struct State {
    /// The counters of `/metrics`.
    pub metrics: Arc<Metrics>,
    /// What `/healthz` and `/readyz` answer from.
    pub health: Arc<Health>,
    /// Its token guards all but health; its address is the Host that calls must carry.
    pub config: config::Admin,
}

/// Answers calls for as long as the future is polled. Dropping it ends every open connection.
pub async fn serve(listener: TcpListener, state: Arc<State>) {
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
        let state = Arc::clone(&state);
        connections.spawn(async move {
            connection(stream, state).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let Ok(reached) = stream.local_addr() else { return };
    let own = Own::new(state.config.address, reached);
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move {
            let answered = match guard::check(&request, own) {
                Ok(()) => route(&state, request).await,
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

/// Every call there is.
async fn route(state: &State, request: Request<Incoming>) -> Result<Answer, Fault> {
    match request.uri().path() {
        "/healthz" => {
            reading(&request)?;
            healthz(state)
        }
        "/readyz" => {
            reading(&request)?;
            readyz(state)
        }
        "/metrics" => {
            reading(&request)?;
            guard::token(&request, state.config.token.as_ref())?;
            Ok(Answer::text(metrics::CONTENT_TYPE, state.metrics.encode()))
        }
        _ => Err(Fault::NotFound),
    }
}

/// A call that only reads.
fn reading(request: &Request<Incoming>) -> Result<(), Fault> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Fault::Method { allowed: "GET, HEAD" }),
    }
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
        Phase::Ready => healthz(state),
        Phase::Starting => Err(Fault::Unavailable("starting")),
        Phase::Draining => Err(Fault::Unavailable("draining")),
    }
}

#[cfg(test)]
mod tests;
