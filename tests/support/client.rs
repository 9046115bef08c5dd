//! A WebSocket client: tokio-tungstenite over any stream, with the words of the room protocol.
use super::within;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Any stream that carries a WebSocket.
pub trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// A WebSocket on the client's side.
pub struct Client {
    ws: WebSocketStream<Box<dyn Pipe>>,
    /// The answer to the upgrade.
    pub response: Response,
}

/// An upgrade to `path` of the host `localhost`.
pub fn request(path: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    request
}

impl Client {
    pub async fn open(stream: impl Pipe + 'static, path: &str, headers: &[(&str, &str)]) -> Client {
        Client::try_open(stream, path, headers).await.unwrap_or_else(|e| panic!("no upgrade of {path}: {e}"))
    }

    /// The socket, or why there is none (`Error::Http` with the answer).
    pub async fn try_open(
        stream: impl Pipe + 'static,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Client, Box<Error>> {
        let stream: Box<dyn Pipe> = Box::new(stream);
        let (ws, response) = within(tokio_tungstenite::client_async(request(path, headers), stream)).await?;
        Ok(Client { ws, response })
    }

    /// A socket on a stream that is one already.
    pub async fn over(stream: impl Pipe + 'static, response: Response) -> Client {
        let ws = WebSocketStream::from_raw_socket(Box::new(stream) as Box<dyn Pipe>, Role::Client, None).await;
        Client { ws, response }
    }

    /// The subprotocol that the answer names.
    pub fn protocol(&self) -> Option<&str> {
        self.response.headers().get("Sec-WebSocket-Protocol").map(|v| v.to_str().unwrap())
    }

    pub async fn send(&mut self, message: Message) {
        within(self.ws.send(message)).await.unwrap();
    }

    /// Whether the message could still be written.
    pub async fn try_send(&mut self, message: Message) -> bool {
        within(self.ws.send(message)).await.is_ok()
    }

    pub async fn text(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    pub async fn json(&mut self, value: Value) {
        self.send(Message::text(value.to_string())).await;
    }

    /// The next message that is no ping and no pong; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Message> {
        let ws = &mut self.ws;
        within(async {
            loop {
                match ws.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(message)) => return Some(message),
                    Some(Err(_)) | None => return None,
                }
            }
        })
        .await
    }

    /// The next pong's payload.
    pub async fn next_pong(&mut self) -> Vec<u8> {
        let ws = &mut self.ws;
        within(async {
            loop {
                if let Message::Pong(payload) = ws.next().await.unwrap().unwrap() {
                    return payload.to_vec();
                }
            }
        })
        .await
    }

    pub async fn next_text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("text was expected: {other:?}"),
        }
    }

    pub async fn next_binary(&mut self) -> Vec<u8> {
        match self.next().await {
            Some(Message::Binary(bytes)) => bytes.to_vec(),
            other => panic!("a binary message was expected, not {:?}", other.map(|m| m.len())),
        }
    }

    pub async fn next_json(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }

    /// The next message, which has to be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let message = self.next_json().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// The next message of this type; others are skipped.
    pub async fn skip_to(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next_json().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Sends a request and gives its answer (by `correlation_id`); pushes in between are skipped.
    pub async fn ask(&mut self, kind: &str, payload: Value) -> Value {
        let id = uuid::Uuid::new_v4().to_string();
        self.json(json!({"type": kind, "payload": payload, "metadata": {"message_id": id}})).await;
        loop {
            let message = self.next_json().await;
            if message["metadata"]["correlation_id"] == id.as_str() {
                return message;
            }
        }
    }

    /// Asks, and has to get an `error` with this code.
    pub async fn refused(&mut self, kind: &str, payload: Value, code: u16) -> Value {
        let answer = self.ask(kind, payload).await;
        assert_eq!(answer["type"], "error", "{answer}");
        assert_eq!(answer["payload"]["code"], code, "{answer}");
        answer
    }

    /// Joins a room and gives the payload of `room_joined`.
    pub async fn join(&mut self, room: &str) -> Value {
        let answer = self.ask("join_room", json!({"room_id": room})).await;
        assert_eq!(answer["type"], "room_joined", "{answer}");
        assert_eq!(answer["payload"]["room_id"], room);
        answer["payload"].clone()
    }

    /// Publishes and gives the payload of `message_sent`.
    pub async fn publish(&mut self, room: &str, message: Value) -> Value {
        let answer = self.ask("message", json!({"room_id": room, "message": message})).await;
        assert_eq!(answer["type"], "message_sent", "{answer}");
        answer["payload"].clone()
    }

    /// Closes with this code and waits for the answer, whose code is returned.
    pub async fn close(&mut self, code: u16, reason: &str) -> Option<u16> {
        within(self.ws.close(Some(CloseFrame { code: code.into(), reason: reason.to_owned().into() }))).await.unwrap();
        loop {
            match self.next().await {
                Some(Message::Close(frame)) => return frame.map(|f| f.code.into()),
                Some(_) => {}
                None => panic!("no Close came back"),
            }
        }
    }

    /// The code and reason of the Close that comes next; data before it is skipped. The connection has
    /// to end after it.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Message::Close(Some(frame))) => {
                    while self.next().await.is_some() {}
                    return (frame.code.into(), frame.reason.to_string());
                }
                Some(Message::Close(None)) => panic!("a Close without a code"),
                Some(_) => {}
                None => panic!("the connection ended without a Close"),
            }
        }
    }

    /// Holds the code of the Close that comes next against `code`, and gives the reason.
    pub async fn closes_with(&mut self, code: u16) -> String {
        let (number, reason) = self.closed().await;
        assert_eq!(number, code, "{reason}");
        reason
    }
}
