//! A connection to a master: calls out in their order, answers and messages in.
use super::redis::{Fault, Talk};
use super::wire::{Frame, Inbox};
use crate::cluster::script::Reply;
use crate::outbox::wire::{Socket, Stream};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

/// Gathered bytes beyond which is written without being told to.
const GATHERED_BYTES: usize = 64 * 1024;
/// Most commands on their way at once. Answers of 64 KiB each are half of what Redis queues for a connection with
/// subscriptions before it ends it (`client-output-buffer-limit pubsub 32mb 8mb 60`).
const AWAITED_MAX: usize = 256;
/// Room for gathered bytes that is kept when they are written.
const KEPT_BYTES: usize = 256 * 1024;
/// Beats without an answer after which one is asked for: 1 s.
const QUIET_BEATS: u8 = 2;
/// Beats without an answer that is awaited after which the connection is given up: 3 s at least.
const SILENT_BEATS: u8 = 7;
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// A call that was sent, or waits to be sent again.
#[derive(Debug)]
pub struct Sent {
    pub ticket: u64,
    pub slot: u16,
    /// Its length as encoded.
    pub length: usize,
    /// Its place among all calls of the link.
    pub number: u64,
    /// Whether the call is kept until it is answered: it may have to be sent again, in a cluster.
    pub kept: bool,
    /// The call itself, where it is kept and on its way, or waits.
    pub again: Option<Vec<u8>>,
    /// When it was first refused because its slot lies elsewhere.
    pub refused: Option<Instant>,
}

/// What the next answer belongs to.
#[derive(Debug)]
enum Awaited {
    Call(Sent),
    Subscribed(u16),
    Unsubscribed(Bytes),
    Pong,
}

/// What came.
#[derive(Debug)]
pub enum Heard {
    /// An answer, or Redis' error.
    Answered(Sent, Result<Reply, Box<str>>),
    /// A message of a sharded channel.
    Pushed { channel: Bytes, payload: Bytes },
    /// Redis has unsubscribed the channel: its slot lies elsewhere now.
    Unsubscribed(Bytes),
    /// A channel of this slot could not be subscribed: Redis' error.
    Unsubscribable(u16, Box<str>),
}

/// A connection on which calls can be made.
pub struct Connection {
    stream: Stream,
    inbox: Inbox,
    out: Vec<u8>,
    /// How much of that is written.
    written: usize,
    /// Whether all of it is to be written now.
    flushing: bool,
    awaited: VecDeque<Awaited>,
    /// What is sent when answers have come.
    queue: VecDeque<(Awaited, Vec<u8>)>,
    /// Beats since an answer came, or since one is awaited.
    quiet: u8,
    /// Since when it can be used.
    pub since: Instant,
}

impl Connection {
    pub fn new(talk: Talk) -> Connection {
        Connection {
            stream: talk.stream,
            inbox: talk.inbox,
            out: Vec::new(),
            written: 0,
            flushing: false,
            awaited: VecDeque::new(),
            queue: VecDeque::new(),
            quiet: 0,
            since: Instant::now(),
        }
    }

    /// Sends a call with the next flush, or at once where much is gathered.
    pub fn send(&mut self, sent: Sent, bytes: Vec<u8>, cx: &mut Context<'_>) {
        self.put(Awaited::Call(sent), bytes);
        if self.out.len() - self.written >= GATHERED_BYTES {
            self.flush(cx);
        }
    }

    pub fn subscribe(&mut self, slot: u16, command: Vec<u8>) {
        self.put(Awaited::Subscribed(slot), command);
    }

    /// `checked`: slots may move. Then Redis may unsubscribe the channel by itself, which looks like the answer, and refuse
    /// the command after that. So that no call is given this error as its answer, a PING stands between.
    pub fn unsubscribe(&mut self, channel: &[u8], command: Vec<u8>, checked: bool) {
        self.put(Awaited::Unsubscribed(Bytes::copy_from_slice(channel)), command);
        if checked {
            self.put(Awaited::Pong, PING.to_vec());
        }
    }

    fn put(&mut self, awaited: Awaited, bytes: Vec<u8>) {
        if self.awaited.is_empty() {
            self.quiet = 0;
        }
        // Nothing overtakes what waits, also where an answer has made room for it.
        if self.awaited.len() >= AWAITED_MAX || !self.queue.is_empty() {
            self.queue.push_back((awaited, bytes));
        } else {
            self.gather(awaited, bytes);
        }
    }

    fn gather(&mut self, mut awaited: Awaited, bytes: Vec<u8>) {
        self.out.extend_from_slice(&bytes);
        if let Awaited::Call(sent) = &mut awaited
            && sent.kept
        {
            sent.again = Some(bytes);
        }
        self.awaited.push_back(awaited);
    }

    /// Sends what had to wait.
    fn refill(&mut self) {
        while self.awaited.len() < AWAITED_MAX
            && let Some((awaited, bytes)) = self.queue.pop_front()
        {
            self.gather(awaited, bytes);
            self.flushing = true;
        }
    }

    /// Writes what the socket takes; the rest is written when it takes more. An error is found by the next read.
    pub fn flush(&mut self, cx: &mut Context<'_>) {
        self.flushing = true;
        while self.written < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(n)) if n > 0 => self.written += n,
                Poll::Ready(Ok(_) | Err(_)) | Poll::Pending => return self.forget_written(),
            }
        }
        self.forget_written();
        // TLS may hold what the socket did not take.
        if Pin::new(&mut self.stream).poll_flush(cx).is_ready() {
            self.flushing = false;
        }
    }

    /// Not before it is half of what is gathered, so that no byte is moved often; but under a load that never lets all be
    /// written, too.
    fn forget_written(&mut self) {
        if self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.out.shrink_to(KEPT_BYTES);
            self.written = 0;
        }
    }

    /// The next that comes.
    ///
    /// # Errors
    /// Where the connection cannot be used any more.
    pub fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, Fault>> {
        loop {
            while let Some(frame) = self.inbox.next().map_err(io::Error::from)? {
                if let Some(heard) = self.hear(frame)? {
                    return Poll::Ready(Ok(heard));
                }
            }
            self.refill();
            if self.flushing {
                self.flush(cx);
            }
            match self.inbox.poll_fill(&mut self.stream, cx)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn hear(&mut self, frame: Frame) -> Result<Option<Heard>, Fault> {
        let answer = match frame {
            Frame::Message { channel, payload } => return Ok(Some(Heard::Pushed { channel, payload })),
            Frame::Other => return Ok(None),
            Frame::Subscribed => return self.subscribed().map(|()| None),
            Frame::Unsubscribed(channel) => {
                if let Some(Awaited::Unsubscribed(asked)) = self.awaited.front()
                    && *asked == channel
                {
                    self.awaited.pop_front();
                    self.quiet = 0;
                    return Ok(None);
                }
                return Ok(Some(Heard::Unsubscribed(channel)));
            }
            Frame::Reply(reply) => Ok(reply),
            Frame::Error(error) => Err(error),
        };
        self.quiet = 0;
        match (self.awaited.pop_front(), answer) {
            (Some(Awaited::Call(sent)), answer) => Ok(Some(Heard::Answered(sent, answer))),
            (Some(Awaited::Subscribed(slot)), Err(error)) => Ok(Some(Heard::Unsubscribable(slot, error))),
            (Some(Awaited::Pong), Ok(reply)) if reply.text() == Some("PONG") => Ok(None),
            // It was not subscribed there, and cannot be: the slot lies elsewhere.
            (Some(Awaited::Unsubscribed(_)), Err(_)) => Ok(None),
            (Some(Awaited::Pong), Err(error)) => Err(Fault::Refused(super::redis::said(&error))),
            (Some(Awaited::Subscribed(_) | Awaited::Unsubscribed(_) | Awaited::Pong) | None, Ok(_))
            | (None, Err(_)) => Err(Fault::Wrong("an answer that nobody has asked for")),
        }
    }

    fn subscribed(&mut self) -> Result<(), Fault> {
        self.quiet = 0;
        match self.awaited.pop_front() {
            Some(Awaited::Subscribed(_)) => Ok(()),
            Some(Awaited::Call(_) | Awaited::Unsubscribed(_) | Awaited::Pong) | None => {
                Err(Fault::Wrong("a subscription that nobody has asked for"))
            }
        }
    }

    /// Twice a second: asks whether the server is there, where nothing else did.
    ///
    /// # Errors
    /// Where it was silent for too long.
    pub fn beat(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        self.quiet = self.quiet.saturating_add(1);
        if !self.awaited.is_empty() {
            let silent = self.quiet >= SILENT_BEATS;
            return if silent { Err(Fault::Wrong("no answer for 3 s")) } else { Ok(()) };
        }
        if self.quiet >= QUIET_BEATS {
            self.put(Awaited::Pong, PING.to_vec());
            self.flush(cx);
        }
        Ok(())
    }

    /// The slot of each call that is on its way.
    pub fn slots_called(&self) -> impl Iterator<Item = u16> {
        let waiting = self.queue.iter().map(|(awaited, _)| awaited);
        self.awaited.iter().chain(waiting).filter_map(|awaited| match awaited {
            Awaited::Call(sent) => Some(sent.slot),
            Awaited::Subscribed(_) | Awaited::Unsubscribed(_) | Awaited::Pong => None,
        })
    }

    /// Whether nothing is awaited.
    pub fn is_idle(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Gives the connection up. Returns the calls that are on their way, whose answers will not come.
    pub fn into_calls(self) -> impl Iterator<Item = Sent> {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => tls.get_ref().0,
        };
        // What the kernel has not sent yet would be carried out after what the next connection does.
        if let Socket::Tcp(tcp) = socket
            && let Err(error) = tcp.set_zero_linger()
        {
            tracing::debug!(target: "wsgate::cluster", %error, "a connection is not reset");
        }
        let waiting = self.queue.into_iter().map(|(awaited, _)| awaited);
        self.awaited.into_iter().chain(waiting).filter_map(|awaited| match awaited {
            Awaited::Call(sent) => Some(sent),
            Awaited::Subscribed(_) | Awaited::Unsubscribed(_) | Awaited::Pong => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::{Waker, ready};
    use std::time::Duration;
    use tokio::io::{AsyncRead, ReadBuf};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    const PIECE: usize = 64 * 1024;

    /// A connection whose socket takes little at once, and its other side.
    async fn pair() -> (Connection, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_send_buffer_size(PIECE as u32).expect("a small buffer");
        let stream = socket.connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let far = listener.accept().await.expect("a connection").0;
        let talk = Talk { stream: Stream::Plain(Socket::Tcp(stream)), inbox: Inbox::default() };
        (Connection::new(talk), far)
    }

    #[tokio::test]
    async fn what_is_written_is_forgotten_under_constant_load() {
        let (mut connection, mut far) = pair().await;
        let send = |connection: &mut Connection, number| {
            let sent = Sent { ticket: 0, slot: 0, length: PIECE, number, kept: false, again: None, refused: None };
            connection.send(sent, vec![b'x'; PIECE], &mut Context::from_waker(Waker::noop()));
        };
        let mut calls = 0;
        while connection.out.len() - connection.written < 8 * PIECE {
            send(&mut connection, calls);
            calls += 1;
        }
        let mut read = vec![0; PIECE];
        for number in calls..AWAITED_MAX as u64 {
            // There is always something that is not written.
            let written = poll_fn(|cx| {
                let mut buffer = ReadBuf::new(&mut read);
                connection.flush(cx);
                while connection.out.len() - connection.written >= 8 * PIECE {
                    buffer.clear();
                    ready!(Pin::new(&mut far).poll_read(cx, &mut buffer))?;
                    connection.flush(cx);
                }
                Poll::Ready(io::Result::Ok(()))
            });
            timeout(Duration::from_secs(20), written).await.expect("in time").expect("what is written");
            send(&mut connection, number);
            let (gathered, room) = (connection.out.len(), connection.out.capacity());
            assert!(
                gathered <= 20 * PIECE && room <= 40 * PIECE,
                "{gathered} bytes, room for {room} of {number} calls"
            );
        }
    }
}
