//! Every close code, with its reason, its metric label and its advice (protocol.md, "Errors and
//! close codes"; RFC 6455, section 7.4).
use std::time::Duration;

/// How long clients are asked to wait when the gateway restarts.
const RESTART_WAIT_MS: std::ops::Range<u64> = 50..1000;

/// A code that ends a socket or, for some of them, answers a request as `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Code {
    /// The purpose is fulfilled (RFC 6455).
    Normal = 1000,
    /// The other side went away (RFC 6455).
    GoingAway = 1001,
    /// A protocol error on the wire (RFC 6455).
    Protocol = 1002,
    /// Text that is not UTF-8 (RFC 6455).
    NotUtf8 = 1007,
    /// The gateway restarts (IANA registry): reconnect after the wait.
    Restart = 1012,
    /// Unknown error.
    Unknown = 4000,
    /// No token came.
    AuthRequired = 4001,
    /// Bad or expired token.
    AuthFailed = 4002,
    /// Origin not allowed.
    OriginNotAllowed = 4003,
    /// Rate limit exceeded.
    RateLimit = 4004,
    /// Message too large.
    TooLarge = 4005,
    /// Invalid message format.
    InvalidFormat = 4006,
    /// Room not found, or not joined.
    RoomNotFound = 4007,
    /// Room full.
    RoomFull = 4008,
    /// User banned.
    Banned = 4009,
    /// Slow consumer.
    SlowConsumer = 4010,
    /// Too many connections.
    TooManyConnections = 4011,
    /// Upstream unavailable.
    UpstreamUnavailable = 4012,
    /// Disconnected by an administrator.
    Administrator = 4013,
    /// Idle, or heartbeat lost.
    Idle = 4014,
}

/// What a client should do about a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing: the end was meant.
    Nothing,
    /// Connect again, after a pause.
    Reconnect,
    /// Get a new token first.
    Authenticate,
    /// Do not connect again by itself.
    Stay,
    /// Wait the time that is told.
    Wait,
}

impl Code {
    /// Every code, for tables of metrics.
    pub const ALL: [Code; 20] = [
        Code::Normal,
        Code::GoingAway,
        Code::Protocol,
        Code::NotUtf8,
        Code::Restart,
        Code::Unknown,
        Code::AuthRequired,
        Code::AuthFailed,
        Code::OriginNotAllowed,
        Code::RateLimit,
        Code::TooLarge,
        Code::InvalidFormat,
        Code::RoomNotFound,
        Code::RoomFull,
        Code::Banned,
        Code::SlowConsumer,
        Code::TooManyConnections,
        Code::UpstreamUnavailable,
        Code::Administrator,
        Code::Idle,
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The words that stand in a close reason or an error message where nothing better is known.
    pub fn message(self) -> &'static str {
        match self {
            Code::Normal => "",
            Code::GoingAway => "going away",
            Code::Protocol => "protocol error",
            Code::NotUtf8 => "text is not UTF-8",
            Code::Restart => "service restart",
            Code::Unknown => "unknown error",
            Code::AuthRequired => "authentication required",
            Code::AuthFailed => "authentication failed",
            Code::OriginNotAllowed => "origin not allowed",
            Code::RateLimit => "rate limit exceeded",
            Code::TooLarge => "message too large",
            Code::InvalidFormat => "invalid message format",
            Code::RoomNotFound => "room not found, or not joined",
            Code::RoomFull => "room full",
            Code::Banned => "user banned",
            Code::SlowConsumer => "slow consumer",
            Code::TooManyConnections => "too many connections",
            Code::UpstreamUnavailable => "upstream unavailable",
            Code::Administrator => "disconnected by an administrator",
            Code::Idle => "idle, or heartbeat lost",
        }
    }

    /// The value of the label `code` in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Code::Normal => "normal",
            Code::GoingAway => "going_away",
            Code::Protocol => "protocol",
            Code::NotUtf8 => "not_utf8",
            Code::Restart => "restart",
            Code::Unknown => "unknown",
            Code::AuthRequired => "auth_required",
            Code::AuthFailed => "auth_failed",
            Code::OriginNotAllowed => "origin",
            Code::RateLimit => "rate_limit",
            Code::TooLarge => "too_large",
            Code::InvalidFormat => "invalid_format",
            Code::RoomNotFound => "room_not_found",
            Code::RoomFull => "room_full",
            Code::Banned => "banned",
            Code::SlowConsumer => "slow_consumer",
            Code::TooManyConnections => "too_many_connections",
            Code::UpstreamUnavailable => "upstream",
            Code::Administrator => "administrator",
            Code::Idle => "idle",
        }
    }

    /// What the client should do. On the wire it shows as `retryable` and `reconnect` alone.
    pub fn advice(self) -> Advice {
        match self {
            Code::Normal | Code::RoomNotFound => Advice::Nothing,
            Code::GoingAway
            | Code::Restart
            | Code::Unknown
            | Code::SlowConsumer
            | Code::UpstreamUnavailable
            | Code::Idle => Advice::Reconnect,
            Code::AuthRequired | Code::AuthFailed => Advice::Authenticate,
            Code::Protocol
            | Code::NotUtf8
            | Code::OriginNotAllowed
            | Code::TooLarge
            | Code::InvalidFormat
            | Code::Banned
            | Code::Administrator => Advice::Stay,
            Code::RateLimit | Code::RoomFull | Code::TooManyConnections => Advice::Wait,
        }
    }

    /// Whether the same request, or a new connection, may succeed later (`retryable`).
    pub fn retryable(self) -> bool {
        matches!(self.advice(), Advice::Reconnect | Advice::Wait)
    }
}

/// Who ended a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The client sent its Close, or went away.
    Client,
    /// The gateway.
    Gateway,
    /// The backend behind a proxy route.
    Upstream,
}

impl By {
    /// The label in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            By::Client => "client",
            By::Gateway => "gateway",
            By::Upstream => "upstream",
        }
    }
}

/// How a socket ended: the last value of every session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Who ended it.
    pub by: By,
    /// The number; `None` where the connection just ended ("1006").
    pub number: Option<u16>,
    /// Why, in words for the log; at most 123 bytes of it go on the wire.
    pub reason: String,
    /// The wait that the client is told, in whole milliseconds: rounded down in the reason of a Close.
    pub retry_after: Option<Duration>,
}

impl Close {
    /// The gateway closes, with the code's own words.
    pub fn gateway(code: Code) -> Close {
        Close::because(code, code.message())
    }

    /// The gateway closes, with better words than the code's own.
    pub fn because(code: Code, reason: impl Into<String>) -> Close {
        Close { by: By::Gateway, number: Some(code.number()), reason: reason.into(), retry_after: None }
    }

    /// The gateway stops. Each client is asked to wait a time of its own, so that not all come at once.
    pub fn restart() -> Close {
        let wait = Duration::from_millis(rand::random_range(RESTART_WAIT_MS));
        Close::gateway(Code::Restart).retry_after(wait)
    }

    /// Adds the wait that the client is told.
    pub fn retry_after(mut self, wait: Duration) -> Close {
        self.retry_after = Some(wait);
        self
    }

    /// A Close that a peer sent; 1005 where it named no code.
    pub fn from_peer(by: By, code: Option<u16>, reason: &str) -> Close {
        Close { by, number: Some(code.unwrap_or(1005)), reason: reason.to_owned(), retry_after: None }
    }

    /// The connection ended without a Close.
    pub fn lost(by: By, reason: impl Into<String>) -> Close {
        Close { by, number: None, reason: reason.into(), retry_after: None }
    }

    /// The payload of the Close frame, at most 125 bytes (RFC 6455, 5.5.1). Empty for a number
    /// that must not go on the wire.
    pub fn payload(&self) -> Vec<u8> {
        let Some(number) = self.number.filter(|n| !matches!(n, 1005 | 1006 | 1015)) else { return Vec::new() };
        let wait = self.retry_after.map(|w| format!(" (retry_after_ms={})", whole_ms(w))).unwrap_or_default();
        let mut room = 123 - wait.len();
        if self.reason.len() < room {
            room = self.reason.len();
        }
        while !self.reason.is_char_boundary(room) {
            room -= 1;
        }
        let mut payload = number.to_be_bytes().to_vec();
        payload.extend_from_slice(&self.reason.as_bytes()[..room]);
        payload.extend_from_slice(wait.as_bytes());
        payload
    }

    /// The code, where [`Code::ALL`] has the number; `None` for other numbers of peers, and where there is none.
    pub fn code(&self) -> Option<Code> {
        Code::ALL.into_iter().find(|c| Some(c.number()) == self.number)
    }
}

/// A wait as it is told: rounded up, so that who waits exactly so long does not come too early.
pub fn whole_ms(wait: Duration) -> u128 {
    wait.as_nanos().div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_fits_a_control_frame_and_ends_with_the_wait() {
        let close = Close::because(Code::RateLimit, "ä".repeat(100)).retry_after(Duration::from_micros(12_001));
        let payload = close.payload();
        assert!(payload.len() <= 125);
        let reason = std::str::from_utf8(&payload[2..]).unwrap_or_default();
        assert!(reason.ends_with("ä (retry_after_ms=13)"), "{reason}");
    }

    #[test]
    fn numbers_that_stand_for_no_code_stay_off_the_wire() {
        for number in [1005, 1006, 1015] {
            assert!(Close::from_peer(By::Client, Some(number), "x").payload().is_empty());
        }
    }

    #[test]
    fn every_code_stands_in_the_table_once() {
        for code in Code::ALL {
            assert_eq!(Code::ALL.iter().filter(|c| c.number() == code.number()).count(), 1);
            assert_eq!(Code::ALL.iter().filter(|c| c.label() == code.label()).count(), 1);
        }
    }
}
