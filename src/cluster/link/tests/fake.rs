//! Servers of a cluster that answer when and as the test says.
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// A call that a server got: the last of its words, and where its answer goes to.
type Asked = (String, oneshot::Sender<String>);

/// Servers, of which the first has all slots until the test says otherwise.
struct Fake {
    ports: Vec<u16>,
    owner: Arc<std::sync::Mutex<u16>>,
    /// By server.
    asked: Vec<mpsc::Receiver<Asked>>,
}

impl Fake {
    async fn start(servers: usize) -> Fake {
        let mut listeners = Vec::new();
        for _ in 0..servers {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let owner = Arc::new(std::sync::Mutex::new(ports[0]));
        let asked = listeners.into_iter().map(|listener| {
            let (tell, asked) = mpsc::channel(1024);
            let owner = owner.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, owner.clone(), tell.clone()));
                }
            });
            asked
        });
        Fake { asked: asked.collect(), ports, owner }
    }

    fn link(&self) -> Link {
        let mut config = config(&[]);
        config.servers.push(config::RedisServer { host: "127.0.0.1".into(), port: self.ports[0] });
        link(&config).0
    }

    fn set_owner(&self, server: usize) {
        *self.owner.lock().unwrap() = self.ports[server];
    }

    /// The next call that a server gets, while the link is polled, which reports nothing.
    async fn next(&mut self, server: usize, link: &mut Link) -> Asked {
        link.flush();
        tokio::select! {
            asked = timeout(DEADLINE, self.asked[server].recv()) => asked.unwrap().unwrap(),
            report = poll_fn(|cx| link.poll_report(cx)) => panic!("{report:?}"),
        }
    }
}

async fn serve(stream: TcpStream, owner: Arc<std::sync::Mutex<u16>>, tell: mpsc::Sender<Asked>) {
    let (mut input, mut output) = stream.into_split();
    let (later, mut answers) = mpsc::channel::<oneshot::Receiver<String>>(1024);
    tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            let Ok(answer) = answer.await else { return };
            let _ = output.write_all(answer.as_bytes()).await;
        }
    });
    let mut come = Vec::new();
    loop {
        while let Some((words, length)) = command(&come) {
            come.drain(..length);
            let (answer, answered) = oneshot::channel();
            let _ = later.send(answered).await;
            let port = *owner.lock().unwrap();
            match at_once(&words, port) {
                Some(said) => answer.send(said).unwrap(),
                None => {
                    let _ = tell.send((words.last().unwrap().clone(), answer)).await;
                }
            }
        }
        if input.read_buf(&mut come).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// What is answered without the test.
fn at_once(words: &[String], owner: u16) -> Option<String> {
    Some(match (words[0].as_str(), words.get(1).map(String::as_str)) {
        ("HELLO", _) => "%2\r\n+mode\r\n+cluster\r\n+role\r\n+master\r\n".to_owned(),
        ("CLIENT", _) => "+OK\r\n".to_owned(),
        ("PING", _) => "+PONG\r\n".to_owned(),
        ("CLUSTER", Some("INFO")) => "+cluster_state:ok\r\n".to_owned(),
        ("CLUSTER", _) => format!("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n+127.0.0.1\r\n:{owner}\r\n+id\r\n"),
        ("SCRIPT", _) => {
            let script = SCRIPTS.iter().find(|script| script.source == words[2]).unwrap();
            format!("+{}\r\n", script.sha())
        }
        _ => return None,
    })
}

/// The words of a whole command, and its length.
fn command(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let text = std::str::from_utf8(bytes).unwrap();
    let number = |at: usize| {
        let line = text[at..].split_once("\r\n")?.0;
        Some((line[1..].parse::<usize>().unwrap(), at + line.len() + 2))
    };
    let (count, mut at) = number(0)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, start) = number(at)?;
        words.push(text.get(start..start + length)?.to_owned());
        at = start + length + 2;
    }
    (at <= text.len()).then_some((words, at))
}

fn say(ticket: u64) -> Call {
    Call::command(b"k", &[b"ECHO", b"k", ticket.to_string().as_bytes()])
}

#[tokio::test]
async fn what_moved_waits_for_what_is_on_its_way() {
    let mut fake = Fake::start(2).await;
    let mut link = fake.link();
    up(&mut link).await;
    for ticket in 1..=3 {
        link.call(ticket, say(ticket));
    }
    let mut asked = Vec::new();
    for wanted in ["1", "2", "3"] {
        let (word, answering) = fake.next(0, &mut link).await;
        assert_eq!(word, wanted);
        asked.push(answering);
    }
    let [first, second, third] = asked.try_into().unwrap();
    fake.set_owner(1);
    let moved = format!("-MOVED {} 127.0.0.1:{}\r\n", slot_of(b"k"), fake.ports[1]);
    first.send(moved.clone()).unwrap();
    assert_eq!(up(&mut link).await, Slots::all());
    // The new master is reached, and another call is made; but the second may still be carried out by the old one.
    link.call(4, say(4));
    let early = timeout(3 * resting::REST, fake.next(1, &mut link)).await;
    assert!(early.is_err(), "something has overtaken the second");
    second.send("+2\r\n".into()).unwrap();
    assert_eq!(answer(&mut link, 2).await, Ok(Reply::Text("2".into())));
    third.send(moved).unwrap();
    for wanted in ["1", "3", "4"] {
        let (word, answering) = fake.next(1, &mut link).await;
        assert_eq!(word, wanted);
        answering.send(format!("+{wanted}\r\n")).unwrap();
        assert_eq!(answer(&mut link, wanted.parse().unwrap()).await, Ok(Reply::Text(wanted.into())));
    }
}

#[tokio::test]
async fn a_slot_whose_master_changes_waits_for_what_is_on_its_way() {
    let mut fake = Fake::start(2).await;
    let mut link = fake.link();
    up(&mut link).await;
    link.call(1, Call::command(b"other", &[b"ECHO", b"1"]));
    link.call(2, say(2));
    let (_, first) = fake.next(0, &mut link).await;
    let (_, second) = fake.next(0, &mut link).await;
    // The call of another slot tells that the map has changed.
    fake.set_owner(1);
    first.send(format!("-MOVED {} 127.0.0.1:{}\r\n", slot_of(b"other"), fake.ports[1])).unwrap();
    up(&mut link).await;
    link.call(3, say(3));
    let (word, again) = fake.next(1, &mut link).await;
    assert_eq!(word, "1");
    again.send("+1\r\n".into()).unwrap();
    assert_eq!(answer(&mut link, 1).await, Ok(Reply::Text("1".into())));
    let early = timeout(3 * resting::REST, fake.next(1, &mut link)).await;
    assert!(early.is_err(), "the third has overtaken the second");
    second.send("+2\r\n".into()).unwrap();
    assert_eq!(answer(&mut link, 2).await, Ok(Reply::Text("2".into())));
    let (word, third) = fake.next(1, &mut link).await;
    assert_eq!(word, "3");
    third.send("+3\r\n".into()).unwrap();
    assert_eq!(answer(&mut link, 3).await, Ok(Reply::Text("3".into())));
}

#[tokio::test]
async fn what_redis_unsubscribes_by_itself_is_to_be_subscribed_anew() {
    let mut fake = Fake::start(1).await;
    let mut link = fake.link();
    up(&mut link).await;
    link.call(1, say(1));
    let (_, answering) = fake.next(0, &mut link).await;
    answering.send(">3\r\n+sunsubscribe\r\n+c\r\n:0\r\n+1\r\n".into()).unwrap();
    // It is no answer.
    assert_eq!(answer(&mut link, 1).await, Ok(Reply::Text("1".into())));
    assert_eq!(up(&mut link).await, Slots(vec![(slot_of(b"c"), slot_of(b"c"))]));
}

/// A slot moves while its channel is unsubscribed: Redis does so by itself, then refuses what it was asked.
#[tokio::test]
async fn no_call_is_given_the_error_of_another_command() {
    let mut fake = Fake::start(1).await;
    let mut link = fake.link();
    up(&mut link).await;
    link.call(1, say(1));
    link.unsubscribe(b"c");
    link.call(2, say(2));
    let (_, first) = fake.next(0, &mut link).await;
    let (word, unsubscribed) = fake.next(0, &mut link).await;
    assert_eq!(word, "c");
    let (_, second) = fake.next(0, &mut link).await;
    first.send("+1\r\n".into()).unwrap();
    assert_eq!(answer(&mut link, 1).await, Ok(Reply::Text("1".into())));
    let refused = "-ERR the slot has moved\r\n";
    unsubscribed.send(format!(">3\r\n+sunsubscribe\r\n+c\r\n:0\r\n{refused}")).unwrap();
    second.send("+2\r\n".into()).unwrap();
    assert_eq!(answer(&mut link, 2).await, Err(Trouble::Away));
    down(&mut link).await;
}

/// Redis ends a connection whose answers pile up.
#[tokio::test]
async fn no_more_than_so_many_calls_are_on_their_way() {
    let mut fake = Fake::start(1).await;
    let mut link = fake.link();
    up(&mut link).await;
    for ticket in 1..=300 {
        link.call(ticket, say(ticket));
    }
    let mut asked = std::collections::VecDeque::new();
    for _ in 0..256 {
        asked.push_back(fake.next(0, &mut link).await);
    }
    assert!(timeout(2 * resting::REST, fake.next(0, &mut link)).await.is_err(), "too many are on their way");
    for ticket in 1..=300 {
        let (word, answering) = asked.pop_front().unwrap();
        assert_eq!(word, ticket.to_string());
        answering.send("+x\r\n".into()).unwrap();
        assert!(answer(&mut link, ticket).await.is_ok());
        if ticket + 256 <= 300 {
            asked.push_back(fake.next(0, &mut link).await);
        }
    }
}

/// An answer is told before what waits is sent: a call that is made then has the others before it.
#[tokio::test]
async fn a_call_overtakes_none_that_waits() {
    let mut fake = Fake::start(1).await;
    let mut link = fake.link();
    up(&mut link).await;
    for ticket in 1..=257 {
        link.call(ticket, say(ticket));
    }
    let (_, first) = fake.next(0, &mut link).await;
    first.send("+1\r\n".into()).unwrap();
    assert_eq!(answer(&mut link, 1).await, Ok(Reply::Text("1".into())));
    link.call(258, say(258));
    let mut asked = Vec::new();
    for wanted in 2..=257 {
        let (word, answering) = fake.next(0, &mut link).await;
        assert_eq!(word, wanted.to_string());
        asked.push(answering);
    }
}

#[tokio::test]
async fn a_slot_that_does_not_arrive_is_refused_in_the_end() {
    let mut fake = Fake::start(1).await;
    let mut link = fake.link();
    up(&mut link).await;
    link.call(1, say(1));
    let mut tries = 0;
    let answered = loop {
        assert!(tries < 100, "it is tried for ever");
        link.flush();
        tokio::select! {
            asked = fake.asked[0].recv() => {
                tries += 1;
                asked.unwrap().1.send("-TRYAGAIN Multiple keys request during rehashing of slot\r\n".into()).unwrap();
            }
            report = next(&mut link) => break report,
        }
    };
    let refused = matches!(&answered, Report::Answered { ticket: 1, answer: Err(Trouble::Refused(why)) } if why.starts_with("TRYAGAIN"));
    assert!(refused && tries > 1, "{answered:?} after {tries}");
}
