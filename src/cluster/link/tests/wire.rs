//! What is no RESP3, or beyond a bound, and a server that speaks it.
use super::super::wire::{Frame, Inbox, Malformed};
use super::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What comes of these bytes, which come in pieces of this size.
async fn read(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, Malformed> {
    let (mut near, mut far) = tokio::io::duplex(bytes.len() + 1);
    let mut inbox = Inbox::default();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        far.write_all(piece).await.unwrap();
        let mut come = 0;
        while come < piece.len() {
            come += poll_fn(|cx| inbox.poll_fill(&mut near, cx)).await.unwrap();
            while let Some(frame) = inbox.next()? {
                frames.push(frame);
            }
        }
    }
    Ok(frames)
}

fn text(text: &'static str) -> Reply {
    Reply::Text(text.into())
}

const ALL: &str = "+OK\r\n:-7\r\n$3\r\na\r\n\r\n_\r\n#t\r\n,1.5\r\n(12345678901234567890\r\n=7\r\ntxt:a b\r\n\
                   *2\r\n*0\r\n*1\r\n:1\r\n~1\r\n+s\r\n%1\r\n+k\r\n:2\r\n-ERR no\r\n!5\r\nERR x\r\n\
                   >3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n>3\r\n+ssubscribe\r\n+c\r\n:1\r\n\
                   >3\r\n+sunsubscribe\r\n+c\r\n:0\r\n>2\r\n+invalidate\r\n_\r\n";

#[tokio::test]
async fn frames_are_read_however_they_are_cut() {
    let list = |items: &[Reply]| Frame::Reply(Reply::List(items.to_vec()));
    let wanted = [
        Frame::Reply(text("OK")),
        Frame::Reply(Reply::Int(-7)),
        Frame::Reply(text("a\r\n")),
        Frame::Reply(Reply::Nil),
        Frame::Reply(Reply::Int(1)),
        Frame::Reply(text("1.5")),
        Frame::Reply(text("12345678901234567890")),
        Frame::Reply(text("a b")),
        list(&[Reply::List(vec![]), Reply::List(vec![Reply::Int(1)])]),
        list(&[text("s")]),
        list(&[text("k"), Reply::Int(2)]),
        Frame::Error("ERR no".into()),
        Frame::Error("ERR x".into()),
        Frame::Message { channel: "c".into(), payload: "hi".into() },
        Frame::Subscribed,
        Frame::Unsubscribed("c".into()),
        Frame::Other,
    ];
    for piece in [1, 2, 3, 7, 1000] {
        let frames = read(ALL.as_bytes(), piece).await.unwrap();
        assert_eq!(frames, wanted, "pieces of {piece}");
    }
}

#[tokio::test]
async fn what_is_malformed_or_beyond_a_bound_is_found_when_it_comes() {
    let deep = |depth: usize| format!("{}:1\r\n", "*1\r\n".repeat(depth));
    assert_eq!(read(deep(8).as_bytes(), 1000).await.unwrap().len(), 1);
    let bad = [
        "hello\r\n",
        "HELLO 3\r\n",
        "\r\n",
        "*1\r\n\r\n",
        "$-1\r\n",
        "$x\r\n",
        "$?\r\n",
        "*?\r\n",
        "$67108865\r\n",
        "$99999999999999999999\r\n",
        "*1048577\r\n",
        "%600000\r\n",
        "$2\r\nabc\r\n",
        ":x\r\n",
        "#x\r\n",
        "=3\r\nabc\r\n",
        "|1\r\n+a\r\n+b\r\n+c\r\n",
        ";1\r\na\r\n",
        ".\r\n",
        ">0\r\n",
        ">2\r\n+smessage\r\n+c\r\n",
        "%1\r\n*0\r\n:1\r\n",
        &deep(9),
        &"+".repeat(16 * 1024),
    ];
    for bytes in bad {
        for piece in [1, 20_000] {
            let read = read(bytes.as_bytes(), piece).await;
            assert!(read.is_err(), "{:?}: {read:?}", &bytes[..bytes.len().min(40)]);
        }
    }
}

/// Changes of good bytes: read or refused, never a panic.
#[tokio::test]
async fn no_bytes_make_it_panic() {
    let mut random = SmallRng::seed_from_u64(5);
    let alphabet = b"+-:,#(_$=!*~>%|;.?H0123459\r\n tf";
    for _ in 0..20_000 {
        let mut bytes = ALL.as_bytes().to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = alphabet[random.random_range(0..alphabet.len())];
        }
        let from = random.random_range(0..bytes.len());
        let _ = read(&bytes[from..], 1000).await;
    }
}

/// Takes what is asked until a PING or a script has been loaded, then says this and nothing more.
async fn say(mut stream: TcpStream, last: &[u8]) {
    let mut asked = Vec::new();
    let mut answered = 0;
    loop {
        if stream.read_buf(&mut asked).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&asked).into_owned();
        let mut answers: Vec<Vec<u8>> = Vec::new();
        if text.contains("HELLO") {
            answers.push(b"%2\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n".to_vec());
        }
        if text.contains("SETNAME") {
            answers.push(b"+OK\r\n".to_vec());
        }
        for script in SCRIPTS.iter().filter(|script| text.contains(script.source)) {
            answers.push(format!("${}\r\n{}\r\n", script.sha().len(), script.sha()).into_bytes());
        }
        if answers.len() == 2 + SCRIPTS.len() {
            answers.push(last.to_vec());
        }
        for answer in answers.iter().skip(answered) {
            let _ = stream.write_all(answer).await;
        }
        answered = answers.len();
    }
}

#[tokio::test]
async fn a_server_that_speaks_nonsense_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let nonsense: [&[u8]; 7] = [
        b"garbage\r\n",
        b"$99999999999\r\n",
        b"+nobody asked\r\n",
        b"-ERR nobody asked\r\n",
        b">3\r\n+ssubscribe\r\n+c\r\n:1\r\n",
        b"%1\r\n*0\r\n:1\r\n",
        &[b'+'; 20_000],
    ];
    tokio::spawn(async move {
        // Each is connected to twice: it is sought first.
        for last in nonsense {
            for _ in 0..2 {
                let stream = listener.accept().await.unwrap().0;
                tokio::spawn(say(stream, last));
            }
        }
        std::future::pending::<()>().await;
    });
    let mut config = config(&[]);
    config.servers.push(config::RedisServer { host: "127.0.0.1".into(), port });
    let (mut link, metrics) = link(&config);
    for _ in nonsense {
        assert_eq!(up(&mut link).await, Slots::all());
        assert_eq!(down(&mut link).await, Slots::all());
    }
    let text = metrics.encode();
    assert!(text.contains("wsgate_redis_reconnects_total 7\n") && text.contains("wsgate_redis_connected 0\n"));
}

/// What was on its way over a connection that is given up does not arrive after what the next one brings.
#[tokio::test]
async fn a_connection_that_is_given_up_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut config = config(&[]);
    config.servers.push(config::RedisServer { host: "127.0.0.1".into(), port });
    let mut link = link(&config).0;
    let (given_up, was_given_up) = tokio::sync::oneshot::channel();
    let server = tokio::spawn(async move {
        // It is sought first.
        let sought = tokio::spawn(say(listener.accept().await.unwrap().0, b""));
        let (mut stream, _) = listener.accept().await.unwrap();
        sought.abort();
        let mut asked = Vec::new();
        for answer in [
            "%2\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n".to_owned(),
            "+OK\r\n".to_owned(),
            format!("+{}\r\n", COUNT.sha()),
            format!("+{}\r\n", TELL.sha()),
        ] {
            assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        // There are calls, of which only the first byte is read.
        stream.read_u8().await.unwrap();
        stream.write_all(b"garbage\r\n").await.unwrap();
        was_given_up.await.unwrap();
        stream.read_to_end(&mut asked).await.map_err(|error| error.kind())
    });
    up(&mut link).await;
    let large = vec![b'x'; 32 << 20];
    link.call(1, Call::command(b"k", &[b"SET", b"k", &large]));
    link.call(2, count("k"));
    assert_eq!(answer(&mut link, 1).await, Err(Trouble::Away));
    given_up.send(()).unwrap();
    let read = timeout(DEADLINE, server).await.unwrap().unwrap();
    assert_eq!(read, Err(std::io::ErrorKind::ConnectionReset));
}
