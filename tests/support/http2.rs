//! A client of HTTP/2 over TLS: h2, and tokio-tungstenite on its streams.
use super::{Client, Gateway, tls, within};
use bytes::{Buf, Bytes};
use h2::client::{self, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::http::{HeaderMap, Method, Request, Response};

/// One connection.
pub struct Http2 {
    requests: SendRequest<Bytes>,
    /// Ends with the connection.
    pub ended: JoinHandle<Result<(), h2::Error>>,
}

/// A stream that was answered with 200.
pub struct Stream {
    from: RecvStream,
    to: SendStream<Bytes>,
    rest: Bytes,
    ended: bool,
}

/// TLS to a listener that has to agree on h2.
pub async fn tls(gateway: &Gateway, listener: usize) -> tls::Stream {
    let mut config = Arc::unwrap_or_clone(tls::client(&gateway.folder.read("certs/fullchain.pem"), tls::ANY));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tcp = within(TcpStream::connect(gateway.address(listener))).await.unwrap();
    let stream = tls::connect(tcp, "localhost", &config.into()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream
}

/// An extended CONNECT (RFC 8441).
pub fn connect(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri(format!("https://localhost{path}"));
    let request = request.extension(Protocol::from_static("websocket")).header("sec-websocket-version", "13");
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

/// The next piece of a body; `None` at its end.
pub async fn take(from: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = within(from.data()).await.transpose()? else { return Ok(None) };
    from.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

impl Http2 {
    /// A connection to the first listener, whose settings allow extended CONNECT.
    pub async fn connect(gateway: &Gateway) -> Http2 {
        Http2::with(gateway, &client::Builder::new()).await
    }

    /// The same with the client's own settings.
    pub async fn with(gateway: &Gateway, settings: &client::Builder) -> Http2 {
        let stream = tls(gateway, 0).await;
        let (requests, connection) = within(settings.handshake(stream)).await.unwrap();
        let ended = tokio::spawn(connection);
        let mut requests = within(requests.ready()).await.unwrap();
        while !requests.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
            requests = within(requests.ready()).await.unwrap();
        }
        Http2 { requests, ended }
    }

    /// Sends a request head; the answer to come, and the way to send more.
    pub async fn begin(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        within(self.requests.clone().ready()).await?.send_request(request, end)
    }

    /// Sends a request head; the answer's head, and the way to send more.
    pub async fn send(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        let (response, to) = self.begin(request, end).await?;
        Ok((within(response).await?, to))
    }

    /// The status, headers and body of the answer to a request without a body.
    pub async fn ask(&mut self, request: Request<()>) -> Result<(u16, HeaderMap, Vec<u8>), h2::Error> {
        let (response, _) = self.send(request, true).await?;
        let (head, mut from) = response.into_parts();
        let mut body = Vec::new();
        while let Some(data) = take(&mut from).await? {
            body.extend_from_slice(&data);
        }
        Ok((head.status.as_u16(), head.headers, body))
    }

    /// The stream behind a 200, and the headers of that.
    pub async fn tunnel(&mut self, path: &str, headers: &[(&str, &str)]) -> (Stream, Response<()>) {
        let (response, to) = self.send(connect(path, headers), false).await.unwrap();
        assert_eq!(response.status(), 200, "{response:?}");
        let (head, from) = response.into_parts();
        (Stream { from, to, rest: Bytes::new(), ended: false }, Response::from_parts(head, ()))
    }

    /// A WebSocket.
    pub async fn open(&mut self, path: &str, headers: &[(&str, &str)]) -> Client {
        let (stream, response) = self.tunnel(path, headers).await;
        Client::over(stream, response.map(|()| None)).await
    }

    /// A WebSocket of a client with this token.
    pub async fn open_as(&mut self, path: &str, token: &str) -> Client {
        self.open(path, &[("authorization", &format!("Bearer {token}"))]).await
    }
}

impl Stream {
    /// RST_STREAM.
    pub fn reset(mut self, reason: Reason) {
        self.to.send_reset(reason);
    }
}

fn failed(error: h2::Error) -> io::Error {
    io::Error::other(error)
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.from.poll_data(cx)) {
                Some(data) => self.rest = data.map_err(failed)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let some = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..some]);
        self.rest.advance(some);
        let _ = self.from.flow_control().release_capacity(some);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.to.reserve_capacity(bytes.len());
        while self.to.capacity() == 0 {
            match ready!(self.to.poll_capacity(cx)) {
                Some(more) => drop(more.map_err(failed)?),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let some = self.to.capacity().min(bytes.len());
        self.to.send_data(Bytes::copy_from_slice(&bytes[..some]), false).map_err(failed)?;
        Poll::Ready(Ok(some))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true) {
            self.to.send_data(Bytes::new(), true).map_err(failed)?;
        }
        Poll::Ready(Ok(()))
    }
}
