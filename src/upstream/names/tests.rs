#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::{Backend, Transport, Upstream};
use crate::upstream::{Affinity, Server, Upstreams};
use hyper::StatusCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};

const HALF_SECOND: Duration = Duration::from_millis(500);

/// A gateway's upstream with one name, whose records a test writes.
struct World {
    upstreams: Arc<Upstreams>,
    records: Arc<Mutex<Option<Vec<SocketAddr>>>>,
    look_ups: Arc<AtomicUsize>,
    run: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.run.abort();
    }
}

/// Nobody looks anything up until [`World::run`].
fn world(records: Option<&[&str]>) -> World {
    let transport = Transport::Tcp { host: "app.test".into(), port: 80 };
    let servers = vec![Backend { url: "http://app.test".into(), transport, weight: 1 }];
    let records = Arc::new(Mutex::new(records.map(addresses)));
    let look_ups = Arc::new(AtomicUsize::new(0));
    let (answer, count) = (records.clone(), look_ups.clone());
    let look_up: LookUp = Arc::new(move |host, port| {
        assert_eq!((host.as_str(), port), ("app.test", 80));
        count.fetch_add(1, Relaxed);
        let found = answer.lock().unwrap().clone().ok_or_else(|| io::Error::other("no such name"));
        Box::pin(async { found })
    });
    let configured = Upstream { retries: 99, ..Upstream::new("live", servers) };
    let upstreams = Upstreams::with_look_up(&[Arc::new(configured)], look_up);
    World { upstreams, records, look_ups, run: tokio::spawn(async {}) }
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl World {
    fn run(mut self) -> World {
        // The channel's other end may go: no session asks to be closed.
        self.run = tokio::spawn(self.upstreams.clone().run(broadcast::channel(1).0));
        self
    }

    fn servers(&self) -> Vec<Arc<Server>> {
        let mut servers: Vec<_> = self.upstreams.candidates(0, Affinity { client: None, ip: None }).collect();
        servers.sort_by_key(|server| server.number());
        servers
    }

    /// Where the servers are.
    fn listed(&self) -> Vec<String> {
        let levels = self.upstreams.levels().remove(0).1.remove(0).addresses;
        levels.into_iter().map(|level| level.address).collect()
    }

    fn set(&self, records: Option<&[&str]>) {
        *self.records.lock().unwrap() = records.map(addresses);
    }

    /// Lets the tasks do what is due.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// In steps, since a timer may be set when another has fired.
    async fn after(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            advance(HALF_SECOND).await;
            self.settle().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_address_is_a_server_and_records_are_followed() {
    let world = world(Some(&["127.0.0.9:80", "127.0.0.1:80", "127.0.0.9:80", "[::1]:80"])).run();
    world.settle().await;
    assert_eq!(world.listed(), ["127.0.0.1:80", "127.0.0.9:80", "[::1]:80"]);
    let before = world.servers();
    world.set(Some(&["127.0.0.2:80", "127.0.0.9:80"]));
    world.after(LOOKUP_EVERY.mul_f64(1.2)).await;
    assert_eq!(world.listed(), ["127.0.0.2:80", "127.0.0.9:80"]);
    let after = world.servers();
    assert!(before.iter().any(|server| Arc::ptr_eq(server, &after[0])), "it has stayed");
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_holds() {
    let world = world(Some(&["127.0.0.1:80"])).run();
    world.settle().await;
    for nothing in [None, Some(&[][..])] {
        world.set(nothing);
        world.after(LOOKUP_EVERY.mul_f64(1.2)).await;
        world.upstreams.relist();
        assert_eq!(world.listed(), ["127.0.0.1:80"]);
    }
    assert_eq!(world.look_ups.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_16_addresses_are_used() {
    let many: Vec<String> = (1..30).map(|n| format!("127.0.0.{n}:80")).collect();
    let world = world(Some(&many.iter().map(String::as_str).collect::<Vec<_>>())).run();
    world.settle().await;
    assert_eq!(world.listed().len(), 16);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_found_is_looked_up_again_and_answered_503() {
    let world = world(None).run();
    world.settle().await;
    let servers = world.servers();
    let began = Instant::now();
    let undialed = servers[0].dial(None).await.err().unwrap();
    assert_eq!((undialed.status(), began.elapsed()), (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO));
    assert_eq!(undialed.to_string(), "http://app.test: the name is not found: no such name");
    assert_eq!(world.listed(), [""; 0]);
    world.set(Some(&["127.0.0.1:80"]));
    // Soon, as a connection has failed.
    world.after(LOOKUP_PAUSE).await;
    assert_eq!(world.listed(), ["127.0.0.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_has_the_name_looked_up_soon_and_not_too_often() {
    let world = world(Some(&["127.0.0.1:80"])).run();
    world.settle().await;
    for _ in 0..10 {
        world.servers()[0].unreachable(&crate::upstream::server::Why::Late);
    }
    world.after(HALF_SECOND).await;
    assert_eq!(world.look_ups.load(Relaxed), 1);
    world.after(HALF_SECOND).await;
    assert_eq!(world.look_ups.load(Relaxed), 2);
    world.after(LOOKUP_PAUSE * 2).await;
    assert_eq!(world.look_ups.load(Relaxed), 2);
}

#[tokio::test]
async fn a_request_waits_for_the_first_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = world(Some(&[&listener.local_addr().unwrap().to_string()]));
    let server = world.servers().remove(0);
    let dial = tokio::spawn(async move { server.dial(None).await.is_ok() });
    world.settle().await;
    assert!(!dial.is_finished());
    let _world = world.run();
    assert!(dial.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn it_waits_no_longer_than_connect_timeout() {
    let world = world(None);
    let server = world.servers().remove(0);
    let began = Instant::now();
    let undialed = server.dial(None).await.err().unwrap();
    assert_eq!((undialed.status(), began.elapsed()), (StatusCode::GATEWAY_TIMEOUT, server.upstream.connect_timeout));
}

/// A look-up that hangs holds its place, and others have theirs.
#[tokio::test(start_paused = true)]
async fn look_ups_that_hang_are_bounded() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let look_up: LookUp = Arc::new(move |_, _| {
        count.fetch_add(1, Relaxed);
        Box::pin(std::future::pending())
    });
    let server = |n: usize| Backend {
        url: format!("http://{n}.test"),
        transport: Transport::Tcp { host: format!("{n}.test"), port: 80 },
        weight: 1,
    };
    let configured = Arc::new(Upstream::new("live", (0..20).map(server).collect()));
    let upstreams = Upstreams::with_look_up(std::slice::from_ref(&configured), look_up);
    let run = tokio::spawn(upstreams.clone().run(broadcast::channel(1).0));
    advance(LOOKUP_EVERY * 10).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.load(Relaxed), LOOKUPS_MAX);
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn an_address_that_comes_back_soon_is_the_server_it_was() {
    let (one, both) = (&["127.0.0.2:80"][..], &["127.0.0.1:80", "127.0.0.2:80"][..]);
    let world = world(Some(both)).run();
    world.settle().await;
    let number = || world.servers().iter().find(|s| s.to_string().contains("127.0.0.1")).map(|s| s.number());
    let before = number();
    assert!(before.is_some());
    for (away, is_known) in [(LOOKUP_EVERY, true), (2 * Duration::from_secs(60), false)] {
        world.set(Some(one));
        world.after(away.mul_f64(1.2)).await;
        assert_eq!(number(), None);
        world.set(Some(both));
        world.after(LOOKUP_EVERY.mul_f64(1.2)).await;
        assert_eq!(number() == before, is_known, "away for {away:?}");
    }
}
