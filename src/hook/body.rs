//! What the application is sent: one JSON object for each event, and its signature.
use super::Question;
use crate::config::{HookEvent, secret::Secret};
use aws_lc_rs::hmac;
use hyper::header::HeaderValue;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt::Write;
use std::net::IpAddr;
use uuid::Uuid;

/// One event on the wire.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a> {
    pub(super) event: &'static str,
    pub(super) id: String,
    /// RFC 3339, in milliseconds.
    pub(super) timestamp: String,
    pub(super) namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) room_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u32>,
}

impl<'a> Body<'a> {
    /// A question of now.
    pub(super) fn of_question(question: &Question<'a>) -> Body<'a> {
        Body {
            event: name(question.event),
            id: Uuid::now_v7().to_string(),
            timestamp: rfc3339(Timestamp::now()),
            namespace: question.namespace,
            client_id: Some(question.client),
            session_id: question.session_id.map(|id| id.to_string()),
            room_id: question.room,
            message_id: question.message_id,
            message: question.message,
            ip: question.ip,
            attempt: None,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Strings, numbers and raw JSON: nothing in it can fail to be written into memory.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A time as the gateway writes it.
pub(super) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// The word of an event in the body and in `X-Event`.
pub(super) fn name(event: HookEvent) -> &'static str {
    match event {
        HookEvent::Connect => "connect",
        HookEvent::Join => "join",
        HookEvent::Publish => "publish",
        HookEvent::Occupied => "occupied",
        HookEvent::Vacated => "vacated",
        HookEvent::Joined => "joined",
        HookEvent::Left => "left",
    }
}

/// Signs bodies. Has no `Debug`: it holds the secret.
pub(super) struct Signer(hmac::Key);

impl Signer {
    pub(super) fn new(secret: &Secret) -> Signer {
        Signer(hmac::Key::new(hmac::HMAC_SHA256, secret.expose()))
    }

    /// The value of `X-Signature`: `sha256=` and the HMAC of the body in lower-case hexadecimal digits.
    pub(super) fn sign(&self, body: &[u8]) -> HeaderValue {
        let mut text = String::with_capacity(7 + 64);
        text.push_str("sha256=");
        for byte in hmac::sign(&self.0, body).as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}
