//! `tests/smuggling`: requests and answers that parsers might read differently, what is answered, and what a recording
//! backend received for it.
use crate::support::backend::{Recorder, switch};
use crate::support::message::Message;
use crate::support::*;
use case::{Case, unescape};

#[path = "../smuggling/case.rs"]
mod case;

/// What the gateway says of every request, and only the gateway: a line that a client forged is none of these.
const SAID: [&str; 6] = [
    "sec-websocket-version: 13",
    "x-forwarded-for: 127.0.0.1",
    "x-forwarded-host: localhost",
    "x-forwarded-proto: http",
    "x-real-ip: 127.0.0.1",
    "via: 1.1 wsgate",
];

#[tokio::test]
async fn upgrades() {
    run("upgrades", 40).await;
}

#[tokio::test]
async fn answers_to_upgrades() {
    run("answers", 8).await;
}

async fn run(folder: &str, at_least: usize) {
    let cases = Case::all(folder);
    assert!(cases.len() >= at_least, "{} cases in {folder}", cases.len());
    for case in cases {
        assert!(!case.why.trim().is_empty(), "{} does not say why", case.name);
        judge(&case).await;
    }
}

async fn judge(case: &Case) {
    let answer = case.key("backend").map(unescape);
    let backend = Recorder::start(move |head| answer.clone().unwrap_or_else(|| answer_well(head))).await;
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{}", proxy(&[backend.port]))).await;
    let seen = converse(case, &gateway).await;
    let expected = case.key("answers").unwrap_or_else(|| panic!("{}: what is answered?", case.name));
    assert_eq!(seen, expected, "{}:{}\nreceived: {:?}", case.name, case.why, backend.received());
    if case.received.is_empty() && case.key("received") != Some("cut off") {
        assert_eq!(backend.received(), [""; 0], "{}:{}", case.name, case.why);
        return;
    }
    let received = || backend.bytes().iter().flat_map(|bytes| messages(bytes)).collect::<Vec<_>>();
    let arrived = eventually(|| async { (received().len() >= case.received.len()).then_some(()) });
    arrived.await;
    assert_eq!(received(), case.received, "{}:{}", case.name, case.why);
}

/// What is answered, in the words of the corpus.
async fn converse(case: &Case, gateway: &Gateway) -> String {
    let expected: Vec<&str> = case.key("answers").unwrap_or_default().split(' ').collect();
    let mut raw = gateway.raw().await;
    let mut seen = Vec::new();
    for (number, part) in case.sent.iter().enumerate() {
        raw.try_send(part).await;
        if number + 1 < case.sent.len() {
            answer(&mut raw, &mut seen).await;
        }
    }
    let statuses = expected.iter().filter(|word| word.parse::<u16>().is_ok()).count();
    while seen.len() < statuses && answer(&mut raw, &mut seen).await {}
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
    if head.status != 101 {
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
        let upgraded = text.contains("\nupgrade: ");
        let body = if upgraded { std::mem::take(&mut bytes) } else { &message.body };
        if !body.is_empty() {
            text = text + "\n\n" + &body.escape_ascii().to_string();
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
    format!("{}:{value}", name.to_ascii_lowercase())
}
