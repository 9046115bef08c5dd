//! What an answer comes to. The application is not believed further than it must be.
use super::Verdict;
use super::line::{Answer, Failure};
use crate::config::HookEvent;
use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Most bytes of a reason: what the reason of a Close has room for.
const REASON_BYTES_MAX: usize = 123;

/// The body of an answer.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(default = "yes")]
    allow: bool,
    #[serde(default)]
    reason: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    message: Option<&'a RawValue>,
}

fn yes() -> bool {
    true
}

/// `null` is a message too; only a missing member is none.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Said<'_> {
    fn read(body: &[u8]) -> Option<Said<'_>> {
        match body.trim_ascii_start().first() {
            None => Some(Said { allow: true, reason: None, message: None }),
            Some(b'{') => serde_json::from_slice(body).ok(),
            // serde would take an array for an object whose members come in order.
            Some(_) => None,
        }
    }
}

/// # Errors
/// Where the answer is none that decides.
pub(super) fn judge(event: HookEvent, answer: Answer) -> Result<Verdict, Failure> {
    if refuses(answer.status) {
        // The status has decided, whatever became of the body.
        let body = answer.body.unwrap_or_default();
        return Ok(refused(Said::read(&body).and_then(|said| said.reason)));
    }
    if !answer.status.is_success() {
        return Err(Failure::Status(answer.status));
    }
    let body = answer.body?;
    let said = Said::read(&body).ok_or(Failure::NotAnAnswer)?;
    Ok(match said {
        Said { allow: false, reason, .. } => refused(reason),
        Said { message: Some(message), .. } if event == HookEvent::Publish => Verdict::Changed(message.to_owned()),
        Said { .. } => Verdict::Allowed,
    })
}

/// Whether a status says no for good: 4xx, but for those that speak of the moment.
pub(super) fn refuses(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
}

fn refused(reason: Option<String>) -> Verdict {
    Verdict::Refused { reason: reason.and_then(|words| sanitized(&words)) }
}

/// At most [`REASON_BYTES_MAX`] bytes without controls; `None` where nothing is left.
fn sanitized(words: &str) -> Option<String> {
    let mut clean = String::new();
    for c in words.trim().chars().map(|c| if is_control(c) { ' ' } else { c }) {
        if clean.len() + c.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        clean.push(c);
    }
    clean.truncate(clean.trim_end().len());
    (!clean.is_empty()).then_some(clean)
}

/// Controls, and what turns lines or the direction of writing: a reason stands in logs and on screens.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason_of(words: &str) -> Option<String> {
        sanitized(words)
    }

    #[test]
    fn a_reason_is_short_and_has_no_controls() {
        assert_eq!(reason_of("not today").as_deref(), Some("not today"));
        assert_eq!(reason_of("a\r\nb\0c\u{7f}\u{85}d\u{202e}e").as_deref(), Some("a  b c  d e"));
        assert_eq!(reason_of(" \t\u{1}\n"), None);
        assert_eq!(reason_of(""), None);
        let long = reason_of(&"ä".repeat(100)).expect("a reason");
        assert_eq!(long.len(), 122);
        assert_eq!(reason_of(&"x".repeat(200)).expect("a reason").len(), 123);
        // Blanks where the cut falls do not stay.
        assert_eq!(reason_of(&format!("{}{}y", "x".repeat(100), " ".repeat(50))).expect("a reason").len(), 100);
    }

    #[test]
    fn only_an_object_with_the_right_members_is_an_answer() {
        let bad = ["[true]", "true", "null", "{", "{}{}", r#"{"allow":1}"#, r#"{"allow":null}"#, r#"{"reason":7}"#];
        for body in bad.into_iter().chain([r#"{"allow":true,"allow":false}"#, "\u{feff}{}", r#"{"message":}"#]) {
            assert!(Said::read(body.as_bytes()).is_none(), "{body}");
        }
        assert!(Said::read(b"{\"allow\":\"\xff\"}").is_none());
        for body in ["", " \r\n", "{}", " {\"more\":[1]} ", r#"{"reason":null}"#] {
            assert!(Said::read(body.as_bytes()).is_some_and(|s| s.allow && s.message.is_none()), "{body:?}");
        }
        let said = Said::read(br#"{"message":null}"#).expect("an answer");
        assert_eq!(said.message.map(RawValue::get), Some("null"));
        let digits = Said::read(br#"{"message":{"n":1.0000000000000000000001}}"#).expect("an answer");
        assert_eq!(digits.message.map(RawValue::get), Some(r#"{"n":1.0000000000000000000001}"#));
    }

    #[test]
    fn some_statuses_speak_of_the_moment() {
        for (status, no) in [(400, true), (401, true), (403, true), (404, true), (408, false), (425, false)] {
            assert_eq!(refuses(StatusCode::from_u16(status).expect("a status")), no, "{status}");
        }
        for status in [429, 500, 503, 200, 302] {
            assert!(!refuses(StatusCode::from_u16(status).expect("a status")), "{status}");
        }
    }
}
