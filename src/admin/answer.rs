//! What the admin interface answers: text, or a fault as JSON with its status.
use crate::close::Code;
use crate::rooms::desk::Refusal;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// An answer with all its headers.
#[derive(Debug)]
pub(super) struct Answer(Response<Full<Bytes>>);

impl Answer {
    /// 200 with a text of the media type.
    pub fn text(media_type: &'static str, body: impl Into<Bytes>) -> Answer {
        Answer::new(StatusCode::OK, media_type, body.into())
    }

    /// 200, `ok`.
    pub fn ok() -> Answer {
        Answer::text("text/plain; charset=utf-8", "ok")
    }

    /// A JSON value.
    pub fn json(status: StatusCode, body: &Value) -> Answer {
        Answer::json_text(status, body.to_string())
    }

    /// What all nodes have answered: 200, and the names of those who have not, where there are some.
    pub fn of_all(mut body: Value, unanswered: &[Arc<str>]) -> Answer {
        if !unanswered.is_empty() {
            body["unanswered"] = unanswered.iter().map(|node| &**node).collect();
        }
        Answer::json(StatusCode::OK, &body)
    }

    /// JSON that is text already.
    pub fn json_text(status: StatusCode, body: String) -> Answer {
        Answer::new(status, "application/json", body.into())
    }

    fn new(status: StatusCode, media_type: &'static str, body: Bytes) -> Answer {
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Answer(response)
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        self.0
    }
}

/// Why a call was not answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// 400: not what a client of this interface sends.
    BadRequest(Cow<'static, str>),
    /// 401: no token came.
    TokenMissing,
    /// 401: another token came.
    TokenWrong,
    /// 403: another web site's page asks.
    Origin,
    /// 404: no such call.
    NotFound,
    /// 404: what the call is about is not there.
    Missing(&'static str),
    /// 405.
    Method {
        /// The value of `Allow`.
        allowed: &'static str,
    },
    /// 408: the body did not come in time.
    Slow,
    /// 413.
    TooLarge(Cow<'static, str>),
    /// 415.
    MediaType(&'static str),
    /// 421: the Host is another one's name.
    Host,
    /// 500: what failed stands in the log.
    Internal(&'static str),
    /// 503.
    Unavailable(&'static str),
    /// The rooms said no; the status follows from the code.
    Refused(Refusal),
}

/// What callers are asked to wait, in seconds, where the rooms found no place for what was asked.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl Fault {
    /// 400, in words.
    pub fn bad(message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::BadRequest(message.into())
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        match self {
            Fault::BadRequest(_) => StatusCode::BAD_REQUEST,
            Fault::TokenMissing | Fault::TokenWrong => StatusCode::UNAUTHORIZED,
            Fault::Origin => StatusCode::FORBIDDEN,
            Fault::NotFound | Fault::Missing(_) => StatusCode::NOT_FOUND,
            Fault::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Fault::Slow => StatusCode::REQUEST_TIMEOUT,
            Fault::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Fault::Host => StatusCode::MISDIRECTED_REQUEST,
            Fault::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Fault::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Refused(refusal) => match refusal.code {
                Code::RoomNotFound => StatusCode::NOT_FOUND,
                Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                Code::Banned => StatusCode::FORBIDDEN,
                Code::RoomFull | Code::Unknown | Code::SlowConsumer => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            },
        }
    }

    /// `{code, message}`.
    pub fn error(&self) -> Value {
        let (code, message) = match self {
            Fault::BadRequest(why) => (Code::InvalidFormat, &**why),
            Fault::TokenMissing => (Code::AuthRequired, Code::AuthRequired.message()),
            Fault::TokenWrong => (Code::AuthFailed, Code::AuthFailed.message()),
            Fault::Origin => (Code::OriginNotAllowed, Code::OriginNotAllowed.message()),
            Fault::NotFound => (Code::Unknown, "no such call"),
            Fault::Missing(what) => (Code::RoomNotFound, *what),
            Fault::Method { .. } => (Code::Unknown, "method not allowed"),
            Fault::Slow => (Code::Unknown, "the body did not come in time"),
            Fault::TooLarge(why) => (Code::TooLarge, &**why),
            Fault::MediaType(why) => (Code::InvalidFormat, *why),
            Fault::Host => {
                (Code::OriginNotAllowed, "the Host must be the configured address or localhost, with the port")
            }
            Fault::Internal(why) | Fault::Unavailable(why) => (Code::Unknown, *why),
            Fault::Refused(Refusal { code, message }) => (*code, *message),
        };
        json!({ "code": code.number(), "message": message })
    }
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Answer {
        let status = fault.status();
        let mut answer = Answer::json(status, &json!({ "error": fault.error() }));
        let headers = answer.0.headers_mut();
        match fault {
            Fault::TokenMissing | Fault::TokenWrong => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Fault::Method { allowed } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Fault::Refused(_) if status == StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            _ => {}
        }
        answer
    }
}
