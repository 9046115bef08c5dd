#![allow(clippy::unwrap_used)]
use super::super::guard::Guard;
use super::super::switches;
use super::super::turn::{Turn, Turns};
use super::*;
use crate::front::Body;
use case::Case;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use tokio::io::AsyncWriteExt;

#[path = "../../../../tests/smuggling/case.rs"]
mod case;

/// Every file of the corpus.
fn corpus() -> Vec<Case> {
    let cases: Vec<Case> = ["upgrades", "requests", "answers"].into_iter().flat_map(Case::all).collect();
    assert!(cases.len() >= 80, "{} cases", cases.len());
    cases
}

/// The place at which these bytes break the grammar, walked in pieces.
fn walk<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<usize> {
    let mut walker = Walker::new();
    let mut before = 0;
    for mut piece in pieces {
        loop {
            match walker.walk(piece) {
                Walked::Broken(at) => return Some(before + at),
                Walked::Ended(at) => (before, piece) = (before + at, &piece[at..]),
                Walked::Open => break,
            }
        }
        before += piece.len();
    }
    None
}

/// What hyper makes of bytes: the requests whose heads it took, and whether it found a fault.
#[derive(Debug, PartialEq)]
struct Served {
    requests: usize,
    fault: bool,
}

/// Serves a connection on which these bytes come, as `http1` does, through a guard or not.
async fn serve(bytes: &[u8], guarded: bool) -> Served {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let (requests, fault) = (Cell::new(0), Cell::new(false));
    let turns = Turns::default();
    let service = service_fn(|request: Request<Incoming>| {
        requests.set(requests.get() + 1);
        let (head, body) = request.into_parts();
        let (fault, turns) = (&fault, turns.clone());
        async move {
            if let Err(error) = body.collect().await {
                fault.set(fault.get() || !is_end(&error));
            }
            let mut response = Response::new(Turn::new(Body::empty(), turns));
            if switches(&head) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    // The client has left, but all that it sent is to be read.
    http.half_close(true);
    let served = if guarded {
        http.serve_connection(TokioIo::new(Guard::new(server, turns.clone())), service).await
    } else {
        http.serve_connection(TokioIo::new(server), service).await
    };
    let refused = served.is_err_and(|error| error.is_parse() && !error.is_parse_too_large());
    Served { requests: requests.get(), fault: fault.get() || refused }
}

/// Whether a body is not over, rather than wrong.
fn is_end(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    error.is_incomplete_message() || source.is_some_and(|e| e.kind() == std::io::ErrorKind::UnexpectedEof)
}

/// How many heads the walker finds.
fn heads(bytes: &[u8]) -> usize {
    let mut walker = Walker::new();
    let mut heads = 0;
    for byte in bytes {
        let before = walker.is_in_head();
        assert!(!matches!(walker.walk(&[*byte]), Walked::Broken(_)));
        let starts_anew = walker.state == State::Line(Line::Start) && *byte == b'\n';
        heads += usize::from(before && (!walker.is_in_head() || starts_anew));
    }
    heads
}

#[test]
fn every_case_has_its_verdict() {
    for case in corpus() {
        let bytes = case.sent.concat();
        let broken = walk([&*bytes]);
        let shown = broken.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(20)..=at]).into_owned());
        assert_eq!(broken.is_none(), case.is_whole(), "{}:{}\n{shown:?}", case.name, case.why);
    }
}

#[test]
fn no_split_changes_a_verdict() {
    for case in corpus() {
        let bytes = case.sent.concat();
        let whole = walk([&*bytes]);
        assert_eq!(walk(bytes.chunks(1)), whole, "{}, byte by byte", case.name);
        // Long runs of one byte are cut at some places only.
        for at in (0..=bytes.len()).step_by(1 + bytes.len() / 2000) {
            let (start, end) = bytes.split_at(at);
            assert_eq!(walk([start, end]), whole, "{}, cut at {at}", case.name);
        }
    }
}

/// hyper alone finds no fault and no other requests in what is whole; behind the guard it finds a fault in what is
/// not, and takes no request from there on.
async fn agrees(bytes: &[u8], name: &str) {
    let broken = walk([bytes]);
    let served = serve(bytes, broken.is_some()).await;
    let requests = heads(&bytes[..broken.unwrap_or(bytes.len())]);
    assert_eq!(served, Served { requests, fault: broken.is_some() }, "{name}: broken at {broken:?}");
}

#[tokio::test]
async fn hyper_agrees() {
    // What is too large for hyper is good grammar.
    for case in corpus().iter().filter(|case| case.key("answers") != Some("431 closed")) {
        agrees(&case.sent.concat(), &case.name).await;
    }
}

/// One byte of good messages is replaced by each other. No target has an authority here, of which hyper asks more.
#[tokio::test]
async fn hyper_agrees_whatever_byte_is_changed() {
    let good = b"\r\nPOST /live/%41?b=c HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nxy\
                 PUT / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 a;b=c\r\n0123456789\r\n0\r\nX-T: u\r\n\r\nOPTIONS * HTTP/1.0\r\n\r\n";
    assert_eq!(walk([&good[..]]), None);
    assert_eq!(heads(good), 3);
    for at in 0..good.len() {
        for byte in 0..=255 {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            agrees(&bytes, &bytes.escape_ascii().to_string()).await;
        }
    }
}
