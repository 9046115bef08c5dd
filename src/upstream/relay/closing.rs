//! The ways in which a relay ends: who is told, with which code, and who is waited for.
use super::Link;
use super::side::Halt;
use crate::close::{By, Close, Code};
use crate::outbox::ending::{Awaits, linger};
use crate::ws::{Fault, Opcode, frame, masked_frame};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// Time for the answer to a Close, and for the end of a frame that one must wait for.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a client to take what its backend had said before it closed; the 2 s come after that.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(30);

/// The code that a backend gets where the gateway closes (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Told {
    /// It is about the client.
    GoingAway = 1001,
    /// The backend broke a rule of the wire.
    Protocol = 1002,
    /// The backend sent more than its rates allow.
    Policy = 1008,
    /// The backend sent too large a message.
    TooBig = 1009,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Both sides may send.
    Open,
    /// The client's Close was forwarded, and the backend's is awaited until then.
    AwaitBackend(Instant),
    /// The backend's Close was forwarded, or made up, and the client's is awaited until then.
    AwaitClient(Instant),
    /// The gateway closes, and the backend's frame must end first; until then.
    AwaitFrameEnd(Instant),
    /// Nothing more is forwarded; what is queued goes out.
    Over,
}

impl Stage {
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Stage::Open | Stage::Over => None,
            Stage::AwaitBackend(until) | Stage::AwaitClient(until) | Stage::AwaitFrameEnd(until) => Some(until),
        }
    }
}

impl Link {
    /// The gateway closes: the client with `close`, the backend with a code of its own.
    pub(super) fn close(&mut self, close: Close, to_backend: Told, now: Instant) {
        if self.stage != Stage::Open {
            return;
        }
        self.end = Some(close);
        self.tell_backend(&(to_backend as u16).to_be_bytes());
        self.go_to(Stage::AwaitFrameEnd(now + CLOSING_TIMEOUT));
        self.end_waiting_for_frame();
    }

    /// The Close that waited for the end of the backend's frame goes out.
    pub(super) fn end_waiting_for_frame(&mut self) {
        if matches!(self.stage, Stage::AwaitFrameEnd(_)) && !self.down.in_data_frame() {
            self.tell_client();
            self.go_to(Stage::Over);
        }
    }

    /// The time of whoever was waited for is up. A client that has not come to the Close yet is given more.
    pub(super) fn stop_waiting(&mut self, now: Instant) {
        if let Stage::AwaitClient(_) = self.stage
            && let Some(until) = self.last_words_until
        {
            let has_come_to_it = self.seat.handle.peer.borrow().backlog() == 0;
            if has_come_to_it || now < until {
                self.last_words_until = (!has_come_to_it).then_some(until);
                self.stage = Stage::AwaitClient(now + CLOSING_TIMEOUT);
                return;
            }
        }
        self.waited = true;
        self.answer_for_the_other();
    }

    /// Who cannot be written, and is not read while the other takes nothing, would never be missed.
    pub(super) fn end_unheard(&mut self, now: Instant) {
        let failed = self.backend.get_mut().failed();
        if self.down.is_held_up() && failed.is_some() {
            self.backend_halted(Halt::Gone(failed), now);
        }
        let failed = self.seat.handle.peer.borrow().failed();
        if self.up.is_held_up() && failed.is_some() {
            self.client_halted(Halt::Gone(failed), now);
        }
    }

    /// Nothing more of the client can be forwarded.
    pub(super) fn client_halted(&mut self, halt: Halt, now: Instant) {
        match (self.stage, halt) {
            (Stage::Open, Halt::Closed(code, reason)) => {
                self.end = Some(Close::from_peer(By::Client, code, &reason));
                self.backend_told = true;
                self.go_to(Stage::AwaitBackend(now + CLOSING_TIMEOUT));
            }
            (Stage::Open, Halt::Gone(how)) => {
                self.end = Some(Close::lost(By::Client, end_of_connection(how)));
                self.tell_backend(&(Told::GoingAway as u16).to_be_bytes());
                self.go_to(Stage::Over);
            }
            (Stage::Open, Halt::Fault(fault)) => {
                self.close(Close::because(fault.code(), fault.message()), Told::GoingAway, now);
            }
            (Stage::Open, Halt::Excess(wait)) => {
                self.close(Close::gateway(Code::RateLimit).retry_after(wait), Told::GoingAway, now);
            }
            (Stage::AwaitClient(_), Halt::Closed(..)) => {
                self.backend_told = true;
                self.go_to(Stage::Over);
            }
            // Its answer would reach nobody, but what is queued for it does.
            (Stage::AwaitClient(_), Halt::Deaf) if self.last_words_until.is_some() => (),
            (Stage::AwaitClient(_), Halt::Gone(_) | Halt::Fault(_) | Halt::Excess(_) | Halt::Deaf) => {
                self.answer_for_the_other();
            }
            // The backend is read to its end, which says why it cannot be written.
            (Stage::Open | Stage::AwaitBackend(_) | Stage::AwaitFrameEnd(_) | Stage::Over, _) => (),
        }
    }

    /// Nothing more of the backend can be forwarded.
    pub(super) fn backend_halted(&mut self, halt: Halt, now: Instant) {
        match (self.stage, halt) {
            (Stage::Open, Halt::Closed(code, reason)) => {
                self.end = Some(Close::from_peer(By::Upstream, code, &reason));
                self.client_told = true;
                self.await_client(now);
            }
            (Stage::Open, Halt::Gone(how)) => {
                let reason = format!("upstream connection lost: {}", end_of_connection(how));
                self.end = Some(Close { by: By::Upstream, ..Close::because(Code::UpstreamUnavailable, reason) });
                // There is nobody to tell.
                self.backend_told = true;
                self.await_client(now);
                self.tell_client();
                if self.last_words_until.is_none() {
                    self.go_to(Stage::Over);
                }
            }
            (Stage::Open, Halt::Fault(Fault::TooLarge)) => {
                self.close(Close::because(Code::UpstreamUnavailable, "upstream message too large"), Told::TooBig, now);
            }
            (Stage::Open, Halt::Fault(Fault::Protocol(_) | Fault::NotUtf8 | Fault::InvalidData)) => {
                self.close(Close::because(Code::UpstreamUnavailable, "upstream protocol error"), Told::Protocol, now);
            }
            (Stage::Open, Halt::Excess(_)) => {
                self.close(Close::because(Code::UpstreamUnavailable, "upstream rate exceeded"), Told::Policy, now);
            }
            (Stage::AwaitBackend(_), Halt::Closed(..)) => {
                self.client_told = true;
                self.go_to(Stage::Over);
            }
            (Stage::AwaitBackend(_), Halt::Gone(_) | Halt::Fault(_) | Halt::Excess(_) | Halt::Deaf)
            | (Stage::AwaitFrameEnd(_), _) => self.answer_for_the_other(),
            // The client is read to its end, which says why it cannot be written.
            (Stage::Open | Stage::AwaitClient(_) | Stage::Over, _) => (),
        }
    }

    /// The client's Close is awaited, from when it has taken what it is behind with.
    fn await_client(&mut self, now: Instant) {
        let is_behind = self.seat.handle.peer.borrow().backlog() > 0;
        self.last_words_until = is_behind.then_some(now + LAST_WORDS_TIMEOUT);
        self.go_to(Stage::AwaitClient(now + CLOSING_TIMEOUT));
    }

    /// The Close that will not come is made up from the one that came. A Close for which the end of a frame was
    /// awaited is not sent.
    fn answer_for_the_other(&mut self) {
        match self.stage {
            Stage::AwaitBackend(_) => self.tell_client(),
            Stage::AwaitClient(_) => {
                let payload = self.end.as_ref().map(Close::payload).unwrap_or_default();
                self.tell_backend(&payload);
            }
            Stage::Open | Stage::AwaitFrameEnd(_) | Stage::Over => (),
        }
        self.go_to(Stage::Over);
    }

    /// Sends the Close that ended it to the client, where no frame is in the way.
    fn tell_client(&mut self) {
        if let Some(close) = &self.end
            && !self.client_told
            && !self.down.in_data_frame()
        {
            self.seat.handle.peer.borrow_mut().push(frame(Opcode::Close, &close.payload()));
            self.client_told = true;
        }
    }

    /// Sends a Close to the backend, where no frame is in the way.
    fn tell_backend(&mut self, payload: &[u8]) {
        if !self.backend_told && !self.up.in_data_frame() {
            self.backend.get_mut().push(masked_frame(Opcode::Close, payload, rand::random()));
            self.backend_told = true;
        }
    }

    /// After a Close no ping may follow.
    fn go_to(&mut self, stage: Stage) {
        self.stage = stage;
        self.up.ping_owed = false;
        self.down.ping_owed = false;
        self.hurry = true;
    }

    /// Flushes both sides and closes both sockets; takes at most 2 s.
    pub(super) async fn wind_up(&mut self) {
        let scratch = &self.seat.shard.scratch;
        // Nothing is awaited of a side whose own Close has come, that has had its time, or that knows of no Close.
        let awaits = |done: bool| if done { Awaits::Nothing } else { Awaits::End };
        let client = awaits(self.up.closed() || self.waited || !self.client_told);
        let backend = awaits(self.down.closed() || self.waited || !self.backend_told);
        let mut client = pin!(linger(&self.seat.handle.peer, scratch, client));
        let mut backend = pin!(linger(&self.backend, scratch, backend));
        let (mut client_over, mut backend_over) = (false, false);
        poll_fn(|cx| {
            client_over = client_over || client.as_mut().poll(cx).is_ready();
            backend_over = backend_over || backend.as_mut().poll(cx).is_ready();
            if client_over && backend_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

fn end_of_connection(how: Option<std::io::ErrorKind>) -> String {
    how.map_or_else(|| "ended without a close".to_owned(), |kind| kind.to_string())
}
