//! A refusal: a status, or a 101 and a close code (protocol.md, "Refusals before the upgrade").
use super::token::TokenFault;
use super::upgrade::{self, Upgrade};
use crate::close::{Close, Code, whole_ms};
use crate::config::{OnReject, Route};
use crate::limits::Denied;
use crate::metrics::Refused;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use std::time::Duration;

/// A request that is not let in.
#[derive(Debug)]
pub struct Refusal {
    /// The status where it is refused by one.
    pub status: StatusCode,
    /// The label in metrics.
    pub reason: Refused,
    /// In words. Never says more of a token than "invalid" or "expired".
    pub message: &'static str,
    /// The code in the body, and of the Close.
    pub code: Code,
    /// When it may be tried again.
    pub retry_after: Option<Duration>,
    closing: Option<Box<Accept>>,
    /// Ordinary requests are served here.
    ordinary: bool,
    last: bool,
}

/// What the 101 of a refusal says.
#[derive(Debug)]
struct Accept {
    accept: Option<HeaderValue>,
    protocol: Option<HeaderValue>,
}

/// The methods of ordinary requests.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// How long a client that found no place is asked to wait.
const WAIT: Duration = Duration::from_secs(1);

impl Refusal {
    /// By status alone.
    pub fn plain(status: StatusCode, reason: Refused, message: &'static str) -> Refusal {
        let code = Code::InvalidFormat;
        Refusal { status, reason, message, code, retry_after: None, closing: None, ordinary: false, last: false }
    }

    /// No route.
    pub fn no_route() -> Refusal {
        let code = Code::RoomNotFound;
        Refusal { code, ..Refusal::plain(StatusCode::NOT_FOUND, Refused::NoRoute, "nothing is served here") }
    }

    /// Permits and rates that count by address.
    pub fn denied(denied: Denied) -> Refusal {
        let (status, reason, code, wait) = match denied {
            Denied::ProcessFull => {
                (StatusCode::SERVICE_UNAVAILABLE, Refused::ProcessFull, Code::TooManyConnections, WAIT)
            }
            Denied::IpConnections | Denied::ClientConnections => {
                (StatusCode::TOO_MANY_REQUESTS, Refused::IpConnections, Code::TooManyConnections, WAIT)
            }
            Denied::HandshakeRate(wait) => (StatusCode::TOO_MANY_REQUESTS, Refused::RateLimit, Code::RateLimit, wait),
        };
        Refusal { code, retry_after: Some(wait), ..Refusal::plain(status, reason, code.message()) }
    }

    /// By the status that fits a code.
    pub fn by_status(code: Code, reason: Refused) -> Refusal {
        let status = match code {
            Code::OriginNotAllowed | Code::Banned => StatusCode::FORBIDDEN,
            Code::AuthRequired | Code::AuthFailed => StatusCode::UNAUTHORIZED,
            Code::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            Code::UpstreamUnavailable => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let waits = code == Code::TooManyConnections || reason == Refused::NoKeys;
        let message = if reason == Refused::NoKeys { TokenFault::NoKeys.message() } else { code.message() };
        Refusal { code, retry_after: waits.then_some(WAIT), ..Refusal::plain(status, reason, message) }
    }

    /// By a code, as the route's `on_reject` says.
    pub fn closing(code: Code, reason: Refused, route: &Route, upgrade: &Upgrade) -> Refusal {
        let closing = (route.auth.on_reject == OnReject::Close)
            .then(|| Box::new(Accept { accept: upgrade.accept.clone(), protocol: upgrade.any_protocol() }));
        Refusal { closing, ..Refusal::by_status(code, reason) }
    }

    /// The gateway stops.
    pub fn draining() -> Refusal {
        let message = "the gateway is stopping";
        let refusal = Refusal::plain(StatusCode::SERVICE_UNAVAILABLE, Refused::Draining, message);
        Refusal { code: Code::Restart, retry_after: Some(WAIT), ..refusal }.last()
    }

    /// The connection ends with the answer.
    pub fn last(self) -> Refusal {
        Refusal { last: true, ..self }
    }

    /// Where ordinary requests are served, so that `Allow` names their methods (RFC 9110, section 10.2.1).
    pub fn ordinary(self) -> Refusal {
        Refusal { ordinary: true, ..self }
    }

    /// With another status, where it is refused by one.
    pub fn status(self, status: StatusCode) -> Refusal {
        Refusal { status, ..self }
    }

    /// The Close that follows a 101, where the refusal is one.
    pub fn close(&self) -> Option<Close> {
        let close = Close { retry_after: self.retry_after, ..Close::because(self.code, self.message) };
        self.closing.is_some().then_some(close)
    }

    /// `Retry-After`: whole seconds (RFC 9110, 10.2.3), rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| whole_ms(wait).div_ceil(1000).max(1) as u64)
    }

    /// The answer.
    pub fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        let headers = response.headers_mut();
        if let Some(accept) = &self.closing {
            if let Some(accept) = &accept.accept {
                upgrade::switch(headers, accept);
            }
            if let Some(protocol) = &accept.protocol {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
            }
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            return response;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.last {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            StatusCode::BAD_REQUEST if self.reason == Refused::Version => {
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static(if self.ordinary { METHODS } else { "GET" }));
            }
            _ => (),
        }
        *response.status_mut() = self.status;
        *response.body_mut() = Full::new(self.body().into());
        response
    }

    /// The body of a refusal by status.
    pub fn body(&self) -> String {
        format!(r#"{{"error":{{"code":{},"message":"{}"}}}}"#, self.code.number(), self.message)
    }
}
