//! A session that the gateway itself talks with: echo and rooms. One task, woken by its socket, its
//! timer, or an order of its shard.
use super::{Surroundings, expiry, name};
use crate::admission::Who;
use crate::admission::token::TokenFault;
use crate::close::{By, Close, Code};
use crate::config::{OnExcess, Route, Service};
use crate::identity::Identity;
use crate::limits::deadlines::{Deadlines, Due};
use crate::limits::meter::{Meter, Rates, Traffic};
use crate::limits::{ClientPermit, ClientRooms};
use crate::metrics::Direction;
use crate::outbox::Flush;
use crate::rooms::{Auth, Enter, Member, Visitor};
use crate::shard::Seat;
use crate::ws::frame::{Masking, Opcode, Rsv, Rules, frame};
use crate::ws::message::{Chunk, Event, Reader};
use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes that may wait for the client of an echo before it is read no further.
const ECHO_BACKLOG: usize = 64 * 1024;
/// Reads before other sessions have their turn.
const READS_PER_TURN: usize = 16;
/// When nothing is due.
const FAR: Duration = Duration::from_secs(86_400);

/// The session's state. The bytes that it reads are another's, so that an event may borrow them.
pub(super) struct Talk {
    input: Input,
    conversation: Conversation,
}

struct Conversation {
    around: Surroundings,
    route: Arc<Route>,
    seat: Seat,
    meter: Meter,
    deadlines: Deadlines,
    /// A deadline may have come nearer.
    rearm: bool,
    /// What the socket had taken when the last ping was queued behind something that it did not take.
    queued_at: Option<u64>,
    deflate: bool,
    stage: Stage,
    /// A token that came in a message.
    judging: Option<Box<Judging>>,
    client: Arc<str>,
    received: (u64, u64),
}

/// What the session is. A visitor becomes a member, and nothing else changes.
enum Stage {
    Echo,
    Visitor,
    /// The application is asked whether it may come in.
    Asking(Box<Asking>),
    Member(Member),
}

/// A client about whom the application is asked.
struct Asking {
    identity: Identity,
    rooms: ClientRooms,
    /// The message that said who it is, where one did.
    auth: Option<Auth>,
    answer: Pin<Box<dyn Future<Output = Option<Close>>>>,
}

/// A token that is judged, for which a key may have to be fetched first. The session is not read meanwhile.
struct Judging {
    auth: Auth,
    judged: Pin<Box<dyn Future<Output = Result<Identity, TokenFault>>>>,
}

/// What the session has read and not yet understood.
struct Input {
    reader: Reader,
    /// What cannot be used before an answer has come, or the rate allows it.
    held: BytesMut,
}

impl Talk {
    pub(super) fn new(
        around: Surroundings,
        seat: Seat,
        route: Arc<Route>,
        rates: Rates,
        who: Who,
        early: Vec<u8>,
        deflate: bool,
    ) -> Talk {
        let now = Instant::now();
        let max_message_size = route.limits.max_message_size;
        let rules = Rules { masking: Masking::Required, max_message_size, rsv: Rsv::None };
        let mut conversation = Conversation {
            around,
            seat,
            meter: Meter::new(ClientPermit::alone(), rates),
            deadlines: Deadlines::new(&route.limits, now),
            rearm: false,
            queued_at: None,
            deflate,
            stage: Stage::Visitor,
            judging: None,
            client: "".into(),
            received: (0, 0),
            route,
        };
        match who {
            Who::Client(identity, permit) => conversation.become_client(identity, permit, None),
            Who::Visitor => {
                let wait = conversation.route.auth.message_timeout;
                conversation.deadlines.auth_by(Some(now + wait));
            }
        }
        Talk { input: Input { reader: Reader::new(rules, deflate), held: BytesMut::from(&*early) }, conversation }
    }

    /// Runs the session until it ends. A member has left its rooms then, though its socket is still open.
    pub(super) async fn run(&mut self) -> Close {
        let Talk { input, conversation } = self;
        let close = {
            let mut timer = pin!(sleep_until(conversation.next_time()));
            poll_fn(|cx| conversation.poll(cx, timer.as_mut(), input)).await
        };
        match std::mem::replace(&mut conversation.stage, Stage::Echo) {
            Stage::Member(member) if close.by == By::Gateway => member.say_goodbye(&close),
            Stage::Visitor | Stage::Asking(_) if close.by == By::Gateway => {
                Visitor::say_goodbye(&conversation.seat.handle, &close);
            }
            Stage::Member(_) | Stage::Visitor | Stage::Asking(_) | Stage::Echo => (),
        }
        close
    }

    /// The client's name; empty where it never said it.
    pub(super) fn client(&self) -> Arc<str> {
        self.conversation.client.clone()
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.conversation.seat
    }

    pub(super) fn traffic(&self) -> Traffic {
        let (messages_in, bytes_in) = self.conversation.received;
        let (messages_out, bytes_out) = self.conversation.seat.handle.sent.get();
        Traffic { messages_in, messages_out, bytes_in, bytes_out }
    }
}

impl Conversation {
    fn become_client(&mut self, identity: Identity, permit: ClientPermit, auth: Option<Auth>) {
        let rooms = permit.rooms();
        self.meter.become_client(permit);
        name(&self.around, &self.seat, &self.route, &identity.client);
        self.deadlines.auth_by(None);
        self.deadlines.expire_at(expiry(&self.around, &self.route, &identity));
        self.client = identity.client.clone();
        self.stage = match self.route.service {
            Service::Rooms => match self.around.rooms.ask_to_connect(&self.seat.handle, &identity) {
                Some(answer) => Stage::Asking(Box::new(Asking { identity, rooms, auth, answer: Box::pin(answer) })),
                None => self.member(identity, rooms, auth.as_ref()),
            },
            Service::Echo | Service::Proxy(_) => Stage::Echo,
        };
    }

    fn member(&self, identity: Identity, rooms: ClientRooms, auth: Option<&Auth>) -> Stage {
        let (namespace, limits) = (self.route.namespace, &self.route.limits);
        let enter = Enter { identity, namespace, limits, deflate: self.deflate, rooms };
        Stage::Member(Member::enter(&self.around.rooms, &self.seat.handle, enter, auth))
    }

    /// Looks whether the application has answered.
    fn poll_asking(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let Stage::Asking(asking) = &mut self.stage else { return Ok(()) };
        match asking.answer.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Some(close)) => Err(close),
            Poll::Ready(None) => {
                if let Stage::Asking(asking) = std::mem::replace(&mut self.stage, Stage::Visitor) {
                    let Asking { identity, rooms, auth, .. } = *asking;
                    self.stage = self.member(identity, rooms, auth.as_ref());
                }
                Ok(())
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>, input: &mut Input) -> Poll<Close> {
        for _ in 0..READS_PER_TURN {
            if let Some(close) = self.seat.handle.take_order() {
                return Poll::Ready(close);
            }
            // What is judged moves the deadlines.
            let judged = self.poll_judging(cx).and_then(|()| self.keep_time(cx, timer.as_mut()));
            if let Err(close) = judged.and_then(|()| self.poll_asking(cx)) {
                return Poll::Ready(close);
            }
            let failed = self.seat.handle.peer.borrow_mut().poll_flush(cx) == Poll::Ready(Flush::Failed);
            self.around.shard.count_backlog(&self.seat.handle);
            if let Stage::Member(member) = &self.stage {
                member.feed();
            }
            if !self.may_read() {
                self.seat.handle.peer.borrow_mut().gather(cx);
                let lost = || Close::lost(By::Client, "the connection failed");
                return if failed { Poll::Ready(lost()) } else { Poll::Pending };
            }
            // Also where it has failed: the last that came may be a Close.
            match self.poll_input(cx, input) {
                Poll::Ready(Ok(())) => (),
                Poll::Ready(Err(close)) => return Poll::Ready(close),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn next_time(&self) -> Instant {
        self.deadlines.next().unwrap_or_else(|| Instant::now() + FAR)
    }

    /// Arms the timer and does what is due.
    fn keep_time(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Result<(), Close> {
        if let Some(at) = self.seat.handle.take_restart() {
            self.deadlines.restart_at(at);
            self.rearm = true;
        }
        if std::mem::take(&mut self.rearm) {
            timer.as_mut().reset(self.next_time());
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.deadlines.resume(now);
            self.deadlines.message(self.seat.handle.sent_at.get());
            while let Some(due) = self.deadlines.due(now) {
                self.on_due(due, now)?;
            }
            timer.as_mut().reset(self.next_time());
        }
        Ok(())
    }

    fn on_due(&mut self, due: Due, now: Instant) -> Result<(), Close> {
        match due {
            Due::Ping => {
                let mut peer = self.seat.handle.peer.borrow_mut();
                self.queued_at = (peer.backlog() > 0).then_some(peer.taken());
                peer.push(frame(Opcode::Ping, b""));
                self.deadlines.pinged(now);
                Ok(())
            }
            Due::PongMissing => {
                // Of one that is not read, because answers to it are awaited or it has sent too much, no pong is seen.
                let awaits_answers = self.judging.is_some()
                    || matches!(self.stage, Stage::Member(_) | Stage::Asking(_)) && !self.may_read();
                if awaits_answers || self.deadlines.paused().is_some() {
                    self.deadlines.pinged(now);
                    return Ok(());
                }
                let peer = self.seat.handle.peer.borrow();
                if self.queued_at.is_some_and(|taken| peer.taken() > taken) {
                    // It is slow, not dead, and may not have come to the ping yet.
                    self.queued_at = (peer.backlog() > 0).then_some(peer.taken());
                    self.deadlines.pinged(now);
                    return Ok(());
                }
                Err(Close::because(Code::Idle, "heartbeat lost"))
            }
            // What it may not send yet is on its way.
            Due::Idle if self.deadlines.paused().is_some() => {
                self.deadlines.message(now);
                Ok(())
            }
            Due::Idle => Err(Close::because(Code::Idle, "idle")),
            Due::Expired => Err(Close::because(Code::AuthFailed, "token expired")),
            Due::AuthMissing => Err(Close::gateway(Code::AuthRequired)),
            Due::Restart => Err(Close::restart()),
        }
    }

    /// Whether more may be read: a client that does not take its answers is not asked for more, and one that has sent
    /// too much waits.
    fn may_read(&self) -> bool {
        if self.judging.is_some() || self.deadlines.paused().is_some() {
            return false;
        }
        match &self.stage {
            Stage::Echo => self.seat.handle.peer.borrow().backlog() <= ECHO_BACKLOG.min(self.route.limits.max_backlog),
            Stage::Visitor => true,
            Stage::Asking(_) => false,
            Stage::Member(member) => member.may_ask(),
        }
    }

    fn poll_input(&mut self, cx: &mut Context<'_>, input: &mut Input) -> Poll<Result<(), Close>> {
        if !input.held.is_empty() {
            let mut held = std::mem::take(&mut input.held);
            let used = self.on_bytes(&mut input.reader, &mut held);
            return Poll::Ready(used.map(|used| {
                held.advance(used);
                input.held = held;
            }));
        }
        let shard = self.around.shard.clone();
        let scratch = &mut *shard.scratch.borrow_mut();
        let read = self.seat.handle.peer.borrow_mut().poll_read(cx, scratch);
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Err(Close::lost(By::Client, "the connection ended without a Close"))),
            Poll::Ready(Ok(n)) => {
                let used = self.on_bytes(&mut input.reader, &mut scratch[..n]);
                Poll::Ready(used.map(|used| input.held = BytesMut::from(&scratch[used..n])))
            }
            Poll::Ready(Err(e)) => {
                Poll::Ready(Err(Close::lost(By::Client, format!("the connection failed: {}", e.kind()))))
            }
        }
    }

    /// Says how many of the bytes were used.
    fn on_bytes(&mut self, reader: &mut Reader, bytes: &mut [u8]) -> Result<usize, Close> {
        let all = bytes.len();
        let now = Instant::now();
        self.rearm |= self.deadlines.heard(now);
        let shard = self.around.shard.clone();
        let inflater = &mut *shard.inflater.borrow_mut();
        let mut chunk = Chunk::new(bytes);
        loop {
            if let Some(wait) = self.meter.pause(now) {
                self.deadlines.pause_until(now + wait);
                self.rearm = true;
            }
            if !self.may_read() {
                return Ok(all - chunk.rest().len());
            }
            match reader.next(&mut chunk, inflater) {
                Ok(Some(event)) => self.on_event(event, now)?,
                Ok(None) => return Ok(all),
                Err(fault) => return Err(Close::because(fault.code(), fault.message())),
            }
        }
    }

    fn on_event(&mut self, event: Event<'_>, now: Instant) -> Result<(), Close> {
        let len = match event {
            Event::Text(text) => text.len(),
            Event::Binary(bytes) | Event::Ping(bytes) | Event::Pong(bytes) => bytes.len(),
            Event::Close(_) | Event::EmptyFragment => 0,
        };
        if let Event::Text(_) | Event::Binary(_) = event {
            self.received = (self.received.0 + 1, self.received.1 + len as u64);
            self.deadlines.message(now);
            self.around.shard.metrics().message(self.route.service.into(), Direction::In, len as u64);
        }
        if !matches!(event, Event::Close(_))
            && let Err(wait) = self.meter.charge(1, len as u64, now)
        {
            return self.on_excess(event, wait);
        }
        match event {
            Event::Text(text) => self.on_text(text, now),
            Event::Binary(bytes) => match &self.stage {
                Stage::Echo => {
                    self.echo(Opcode::Binary, bytes, now);
                    Ok(())
                }
                Stage::Visitor | Stage::Asking(_) => Err(Close::gateway(Code::AuthRequired)),
                Stage::Member(member) => member.on_binary(),
            },
            Event::Ping(payload) => {
                self.seat.handle.peer.borrow_mut().push(frame(Opcode::Pong, payload));
                self.bound_backlog()
            }
            Event::Pong(_) | Event::EmptyFragment => Ok(()),
            Event::Close(close) => {
                let (code, reason) = close.map_or((None, ""), |(code, reason)| (Some(code), reason));
                Err(Close::from_peer(By::Client, code, reason))
            }
        }
    }

    fn on_excess(&self, event: Event<'_>, wait: Duration) -> Result<(), Close> {
        match (self.route.limits.on_excess, &self.stage, event) {
            (OnExcess::Reject, Stage::Member(member), Event::Text(text)) => {
                member.too_fast(text, wait);
                Ok(())
            }
            (OnExcess::Reject, Stage::Member(member), Event::Binary(_)) => {
                member.too_fast("", wait);
                Ok(())
            }
            // A Ping too many gets no Pong; there is nothing else in these that could be answered.
            (OnExcess::Reject, Stage::Member(_), _) => Ok(()),
            _ => Err(Close::gateway(Code::RateLimit).retry_after(wait)),
        }
    }

    fn on_text(&mut self, text: &str, now: Instant) -> Result<(), Close> {
        let auth = match &self.stage {
            Stage::Echo => {
                self.echo(Opcode::Text, text.as_bytes(), now);
                return Ok(());
            }
            // What is asked about is not read.
            Stage::Visitor | Stage::Asking(_) => Visitor::read(text)?,
            Stage::Member(member) => match member.on_text(text)? {
                None => return Ok(()),
                Some(auth) => auth,
            },
        };
        // It came in time, however long it takes to judge it.
        self.deadlines.auth_by(None);
        self.rearm = true;
        let (gate, token) = (self.around.gate.clone(), auth.token.clone());
        let judged = async move { gate.verify(std::str::from_utf8(token.expose()).unwrap_or_default()).await };
        self.judging = Some(Box::new(Judging { auth, judged: Box::pin(judged) }));
        Ok(())
    }

    /// Looks whether a token was judged: it lets a visitor in, or lets a member stay longer.
    fn poll_judging(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let Some(judging) = &mut self.judging else { return Ok(()) };
        let Poll::Ready(judged) = judging.judged.as_mut().poll(cx) else { return Ok(()) };
        match self.judging.take() {
            Some(judging) => self.on_judged(judging.auth, judged),
            None => Ok(()),
        }
    }

    fn on_judged(&mut self, auth: Auth, judged: Result<Identity, TokenFault>) -> Result<(), Close> {
        if let Stage::Member(member) = &self.stage {
            let judged = judged.map_err(|fault| (fault.code(), fault.message()));
            let expires = judged.as_ref().ok().and_then(|identity| expiry(&self.around, &self.route, identity));
            if member.refreshed(&auth, judged) {
                self.deadlines.expire_at(expires);
                self.rearm = true;
            }
            return Ok(());
        }
        let identity = judged.map_err(|fault| Close::because(fault.code(), fault.message()))?;
        let permit = self.around.gate.client_permit(&self.route, &identity).map_err(Close::gateway)?;
        self.become_client(identity, permit, Some(auth));
        self.rearm = true;
        Ok(())
    }

    fn echo(&self, opcode: Opcode, payload: &[u8], now: Instant) {
        let deflated = self.around.shard.deflated(self.deflate, opcode, payload);
        let bytes: Bytes = deflated.unwrap_or_else(|| frame(opcode, payload));
        self.seat.handle.send(bytes, payload.len(), now);
        self.around.shard.metrics().message(self.route.service.into(), Direction::Out, payload.len() as u64);
    }

    /// A client that sends Pings and takes no Pongs is slow too.
    fn bound_backlog(&self) -> Result<(), Close> {
        let allowed = match &self.stage {
            Stage::Echo => usize::MAX,
            Stage::Visitor | Stage::Asking(_) => self.route.limits.max_backlog,
            Stage::Member(member) => member.backlog_allowed(),
        };
        let mut peer = self.seat.handle.peer.borrow_mut();
        if peer.backlog() > allowed {
            peer.flush();
            if peer.backlog() > allowed {
                peer.drop_unsent();
                return Err(Close::gateway(Code::SlowConsumer));
            }
        }
        Ok(())
    }
}
