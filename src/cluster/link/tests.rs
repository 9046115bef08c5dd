#![allow(clippy::unwrap_used)]
mod fake;
pub(crate) mod moving;
mod seeking;
pub(crate) mod server;
mod wire;

use super::*;
use crate::config;
use crate::metrics::Metrics;
use server::{DEADLINE, Server, has_redis};
use std::future::poll_fn;
use tokio::time::timeout;

static COUNT: Script = Script::new("return redis.call('INCR', KEYS[1])");
static TELL: Script =
    Script::new("local n = redis.call('RPUSH', KEYS[1], ARGV[1]) redis.call('SPUBLISH', KEYS[1], ARGV[1]) return n");
static SCRIPTS: &[&Script] = &[&COUNT, &TELL];

/// A cluster of these servers and nothing else.
pub(crate) fn config(servers: &[&Server]) -> config::Cluster {
    config::Cluster {
        servers: servers.iter().map(|server| server.server()).collect(),
        sentinel_master: None,
        tls: false,
        ca: None,
        user: None,
        password: None,
        prefix: "t".into(),
        node: "test".into(),
        shared_limits: false,
    }
}

fn link(config: &config::Cluster) -> (Link, Arc<Metrics>) {
    let metrics = Metrics::new(1);
    let redis = Redis::new(config, metrics.clone()).unwrap();
    (Link::new(&redis, SCRIPTS, Some(0)), metrics)
}

async fn next(link: &mut Link) -> Report {
    link.flush();
    timeout(DEADLINE, poll_fn(|cx| link.poll_report(cx))).await.unwrap()
}

/// Reports until this one; those before it are passed over.
async fn until<T>(link: &mut Link, mut wanted: impl FnMut(Report) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(next(link).await) {
            return found;
        }
    }
}

async fn up(link: &mut Link) -> Slots {
    until(link, |report| if let Report::Up(slots) = report { Some(slots) } else { None }).await
}

async fn down(link: &mut Link) -> Slots {
    until(link, |report| if let Report::Down(slots) = report { Some(slots) } else { None }).await
}

async fn answer(link: &mut Link, wanted: u64) -> Result<Reply, Trouble> {
    until(link, |report| match report {
        Report::Answered { ticket, answer } if ticket == wanted => Some(answer),
        _ => None,
    })
    .await
}

/// Until the link says that this is why Redis is not reached.
async fn fault(link: &mut Link, wanted: &str) -> String {
    let said = poll_fn(|cx| {
        assert!(link.poll_report(cx).is_pending(), "it is reached");
        match link.fault.as_deref().filter(|fault| fault.contains(wanted)) {
            Some(fault) => Poll::Ready(fault.to_owned()),
            None => Poll::Pending,
        }
    });
    match timeout(DEADLINE, said).await {
        Ok(said) => said,
        Err(_) => panic!("{wanted}, not {:?}", link.fault),
    }
}

fn count(key: &str) -> Call {
    Call::script(&COUNT, &[key.as_bytes()], &[])
}

#[tokio::test]
async fn calls_are_answered_in_order_and_pushes_come() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    let (mut link, metrics) = link(&config(&[&server]));
    link.call(0, count("k"));
    assert_eq!(answer(&mut link, 0).await, Err(Trouble::Away));
    assert!(!link.reaches(7));
    assert_eq!(up(&mut link).await, Slots::all());
    assert!(link.reaches(7));

    for ticket in 1..=1000 {
        link.call(ticket, count("k"));
    }
    for ticket in 1..=1000 {
        match next(&mut link).await {
            Report::Answered { ticket: got, answer } => {
                assert_eq!((got, answer), (ticket, Ok(Reply::Int(ticket as i64))));
            }
            other => panic!("{other:?}"),
        }
    }
    link.call(1, Call::command(b"k", &[b"LPUSH", b"k", b"x"]));
    let refused = answer(&mut link, 1).await;
    assert!(matches!(&refused, Err(Trouble::Refused(error)) if error.starts_with("WRONGTYPE")), "{refused:?}");

    link.subscribe(b"c");
    link.call(2, Call::script(&TELL, &[b"c"], &[b"hello"]));
    let pushed = until(&mut link, |report| match report {
        Report::Pushed { channel, payload } => Some((channel, payload)),
        _ => None,
    });
    assert_eq!(pushed.await, ("c".into(), "hello".into()));
    link.unsubscribe(b"c");
    link.call(3, Call::script(&TELL, &[b"c"], &[b"again"]));
    assert_eq!(answer(&mut link, 3).await, Ok(Reply::Int(2)));

    let text = metrics.encode();
    for line in ["connected 1", "calls_total{outcome=\"answered\"} 1002", "calls_total{outcome=\"away\"} 1"] {
        assert!(text.contains(&format!("wsgate_redis_{line}\n")), "{line} in {text}");
    }
    drop(link);
    assert!(metrics.encode().contains("wsgate_redis_connected 0\n"));
}

#[tokio::test]
async fn a_server_that_is_killed_is_away_and_comes_back() {
    if !has_redis() {
        return;
    }
    let mut server = Server::start(&[]).await;
    let (mut link, metrics) = link(&config(&[&server]));
    up(&mut link).await;
    // It cannot answer any more, but takes what is sent.
    server.signal("STOP").await;
    link.call(1, count("k"));
    link.call(2, count("k"));
    link.flush();
    server.kill().await;
    assert_eq!(answer(&mut link, 1).await, Err(Trouble::Away));
    assert_eq!(answer(&mut link, 2).await, Err(Trouble::Away));
    assert_eq!(down(&mut link).await, Slots::all());
    link.call(3, count("k"));
    assert_eq!(answer(&mut link, 3).await, Err(Trouble::Away));
    server.restart().await;
    assert_eq!(up(&mut link).await, Slots::all());
    link.call(4, count("k"));
    assert_eq!(answer(&mut link, 4).await, Ok(Reply::Int(1)));
    assert!(metrics.encode().contains("wsgate_redis_reconnects_total 1\n"));
}

#[tokio::test]
async fn a_server_that_is_silent_is_away() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    let (mut link, _metrics) = link(&config(&[&server]));
    up(&mut link).await;
    server.signal("STOP").await;
    link.call(1, count("k"));
    assert_eq!(answer(&mut link, 1).await, Err(Trouble::Away));
    down(&mut link).await;
    server.signal("CONT").await;
    up(&mut link).await;
    // Nothing is asked: the link does so itself.
    server.signal("STOP").await;
    down(&mut link).await;
    server.signal("CONT").await;
    up(&mut link).await;
}
