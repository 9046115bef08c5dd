//! `tests/smuggling/requests` over HTTP/2: what no request line may say must not become one on its way to a backend.
use crate::smuggling_corpus::{BARE, case::Case};
use crate::support::backend::Recorder;
use crate::support::h2raw::*;
use crate::support::*;

/// Fields that HTTP/2 itself refuses (RFC 9113, section 8.2.2).
const REFUSED: [&str; 3] = ["connection", "transfer-encoding", "upgrade"];

type Fields = Vec<(String, String)>;

/// The fields of a request whose head can be said by HTTP/2, as far as it is one; bodies are another matter.
fn said(case: &Case) -> Option<Fields> {
    let text = String::from_utf8(case.sent.concat()).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next()?.split(' ').collect();
    let [method, path, "HTTP/1.1"] = words[..] else { return None };
    if !path.starts_with('/') && path != "*" {
        return None;
    }
    let mut fields = vec![(":method".to_owned(), method.to_owned())];
    fields.extend([(":scheme", "https"), (":path", path)].map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut rest = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        let name = name.to_ascii_lowercase();
        if REFUSED.contains(&&*name) || name == "content-length" || line.contains(['\n', '\r']) {
            return None;
        }
        match &*name {
            "host" => fields.push((":authority".to_owned(), value.to_owned())),
            _ => rest.push((name, value.to_owned())),
        }
    }
    fields.extend(rest);
    let fits = fields.len() > 3 && fields.iter().all(|(name, value)| name.len().max(value.len()) < 255);
    fits.then_some(fields)
}

/// What became of a stream: its status, or 400 where it was reset.
async fn outcome(raw: &mut H2Raw, stream: u32, fields: &Fields) -> String {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))).await;
    loop {
        let answer = raw.read().await.expect("the connection ended");
        match answer.kind {
            RST_STREAM if answer.stream == stream => return "400".to_owned(),
            HEADERS if answer.stream == stream => return status(&answer.payload).to_owned(),
            GOAWAY => panic!("{answer:?}"),
            _ => (),
        }
    }
}

/// The status that a header block begins with, in the forms that h2 writes it in (RFC 7541, appendix A).
fn status(block: &[u8]) -> &'static str {
    match block {
        [0x88, ..] => "200",
        [0x8c, ..] => "400",
        [0x8d, ..] => "404",
        // ":status" with a value that is not in the table.
        _ => "another",
    }
}

#[tokio::test]
async fn the_grammar_of_http_1_holds_for_what_goes_to_a_backend() {
    let backend = Recorder::start(|_: &str| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()).await;
    let limits = "[limits]\nhandshakes_per_second = 0\n";
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{BARE}{}{limits}", proxy(&[backend.port]))).await;
    let mut raw = H2Raw::over(http2::tls(&gateway, 0).await).await;
    let cases = Case::all("requests").into_iter().filter_map(|case| said(&case).map(|fields| (case, fields)));
    let (mut wrong, mut stream) = (String::new(), 1);
    for (case, fields) in cases {
        let expected = case.key("answers").unwrap().split(' ').next().unwrap();
        let before = backend.bytes().concat().len();
        let seen = outcome(&mut raw, stream, &fields).await;
        let reached = backend.bytes().concat().len() > before;
        let known = ["200", "400", "404"].contains(&expected);
        if (known && seen != expected) || (expected == "400" && reached) {
            wrong += &format!("{}: {seen}, not {expected}; reached the backend: {reached}\n", case.name);
        }
        stream += 2;
    }
    assert!(stream > 2 * 25, "{stream}");
    assert!(wrong.is_empty(), "{wrong}");
}
