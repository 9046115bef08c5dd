use super::*;
use crate::close::By;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, ansi: bool, filter: &str, events: impl FnOnce()) -> String {
    let captured = Captured::default();
    let sink = captured.clone();
    let filter = filter::parse(filter).expect("filter");
    tracing::subscriber::with_default(subscriber(filter, format, ansi, move || sink.clone()), events);
    let bytes = captured.0.lock().expect("lock").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

fn end(client: &str, close: &Close) {
    session_ended(&Ended {
        route: "/ws",
        client,
        peer: &std::net::Ipv4Addr::LOCALHOST,
        duration: Duration::from_millis(1500),
        close,
        messages_in: 1,
        messages_out: 2,
        bytes_in: 3,
        bytes_out: 4,
    });
}

const NASTY: &str = "a\r\n2026-01-01T00:00:00Z  INFO forged\" code=1000 \u{1b}[31mred\u{9b}2J\u{202e}\0\u{2028}";

#[test]
fn text_is_one_line_whatever_peers_say() {
    for ansi in [false, true] {
        let close = Close::from_peer(By::Client, Some(4999), NASTY);
        let text = logged(LogFormat::Text, ansi, "info", || end(NASTY, &close));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.ends_with('\n') && !text.trim_end().contains(['\r', '\n', '\0', '\u{9b}', '\u{202e}', '\u{2028}'])
        );
        assert!(!text.contains("\u{1b}[31mred"), "{text}");
        assert!(!text.contains("forged\" code"), "the quote must not end the value: {text}");
        assert_eq!(text.contains('\u{1b}'), ansi, "{text}");
    }
}

#[test]
fn text_has_every_field() {
    let close = Close::from_peer(By::Client, Some(1000), "bye");
    let text = logged(LogFormat::Text, false, "info", || end("alice", &close));
    let (_, fields) = text.split_once(" INFO wsgate::session: ").expect("level and target");
    let expected = r#"session ended route="/ws" client="alice" peer="127.0.0.1" duration_ms=1500 code=1000 by="client" reason="bye" messages_in=1 messages_out=2 bytes_in=3 bytes_out=4"#;
    assert_eq!(fields.trim_end(), expected);
}

#[test]
fn json_is_one_object_a_line() {
    let lost = Close::lost(By::Upstream, NASTY);
    let text = logged(LogFormat::Json, false, "info", || {
        end("alice", &Close::from_peer(By::Client, Some(4999), NASTY));
        end(NASTY, &lost);
    });
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["client"], "alice");
    assert_eq!(lines[0]["code"], 4999);
    assert_eq!(lines[0]["reason"], NASTY);
    assert_eq!(lines[0]["duration_ms"], 1500);
    assert_eq!(lines[0]["target"], "wsgate::session");
    assert_eq!(lines[0]["level"], "INFO");
    assert_eq!(lines[1]["client"], NASTY);
    assert_eq!(lines[1]["by"], "upstream");
    assert_eq!(lines[1].get("code"), None, "no Close came");
}

#[test]
fn the_filter_is_obeyed() {
    let close = Close::lost(By::Client, "");
    assert_eq!(logged(LogFormat::Text, false, "warn", || end("a", &close)), "");
    assert_eq!(logged(LogFormat::Text, false, "info,wsgate::session=off", || end("a", &close)), "");
    assert_ne!(logged(LogFormat::Text, false, "warn,wsgate::session=info", || end("a", &close)), "");
}

#[test]
fn a_second_call_is_an_error_and_no_panic() {
    let mut server = Server {
        shards: 1,
        max_connections: 1,
        drain: Duration::ZERO,
        log: "inof".into(),
        log_format: LogFormat::Text,
    };
    assert!(matches!(init(&server), Err(Error::Filter(_))));
    server.log = "off".into();
    let first = init(&server);
    assert!(first.is_ok());
    assert_eq!(init(&server).err(), Some(Error::Already));
}

#[test]
fn h2_does_not_say_what_clients_send() {
    for filter in ["debug", "trace", "h2=trace", "info,h2::server=debug"] {
        let text = logged(LogFormat::Text, false, filter, || {
            tracing::debug!(target: "h2::server", "malformed headers: malformed path");
            tracing::debug!(target: "h2", "a token");
        });
        assert_eq!(text, "", "{filter}");
    }
}
