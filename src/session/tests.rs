//! Sessions over pipes, on a clock that stands still unless everybody waits.
#![allow(clippy::unwrap_used)]
mod closing;
mod requests;
mod times;

use super::*;
use crate::config::{Config, file};
use crate::limits::Limiter;
use crate::metrics::Metrics;
use crate::rooms::broker::{Broker, memory::Memory};
use crate::rooms::{Parts, Shared};
use crate::ws::masked_frame;
use futures_util::future::join;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::LocalSet;
use tokio::time::timeout;

const ROUTES: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/echo\"\nservice = \"echo\"\nlimits = { on_excess = \"close\" }\n\
                      [[route]]\npath = \"/ws\"\nservice = \"rooms\"\n[[route]]\npath = \"/pausing\"\nservice = \"echo\"\nlimits = { on_excess = \"pause\" }\n[auth]\nsecret_env = \"SECRET\"\nleeway = \"0s\"\n";
const SECRET: &str = "a secret that only the tests know, 0123456789";
/// What a test that goes wrong waits, on a clock that is paused. Less than a timer of a session that waits for nothing:
/// what is not woken must not be saved by it.
const LONG: Duration = Duration::from_secs(3600);

fn config(limits: &str) -> Config {
    let text = format!("{ROUTES}[limits]\n{limits}\n");
    file::parse(&text, "gateway.toml", &|_| Some(SECRET.to_owned()), 1).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A gateway's one shard.
struct House {
    around: Surroundings,
    metrics: Arc<Metrics>,
}

impl House {
    /// Runs a test on a shard whose rooms have this broker.
    async fn with(limits: &str, broker: Box<dyn Broker>, test: impl AsyncFnOnce(&House)) {
        let config = Arc::new(config(limits));
        let limiter = Limiter::new(9, config.ip_limits);
        let metrics = Metrics::new(1);
        let shard = Shard::new(0, metrics.clone());
        let (shared, mut inboxes) = Shared::new(1, Parts::alone(config.rooms.clone()));
        let rooms = Rooms::with_broker(shared, shard.clone(), broker);
        let gate = Arc::new(Gate::new(config, limiter, crate::bans::Bans::in_memory()).unwrap());
        let house = House { around: Surroundings { gate, shard: shard.clone(), rooms: rooms.clone() }, metrics };
        LocalSet::new()
            .run_until(async {
                let fanout = spawn_local(shard.run_fanout());
                let loops = spawn_local(rooms.run(inboxes.remove(0)));
                timeout(LONG, test(&house)).await.expect("something was awaited that does not come");
                fanout.abort();
                loops.abort();
            })
            .await;
    }

    async fn run(limits: &str, test: impl AsyncFnOnce(&House)) {
        House::with(limits, Box::new(Memory::default()), test).await;
    }

    fn talk(&self, path: usize, who: Who, wire: Wire) -> Talk {
        let route = self.around.gate.config().routes[path].clone();
        let rates = Rates::new(&route.limits);
        Talk::new(self.around.clone(), self.around.shard.seat(wire), route, rates, who, Vec::new(), false)
    }

    /// A whole session beside what its client does; its end of the pipe stays until the session is over.
    async fn session(&self, path: usize, who: Who, client: impl AsyncFnOnce(&mut Peer)) -> Ended {
        let (theirs, ours) = duplex(1 << 20);
        let started = Instant::now();
        let (shard, mut talk) = (self.around.shard.clone(), self.talk(path, who, Wire::Pipe(ours)));
        // A task of its own, so that only what must wakes it.
        let session = spawn_local(async move {
            let close = talk.run().await;
            let after = started.elapsed();
            end(&shard, talk.seat(), &close).await;
            (close, talk.traffic(), after, started.elapsed())
        });
        let mut peer = Peer { pipe: theirs, started };
        client(&mut peer).await;
        let (close, traffic, after, whole) = session.await.unwrap();
        Ended { close, traffic, after, whole }
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        text.lines()
            .filter(|l| l.starts_with(name))
            .map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

const ECHO: usize = 0;
const ROOMS: usize = 1;
const PAUSING: usize = 2;

struct Ended {
    close: Close,
    traffic: Traffic,
    /// When the session knew its end.
    after: Duration,
    /// When the socket was closed.
    whole: Duration,
}

fn alice() -> Who {
    let identity = Identity { client: "alice".into(), expires_at: Some(u64::MAX / 2), claims: Arc::default() };
    Who::Client(identity, ClientPermit::alone())
}

/// The client's end of the pipe.
struct Peer {
    pipe: DuplexStream,
    started: Instant,
}

impl Peer {
    async fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.pipe.write_all(&masked_frame(opcode, payload, [1, 2, 3, 4])).await.unwrap();
    }

    async fn say(&mut self, value: Value) {
        self.send(Opcode::Text, value.to_string().as_bytes()).await;
    }

    async fn close(&mut self, code: u16) {
        self.send(Opcode::Close, &code.to_be_bytes()).await;
    }

    /// The next frame: first byte and payload; `None` at the end.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.pipe.read_u8().await.ok()?;
        let length = match self.pipe.read_u8().await.unwrap() {
            126 => usize::from(self.pipe.read_u16().await.unwrap()),
            127 => self.pipe.read_u64().await.unwrap() as usize,
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.pipe.read_exact(&mut payload).await.unwrap();
        Some((first, payload))
    }

    async fn next(&mut self) -> Value {
        let (first, text) = self.frame().await.unwrap();
        assert_eq!(first, 0x81, "text was expected: {text:?}");
        serde_json::from_slice(&text).unwrap()
    }

    async fn expect(&mut self, kind: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// The code of the Close that comes next, and then nothing.
    async fn closed(&mut self) -> u16 {
        let (first, payload) = self.frame().await.expect("a Close was expected");
        assert_eq!(first, 0x88, "{}", String::from_utf8_lossy(&payload));
        assert_eq!(self.frame().await, None);
        u16::from_be_bytes([payload[0], payload[1]])
    }

    /// Waits until so many seconds after the start.
    async fn at(&self, seconds: u64) {
        tokio::time::sleep_until(self.started + Duration::from_secs(seconds)).await;
    }

    fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}
