//! The times at which a session must act by itself: one timer serves them all.
use crate::config::Limits;
use std::time::Duration;
use tokio::time::Instant;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A ping must be sent.
    Ping,
    /// The last ping was not answered in time.
    PongMissing,
    /// No message went either way for too long.
    Idle,
    /// The token has expired.
    Expired,
    /// No `auth` message came in time.
    AuthMissing,
    /// The gateway stops, and this session's turn has come.
    Restart,
}

/// When what is due. Activity is only noted; the timer is armed again when it fires, so that a
/// message costs no timer.
#[derive(Debug)]
pub struct Deadlines {
    idle: Option<Duration>,
    ping: Option<Duration>,
    pong: Option<Duration>,
    last_message: Instant,
    last_heard: Instant,
    pinged: Option<Instant>,
    expires: Option<Instant>,
    auth_by: Option<Instant>,
    restart: Option<Instant>,
    paused: Option<Instant>,
}

impl Deadlines {
    /// Everything counts from `now`.
    pub fn new(limits: &Limits, now: Instant) -> Deadlines {
        Deadlines {
            idle: limits.idle_timeout,
            ping: limits.ping_interval,
            pong: limits.pong_timeout,
            last_message: now,
            last_heard: now,
            pinged: None,
            expires: None,
            auth_by: None,
            restart: None,
            paused: None,
        }
    }

    /// Something came from the peer. Whether that may have brought the next deadline nearer: the
    /// next ping can be due before an answer to the last one would have been.
    pub fn heard(&mut self, now: Instant) -> bool {
        self.last_heard = now;
        self.pinged.take().is_some()
    }

    /// The peer's silence counts anew from here, whatever it was asked.
    pub fn rest(&mut self, now: Instant) {
        self.last_heard = now;
        self.pinged = None;
    }

    /// A message went in or out.
    pub fn message(&mut self, now: Instant) {
        self.last_message = self.last_message.max(now);
    }

    /// A ping was sent.
    pub fn pinged(&mut self, now: Instant) {
        self.last_heard = now;
        self.pinged = Some(now);
    }

    /// The token expires at `at`, or never.
    pub fn expire_at(&mut self, at: Option<Instant>) {
        self.expires = at;
    }

    /// `auth` must come by then; `None` once it came.
    pub fn auth_by(&mut self, at: Option<Instant>) {
        self.auth_by = at;
    }

    /// The socket is closed for a restart then.
    pub fn restart_at(&mut self, at: Instant) {
        self.restart = Some(at);
    }

    /// The peer is not read until then, since it sent too much.
    pub fn pause_until(&mut self, at: Instant) {
        self.paused = Some(at);
    }

    /// Until when the peer is not read.
    pub fn paused(&self) -> Option<Instant> {
        self.paused
    }

    /// Ends a pause whose time has come.
    pub fn resume(&mut self, now: Instant) {
        self.paused = self.paused.filter(|at| *at > now);
    }

    /// The first time at which something may be due, or a pause ends.
    pub fn next(&self) -> Option<Instant> {
        let pong = self.pinged.and_then(|at| Some(at + self.pong?));
        let ping = if self.pinged.is_some() && self.pong.is_some() { None } else { self.ping };
        [
            pong,
            ping.map(|d| self.last_heard + d),
            self.idle.map(|d| self.last_message + d),
            self.expires,
            self.auth_by,
            self.restart,
            self.paused,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What is due at `now`; asked again until there is nothing more.
    pub fn due(&self, now: Instant) -> Option<Due> {
        let past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if past(self.restart) {
            return Some(Due::Restart);
        }
        if past(self.expires) {
            return Some(Due::Expired);
        }
        if past(self.auth_by) {
            return Some(Due::AuthMissing);
        }
        if past(self.idle.map(|d| self.last_message + d)) {
            return Some(Due::Idle);
        }
        if let (Some(at), Some(pong)) = (self.pinged, self.pong) {
            return past(Some(at + pong)).then_some(Due::PongMissing);
        }
        past(self.ping.map(|d| self.last_heard + d)).then_some(Due::Ping)
    }
}
