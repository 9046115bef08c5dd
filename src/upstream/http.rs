//! Ordinary requests to backends: one request at a time on a connection, which is kept for the next; bodies are streams.
mod download;
mod exchange;
mod hints;
mod line;
mod upload;

pub use download::Download;
pub use hints::Hints;
pub use line::Lines;

pub(super) use line::BUFFER_MAX;

use super::handshake::Forward;
use super::headers;
use super::pool::{Affinity, Upstreams};
use super::server::{Lease, Proxied, Server, Unavailable};
use bytes::Bytes;
use exchange::{Exchange, Quiet};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use line::Line;
use std::error::Error;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use upload::Upload;

/// A request's body, as it comes from a client.
pub type Source = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>;

/// Why a body broke off.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// How long a body that waits for `100 Continue` is held back (RFC 9110, section 10.1.1: not for ever).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// An ordinary request on its way to a backend.
pub struct Ordinary<'a> {
    /// The method.
    pub method: &'a Method,
    /// What the backend is told.
    pub forward: Forward<'a>,
    /// The body.
    pub body: Source,
    /// Where informational answers go, where the client can be sent them.
    pub hints: Option<Hints>,
}

/// Why there is no answer that could be passed on.
#[derive(Debug)]
pub enum Unanswered {
    /// The client's own body breaks off, or breaks the grammar.
    Broken,
    /// No server has answered.
    Unavailable(Unavailable),
}

impl From<Unavailable> for Unanswered {
    fn from(unavailable: Unavailable) -> Unanswered {
        Unanswered::Unavailable(unavailable)
    }
}

/// What became of a request on one connection.
enum Sent {
    Answered(Response<Download>),
    /// Nothing of it was sent.
    Unsent(Box<Request<Upload>>),
    Failed(Unanswered),
}

impl Lines {
    /// Sends a request to a server of `Config::upstreams[upstream]`, over a kept connection or a new one, and gives the
    /// answer when its head has come; its body follows as it comes, and the request's as the backend takes it. Where no
    /// connection can be made, or one ends before anything was sent, others are tried; a request that was sent is not
    /// sent again. Dropping the future, or the body before its end, closes the connection. Must run in a `LocalSet`.
    ///
    /// # Errors
    /// [`Unanswered`].
    ///
    /// # Panics
    /// Where there is no such upstream.
    pub async fn send(
        self: &Rc<Self>,
        upstreams: &Upstreams,
        upstream: usize,
        ordinary: Ordinary<'_>,
    ) -> Result<Response<Download>, Unanswered> {
        let Ordinary { method, forward, body, hints } = ordinary;
        let configured = upstreams.configured(upstream);
        let exchange = Exchange::new(configured.response_timeout, configured.idle_timeout);
        let affinity = Affinity { client: forward.client_id, ip: forward.client_ip };
        let mut failed = Unavailable::none(&configured.name);
        let mut upload = Some(Upload::new(body, exchange.clone(), configured.clone()));
        for server in upstreams.candidates(upstream, affinity) {
            let Some(body) = upload.take() else { break };
            let mut request = request(&server, method, &forward, body).map_err(|e| Unavailable::bad(&server, e))?;
            listen(&mut request, &exchange, hints.clone());
            if let Some(line) = self.take(&server) {
                match self.exchange(line, &exchange, request).await {
                    Sent::Answered(answer) => return Ok(answer),
                    Sent::Failed(why) => return Err(why),
                    Sent::Unsent(again) => request = *again,
                }
            }
            exchange.touch();
            let line = match connect(&server, forward.proxied).await {
                Ok(line) => line,
                Err(why) => {
                    failed = why;
                    upload = Some(request.into_body());
                    continue;
                }
            };
            match self.exchange(line, &exchange, request).await {
                Sent::Answered(answer) => return Ok(answer),
                Sent::Failed(why) => return Err(why),
                Sent::Unsent(again) => {
                    failed = Unavailable::bad(&server, "closed before the request was sent");
                    upload = Some(again.into_body());
                }
            }
        }
        Err(failed.into())
    }

    /// One request on one connection, up to the head of its answer.
    async fn exchange(self: &Rc<Self>, mut line: Line, exchange: &Rc<Exchange>, request: Request<Upload>) -> Sent {
        let lease = Lease::new(line.server.clone());
        exchange.touch();
        let mut quiet = Quiet::new(exchange.clone());
        let mut waited = pin!(sleep(CONTINUE_WAIT));
        let answered = {
            let mut answer = pin!(line.sender.try_send_request(request));
            loop {
                tokio::select! {
                    biased;
                    answered = &mut answer => break answered,
                    () = exchange.continues.notified(), if exchange.is_held() => exchange.release(),
                    () = &mut waited, if exchange.is_held() => exchange.release(),
                    () = exchange.uploaded.notified() => (),
                    () = quiet.expired() => return Sent::Failed(Unavailable::late(&line.server).into()),
                }
            }
        };
        match answered {
            Err(_) if exchange.is_broken() => Sent::Failed(Unanswered::Broken),
            Err(mut error) => match error.take_message() {
                Some(request) => Sent::Unsent(Box::new(request)),
                None if exchange.has_expired() => Sent::Failed(Unavailable::late(&line.server).into()),
                None => Sent::Failed(Unavailable::bad(&line.server, Chain(&error.into_error())).into()),
            },
            Ok(mut answer) => match judge(&answer) {
                Err(why) => Sent::Failed(Unavailable::bad(&line.server, why).into()),
                Ok(()) => {
                    exchange.head_has_come();
                    let received = std::mem::replace(answer.version_mut(), Version::HTTP_11);
                    headers::for_client(answer.headers_mut(), received);
                    Sent::Answered(Download::new(answer, line, lease, exchange.clone(), self.clone()))
                }
            },
        }
    }
}

/// Hears what the backend says before its answer, where that matters to anybody; a body that must be asked for is held.
fn listen(request: &mut Request<Upload>, exchange: &Exchange, hints: Option<Hints>) {
    if request.headers().contains_key(header::EXPECT) {
        exchange.hold();
    } else if hints.is_none() {
        return;
    }
    let continues = exchange.continues.clone();
    hyper::ext::on_informational(request, move |answer| match (answer.status(), &hints) {
        (StatusCode::CONTINUE, _) => continues.notify_one(),
        (_, None) => (),
        (status, Some(hints)) => {
            let mut hint = Response::new(());
            *hint.status_mut() = status;
            *hint.headers_mut() = answer.headers().clone();
            headers::for_client(hint.headers_mut(), answer.version());
            // It has no body (RFC 9110, section 8.6).
            hint.headers_mut().remove(header::CONTENT_LENGTH);
            hints.tell(hint);
        }
    });
}

async fn connect(server: &Arc<Server>, proxied: Option<Proxied>) -> Result<Line, Unavailable> {
    let stream = server.dial(proxied).await?;
    Line::new(stream, server.clone()).await.map_err(|error| Unavailable::bad(server, error))
}

fn request(
    server: &Server,
    method: &Method,
    forward: &Forward<'_>,
    body: Upload,
) -> Result<Request<Upload>, hyper::http::Error> {
    let mut headers = headers::for_backend(forward, server.host(forward.host)?, &server.upstream.headers);
    let trailers = |element: &[u8]| element.eq_ignore_ascii_case(b"trailers");
    if headers::elements(forward.headers.get_all(header::TE)).any(trailers) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("TE"));
    }
    frame(&mut headers, forward.headers, &body);
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    *request.uri_mut() = Uri::try_from(forward.path_and_query)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Says how the body is framed: hyper would drop one of unknown length from a GET, and leave a length of 0 out.
fn frame(headers: &mut HeaderMap, asked: &HeaderMap, body: &Upload) {
    use http_body::Body;
    match body.size_hint().exact() {
        Some(0) if !asked.contains_key(header::CONTENT_LENGTH) => return,
        Some(length) => headers.insert(header::CONTENT_LENGTH, length.into()),
        None => headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
    let expects = asked.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects && !body.is_end_stream() {
        headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
}

/// Whether an answer can be passed on: it must have one framing that all parsers understand alike (RFC 9112, section 6).
pub(super) fn judge(answer: &Response<Incoming>) -> Result<(), &'static str> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err("101 to a request that asked for no upgrade");
    }
    let headers = answer.headers();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() || length.is_some_and(|n| n.is_empty() || !n.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return Err("an answer with a bad Content-Length");
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if length.is_some() {
            return Err("an answer with both Content-Length and Transfer-Encoding");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("an answer with a transfer coding that is not chunked");
        }
    }
    Ok(())
}

/// Reads a body that nobody wants, up to a frame that goes beyond `bytes_max`, so that whoever sends it need not see its
/// connection break.
pub async fn discard(mut body: Incoming, bytes_max: usize) {
    let mut left = bytes_max;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// An error and what it came from: hyper's own text alone says little.
struct Chain<'a>(&'a dyn Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
