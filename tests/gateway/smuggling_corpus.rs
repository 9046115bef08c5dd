//! `tests/smuggling`: requests and answers that parsers might read differently, what is answered, and what a recording
//! backend received for it.
use crate::support::backend::{Recorder, accept_key, switch};
use crate::support::message::Message;
use crate::support::*;
use case::{Case, unescape};
use std::pin::pin;
use tokio::time::timeout;

#[path = "../smuggling/case.rs"]
pub mod case;

/// What the gateway says of every request, and only the gateway: a line that a client forged is none of these.
const SAID: [&str; 7] = [
    "forwarded: for=127.0.0.1;proto=http;host=\"localhost\"",
    "sec-websocket-version: 13",
    "x-forwarded-for: 127.0.0.1",
    "x-forwarded-host: localhost",
    "x-forwarded-proto: http",
    "x-real-ip: 127.0.0.1",
    "via: 1.1 wsgate",
];

/// `/bare/*`, stripped, to the same backend.
pub const BARE: &str = r#"
[[route]]
path = "/bare/*"
service = "proxy"
upstream = "live"
strip_prefix = true
"#;

#[tokio::test]
async fn upgrades() {
    run("upgrades", 40).await;
}

#[tokio::test]
async fn ordinary_requests() {
    run("requests", 80).await;
}

#[tokio::test]
async fn answers_to_upgrades() {
    run("answers", 8).await;
}

async fn run(folder: &str, at_least: usize) {
    let cases = Case::all(folder);
    assert!(cases.len() >= at_least, "{} cases in {folder}", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let judged = timeout(DEADLINE / 3, judge(&case)).await;
        if let Err(what) = judged.unwrap_or_else(|_| Err("    nothing happened".to_owned())) {
            wrong += &format!("{}:{}\n{what}\n", case.name, case.why);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

async fn judge(case: &Case) -> Result<(), String> {
    let told = case.key("backend").map(str::to_owned);
    let answer = move |head: &str| match &told {
        Some(told) => unescape(&told.replace("{accept}", &accept_key(head))),
        None => answer_well(head),
    };
    let backend = Recorder::start(answer).await;
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{BARE}{}", proxy(&[backend.port]))).await;
    let mut raw = gateway.raw().await;
    let seen = converse(case, &mut raw).await;
    let expected = case.key("answers").unwrap_or_default();
    if seen != expected {
        return Err(format!("    answered: {seen}, not {expected}; received: {:?}", backend.received()));
    }
    if case.received.is_empty() && case.key("received") != Some("cut off") {
        let received = backend.received();
        return if received.is_empty() { Ok(()) } else { Err(format!("    received: {received:?}")) };
    }
    let received = || backend.bytes().iter().flat_map(|bytes| messages(bytes)).collect::<Vec<_>>();
    let arrives = eventually(|| async { (received() == case.received).then_some(()) });
    match timeout(DEADLINE / 6, pin!(arrives)).await {
        Ok(()) => Ok(()),
        Err(_) => Err(format!("    received: {:#?}, not {:#?}", received(), case.received)),
    }
}

/// What is answered, in the words of the corpus.
async fn converse(case: &Case, raw: &mut RawWs) -> String {
    let expected: Vec<&str> = case.key("answers").unwrap_or_default().split(' ').collect();
    let mut seen = Vec::new();
    for (number, part) in case.sent.iter().enumerate() {
        raw.try_send(part).await;
        if number + 1 < case.sent.len() {
            answer(raw, &mut seen).await;
        }
    }
    let statuses = expected.iter().filter(|word| word.parse::<u16>().is_ok()).count();
    while seen.len() < statuses && answer(raw, &mut seen).await {}
    match expected.last() {
        Some(&"open") => {
            raw.try_send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            let last = raw.try_read_head().await.map(|head| head.status);
            seen.push(if last == Some(404) { "open".to_owned() } else { format!("not open: {last:?}") });
        }
        Some(&"closed") if seen.last().is_some_and(|status| status == "101") => {
            while raw.try_read_whole_frame().await.is_some() {}
            seen.push("closed".to_owned());
        }
        Some(&"closed") => match raw.try_read_head().await {
            None => seen.push("closed".to_owned()),
            Some(head) => seen.push(head.status.to_string()),
        },
        Some(_) | None => {}
    }
    seen.join(" ")
}

/// Notes the status of the next answer; false where none comes.
async fn answer(raw: &mut RawWs, seen: &mut Vec<String>) -> bool {
    let Some(head) = raw.try_read_head().await else { return false };
    if ![101, 204].contains(&head.status) {
        raw.read_body(&head).await;
    }
    seen.push(head.status.to_string());
    true
}

/// 101 to an upgrade, 200 to anything else.
fn answer_well(head: &str) -> Vec<u8> {
    match head.to_ascii_lowercase().contains("\r\nupgrade: websocket") {
        true => switch(head),
        false => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
    }
}

/// The whole messages of a connection as the corpus writes them, and what follows them where that is no message.
fn messages(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while let Some((message, length)) = Message::first_of(bytes) {
        bytes = &bytes[length..];
        let mut lines = message.head.lines().map(str::to_owned);
        let mut text = lines.next().unwrap_or_default();
        let mut fields: Vec<String> = lines.map(|line| lower_name(&line)).collect();
        fields.retain(|line| !SAID.contains(&line.as_str()) && !line.starts_with("sec-websocket-key: "));
        fields.sort();
        for line in fields {
            text = text + "\n" + &line;
        }
        if text.contains("\nupgrade: ") {
            for frame in frames(std::mem::take(&mut bytes)) {
                text = text + "\n\n" + &frame;
            }
        } else if !message.body.is_empty() {
            text = text + "\n\n" + &message.body.escape_ascii().to_string();
        }
        for trailer in message.trailers {
            text = text + "\n" + &lower_name(&trailer);
        }
        messages.push(text);
    }
    messages
}

fn lower_name(line: &str) -> String {
    let (name, value) = line.split_once(':').unwrap();
    format!("{}:{}", name.to_ascii_lowercase(), value.trim_end())
}

/// Frames of clients, short ones: the first byte and the payload without its mask, of a Close the code.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while let [first, length, mask @ ..] = bytes {
        let (mask, payload) = mask.split_at(4);
        let (payload, rest) = payload.split_at(usize::from(length & 0x7f));
        let payload: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        frames.push(match first {
            0x88 => format!("88 {}", u16::from_be_bytes(payload[..2].try_into().unwrap())),
            first => format!("{first:02x} {}", payload.escape_ascii()),
        });
        bytes = rest;
    }
    frames
}
