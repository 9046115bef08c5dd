//! What the admin interface answers: text, or a fault as JSON with its status.
use crate::close::Code;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

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
    /// 400: the head is not what a client of this interface sends.
    BadRequest(&'static str),
    /// 401: no token came.
    TokenMissing,
    /// 401: another token came.
    TokenWrong,
    /// 403: another web site's page asks.
    Origin,
    /// 404.
    NotFound,
    /// 405.
    Method {
        /// The value of `Allow`.
        allowed: &'static str,
    },
    /// 421: the Host is another one's name.
    Host,
    /// 503.
    Unavailable(&'static str),
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Answer {
        let (status, code, message) = match fault {
            Fault::BadRequest(why) => (StatusCode::BAD_REQUEST, Code::InvalidFormat, why),
            Fault::TokenMissing => (StatusCode::UNAUTHORIZED, Code::AuthRequired, Code::AuthRequired.message()),
            Fault::TokenWrong => (StatusCode::UNAUTHORIZED, Code::AuthFailed, Code::AuthFailed.message()),
            Fault::Origin => (StatusCode::FORBIDDEN, Code::OriginNotAllowed, Code::OriginNotAllowed.message()),
            Fault::NotFound => (StatusCode::NOT_FOUND, Code::Unknown, "no such call"),
            Fault::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, Code::Unknown, "method not allowed"),
            Fault::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                Code::OriginNotAllowed,
                "the Host must be the configured address or localhost, with the port",
            ),
            Fault::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unknown, why),
        };
        let body = serde_json::json!({ "error": { "code": code.number(), "message": message } });
        let mut answer = Answer::new(status, "application/json", body.to_string().into());
        let headers = answer.0.headers_mut();
        match fault {
            Fault::TokenMissing | Fault::TokenWrong => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Fault::Method { allowed } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Fault::BadRequest(_) | Fault::Origin | Fault::NotFound | Fault::Host | Fault::Unavailable(_) => {}
        }
        answer
    }
}
