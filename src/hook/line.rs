//! A connection to the application, and one request on it with its answer.
//!
//! hyper speaks; what stands here is when a kept connection is used again, and when a request that got no answer may
//! be sent once more. A pooled client would have to be wrapped for the latter by more than this.
use crate::dial::{USER_AGENT, origin::Origin};
use crate::outbox::wire::Stream;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

/// Most bytes of an answer's body.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Most bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 100;
/// How long a connection that is not used is kept: less than servers and what is on the way commonly do.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How long a kept connection may take to be done with its last request before another is opened.
const FREE_WITHIN: Duration = Duration::from_millis(10);

const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
const EVENT: HeaderName = HeaderName::from_static("x-event");

/// A request, which may have to be sent a second time.
pub(super) struct Post {
    pub(super) event: &'static str,
    pub(super) body: Bytes,
    pub(super) signature: Option<HeaderValue>,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Whole, at most [`ANSWER_BYTES_MAX`], or why not.
    pub(super) body: Result<Vec<u8>, Failure>,
}

/// Why there is no answer that decides. Shows nothing that the application sent but its status.
#[derive(Debug)]
pub(super) enum Failure {
    /// No place to ask became free in time.
    Crowded,
    /// Not everything was there in time.
    Late,
    /// No connection.
    Unreachable(io::Error),
    /// The connection broke, or what came was not HTTP.
    Broken(hyper::Error),
    /// A body of more than [`ANSWER_BYTES_MAX`].
    TooLarge,
    /// A status that decides nothing.
    Status(StatusCode),
    /// A body that is not the object that was agreed on.
    NotAnAnswer,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Crowded => f.write_str("no place among the questions in time"),
            Failure::Late => f.write_str("no answer in time"),
            Failure::Unreachable(error) => write!(f, "no connection: {error}"),
            Failure::Broken(error) => write!(f, "the connection broke: {error}"),
            Failure::TooLarge => write!(f, "an answer of more than {ANSWER_BYTES_MAX} bytes"),
            Failure::Status(status) => write!(f, "status {}", status.as_u16()),
            Failure::NotAnAnswer => f.write_str("the answer's body is not the object that was agreed on"),
        }
    }
}

impl Post {
    fn request(&self, target: &Origin) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, target.authority.clone());
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(EVENT, HeaderValue::from_static(self.event));
        if let Some(signature) = &self.signature {
            headers.insert(SIGNATURE, signature.clone());
        }
        request
    }
}

/// An open connection. Its driver is a task of the runtime that opened it, and ends when this is dropped.
pub(super) struct Line {
    sender: SendRequest<Full<Bytes>>,
    /// Whether a byte has come since the last request.
    heard: Arc<AtomicBool>,
    idle_since: Instant,
}

/// A request without an answer.
struct Lost {
    /// Not sent, or sent and not a byte came: what becomes of a connection that the server was about to close.
    unheard: bool,
    error: hyper::Error,
}

impl Line {
    async fn open(target: &Origin, deadline: Instant) -> Result<Line, Failure> {
        let stream = target.connect(deadline).await.map_err(Failure::Unreachable)?;
        let heard = Arc::new(AtomicBool::new(false));
        let io = TokioIo::new(Listened { stream, heard: heard.clone() });
        let made = Builder::new().max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX).handshake(io).await;
        let (sender, connection) = made.map_err(Failure::Broken)?;
        tokio::spawn(connection);
        Ok(Line { sender, heard, idle_since: Instant::now() })
    }

    /// Whether it was kept too long to be trusted.
    pub(super) fn is_stale(&self) -> bool {
        self.idle_since.elapsed() >= IDLE_MAX
    }

    /// Whether another request may be sent. The driver needs a turn after an answer; where it needs more, the server
    /// answered before it took the request.
    async fn is_free(&mut self) -> bool {
        !self.is_stale()
            && (self.sender.is_ready() || matches!(timeout(FREE_WITHIN, self.sender.ready()).await, Ok(Ok(()))))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Lost> {
        self.heard.store(false, Relaxed);
        self.sender.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            Lost { unheard: unsent || !self.heard.load(Relaxed), error: error.into_error() }
        })
    }
}

/// Sends one request, on the kept connection where it still serves, and reads the answer. A request that a kept
/// connection lost without a byte of an answer is sent again on a new one. Gives the connection back where it may be
/// used again.
///
/// # Errors
/// Where there is no head of an answer until `deadline`. What is wrong with the body stands in [`Answer::body`].
pub(super) async fn exchange(
    target: &Origin,
    kept: Option<Line>,
    post: &Post,
    deadline: Instant,
) -> Result<(Answer, Option<Line>), Failure> {
    let answered = timeout_at(deadline, send(target, kept, post, deadline)).await;
    let (response, line) = answered.map_err(|_| Failure::Late)??;
    let status = response.status();
    let body = timeout_at(deadline, whole(response.into_body())).await.unwrap_or(Err(Failure::Late));
    let line = body.is_ok().then(|| Line { idle_since: Instant::now(), ..line });
    Ok((Answer { status, body }, line))
}

async fn send(
    target: &Origin,
    kept: Option<Line>,
    post: &Post,
    deadline: Instant,
) -> Result<(Response<Incoming>, Line), Failure> {
    if let Some(mut line) = kept
        && line.is_free().await
    {
        match line.send(post.request(target)).await {
            Ok(response) => return Ok((response, line)),
            Err(lost) if lost.unheard => (),
            Err(lost) => return Err(Failure::Broken(lost.error)),
        }
    }
    let mut line = Line::open(target, deadline).await?;
    match line.send(post.request(target)).await {
        Ok(response) => Ok((response, line)),
        Err(lost) => Err(Failure::Broken(lost.error)),
    }
}

/// Copies what comes: pieces that were kept would hold buffers many times their size.
async fn whole(mut body: Incoming) -> Result<Vec<u8>, Failure> {
    let mut read = Vec::new();
    if body.size_hint().lower() > ANSWER_BYTES_MAX as u64 {
        return Err(Failure::TooLarge);
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Failure::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        if read.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(Failure::TooLarge);
        }
        read.extend_from_slice(data);
    }
    Ok(read)
}

/// A socket that notes whether something came.
struct Listened {
    stream: Stream,
    heard: Arc<AtomicBool>,
}

impl AsyncRead for Listened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.store(true, Relaxed);
        }
        read
    }
}

impl AsyncWrite for Listened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
