//! Active checks: a server is asked whether it is well, on the main thread.
use super::http::discard;
use super::server::Server;
use crate::dial::USER_AGENT;
use crate::outbox::wire::Stream;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// Most checks at once.
pub(super) const CHECKS_MAX: usize = 64;
/// The most of an answer's head that is read.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 100;
/// The most of an answer's body that is read, so that the server need not see its connection break.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Checks a server each `interval`. `lost` is told its number where its sessions are to be closed.
pub(super) async fn watch(server: Arc<Server>, places: Arc<Semaphore>, lost: broadcast::Sender<u64>) {
    // Where nobody listens there are no sessions.
    let lose = || drop(lost.send(server.number()));
    // It may have been found unhealthy while its sessions were to stay.
    if server.closes_sessions() {
        lose();
    }
    let interval = server.upstream.health.interval;
    // Servers that were made together are not checked together.
    sleep(interval.mul_f64(rand::random_range(0.5..1.0))).await;
    // The semaphore is never closed.
    while let Ok(place) = places.acquire().await {
        let outcome = check(&server).await;
        drop(place);
        if let Some(Ok(())) = outcome {
            server.connected();
        }
        let turned = outcome.and_then(|outcome| server.checked(&outcome));
        if turned == Some(false) && server.upstream.close_on_unhealthy {
            lose();
        }
        sleep(interval.mul_f64(rand::random_range(0.9..1.1))).await;
    }
}

/// One check, within `timeout`. `None` where the gateway itself lacks something: that says nothing of the server.
///
/// # Errors
/// Why the server is not well, in words for the log.
async fn check(server: &Server) -> Option<Result<(), String>> {
    let deadline = Instant::now() + server.upstream.health.timeout;
    match server.reach(None, server.upstream.health.timeout).await {
        Ok(stream) => Some(ask(server, stream, deadline).await),
        Err(why) if why.is_own() => {
            tracing::debug!(target: "wsgate::upstream", server = %server, %why, "could not be checked");
            None
        }
        Err(why) => Some(Err(why.to_string())),
    }
}

/// What is asked behind a connection, where a path is configured.
async fn ask(server: &Server, stream: Stream, deadline: Instant) -> Result<(), String> {
    let Some(path) = &server.upstream.health.path else { return Ok(()) };
    let request = request(server, path).map_err(|error| error.to_string())?;
    let connecting =
        http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = connecting.await.map_err(|error| error.to_string())?;
    // Aborted by Drop, with what it still does.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = match timeout_at(deadline, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(|error| error.to_string())?,
        Err(_) => return Err("no answer in time".to_owned()),
    };
    let status = answer.status();
    // What it says does not matter, nor whether it comes.
    let _ = timeout_at(deadline, discard(answer.into_body(), BODY_BYTES_MAX)).await;
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
}

fn request(server: &Server, path: &str) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = Uri::try_from(path)?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(&server.authority())?);
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}
