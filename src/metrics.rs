//! What the gateway counts. Each shard counts in a block of its own; a scrape adds the blocks up.
//!
//! A counter is a place in an array, found by the variants of the label enums: nothing on the
//! message path looks a string up, allocates or takes a lock.
mod exposition;
mod labels;
mod levels;
mod process;

pub use labels::{
    Asked, AskedOutcome, Direction, Fetched, Handshake, PlacesLost, RedisCall, Refused, ServiceLabel, StatusClass,
    ToldOutcome,
};
pub use levels::{ClusterLevels, ServerLevels};

use crate::close::{By, Close};
use levels::Source;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Every counter of the process.
#[derive(Debug)]
pub struct Metrics {
    blocks: Arc<Blocks>,
    registry: Registry,
}

/// What a scrape reads.
#[derive(Debug)]
struct Blocks {
    /// One for each shard, and the last for threads that are none.
    shards: Box<[ShardMetrics]>,
    servers: Source<Vec<ServerLevels>>,
    cluster: Source<ClusterLevels>,
    started: SystemTime,
}

impl Metrics {
    /// Makes a block for each of `shards` shards, all at 0; the start time is now.
    pub fn new(shards: usize) -> Arc<Metrics> {
        let blocks = Arc::new(Blocks {
            shards: (0..=shards).map(|_| ShardMetrics::default()).collect(),
            servers: Source::default(),
            cluster: Source::default(),
            started: SystemTime::now(),
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&blocks)));
        Arc::new(Metrics { blocks, registry })
    }

    /// The block of a shard. Any thread may count in it, but it is fast only where one does.
    ///
    /// # Panics
    /// Where `index` is not below the number of shards.
    pub fn shard(&self, index: usize) -> &ShardMetrics {
        let shards = &self.blocks.shards;
        assert!(index + 1 < shards.len(), "no shard {index}");
        &shards[index]
    }

    /// The block of threads that are no shard: the acceptor, the main thread.
    pub fn elsewhere(&self) -> &ShardMetrics {
        &self.blocks.shards[self.blocks.shards.len() - 1]
    }

    /// Has each scrape ask `read` how the servers of upstreams do. Only the first call counts.
    pub fn read_servers(&self, read: impl Fn() -> Vec<ServerLevels> + Send + Sync + 'static) {
        self.blocks.servers.set(read);
    }

    /// Has each scrape ask `read` how this node stands among others. Only the first call counts.
    pub fn read_cluster(&self, read: impl Fn() -> ClusterLevels + Send + Sync + 'static) {
        self.blocks.cluster.set(read);
    }

    /// What there is now, added up as a scrape adds it.
    pub fn levels(&self) -> Levels {
        let blocks = &self.blocks;
        let sessions = |&service: &ServiceLabel| (service, blocks.level(|s| &s.sessions[service as usize]));
        Levels {
            uptime: blocks.started.elapsed().unwrap_or_default(),
            connections: blocks.level(|s| &s.connections),
            sessions: ServiceLabel::ALL.iter().map(sessions).collect(),
            rooms: blocks.level(|s| &s.rooms),
        }
    }

    /// All families in the Prometheus text format, [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(32 * 1024);
        // Writing to a String cannot fail, and no family here is one the encoder rejects.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }
}

/// What there is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// Since the start.
    pub uptime: Duration,
    /// TCP and Unix connections.
    pub connections: i64,
    /// WebSocket sessions of each service.
    pub sessions: Vec<(ServiceLabel, i64)>,
    /// Rooms.
    pub rooms: i64,
}

/// Something that goes up and down. A block may hold a negative part of the sum: what one thread
/// opened another may close.
#[derive(Debug, Default)]
struct Gauge(AtomicU64);

impl Gauge {
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
    fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }
}

/// The counters of one shard, on cache lines of their own (pairs of them: the prefetcher takes two).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    messages: [[AtomicU64; Direction::COUNT]; ServiceLabel::COUNT],
    bytes: [[AtomicU64; Direction::COUNT]; ServiceLabel::COUNT],
    deliveries: AtomicU64,
    connections: Gauge,
    sessions: [Gauge; ServiceLabel::COUNT],
    rooms: Gauge,
    room_members: Gauge,
    backlog_bytes: Gauge,
    handshakes: [AtomicU64; Handshake::COUNT],
    refusals: [AtomicU64; Refused::COUNT],
    requests: [AtomicU64; StatusClass::COUNT],
    requests_in_flight: Gauge,
    closes: [[[AtomicU64; labels::CODES]; labels::BY.len()]; ServiceLabel::COUNT],
    panics: AtomicU64,
    accept_pauses: AtomicU64,
    asked: [[AtomicU64; AskedOutcome::COUNT]; Asked::COUNT],
    told: [AtomicU64; ToldOutcome::COUNT],
    hook_waiting: Gauge,
    jwks_fetches: [AtomicU64; Fetched::COUNT],
    /// When the last one succeeded, in seconds since 1970.
    jwks_fetched_at: AtomicU64,
    redis_connected: Gauge,
    redis_reconnects: AtomicU64,
    redis_calls: [AtomicU64; RedisCall::COUNT],
    loop_lag: LoopLag,
    gaps_filled: AtomicU64,
    messages_filled: AtomicU64,
    places_lost: [AtomicU64; PlacesLost::COUNT],
    presence_flushes: AtomicU64,
}

/// A histogram of how late a shard's timer fired.
#[derive(Debug, Default)]
struct LoopLag {
    /// One for each of [`LAG_BOUNDS`], and one for what is above.
    buckets: [AtomicU64; LAG_BOUNDS.len() + 1],
    total_us: AtomicU64,
}

/// Upper bounds of the histogram's buckets.
const LAG_BOUNDS: [Duration; 7] = [
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
];

impl ShardMetrics {
    /// A TCP or Unix connection was taken in.
    pub fn connection_opened(&self) {
        self.connections.add(1);
    }

    /// It is gone.
    pub fn connection_closed(&self) {
        self.connections.subtract(1);
    }

    /// A WebSocket session began.
    pub fn session_opened(&self, service: ServiceLabel) {
        self.sessions[service as usize].add(1);
    }

    /// It ended; [`ShardMetrics::closed`] counts how.
    pub fn session_closed(&self, service: ServiceLabel) {
        self.sessions[service as usize].subtract(1);
    }

    /// How a handshake ended: each request of a connection, or the lack of one.
    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes[outcome as usize].fetch_add(1, Relaxed);
    }

    /// A request or connection was refused.
    pub fn refused(&self, reason: Refused) {
        self.refusals[reason as usize].fetch_add(1, Relaxed);
    }

    /// An ordinary request was let in.
    pub fn request_began(&self) {
        self.requests_in_flight.add(1);
    }

    /// It was answered with this status, by a backend or for the want of one.
    pub fn request(&self, status: u16) {
        self.requests[StatusClass::of(status) as usize].fetch_add(1, Relaxed);
    }

    /// Its answer has ended, or the client has gone.
    pub fn request_ended(&self) {
        self.requests_in_flight.subtract(1);
    }

    /// How a session ended. A number outside the gateway's table counts as `peer`, a Close without
    /// a number as `no_code`, a connection that ended without a Close as `lost`.
    pub fn closed(&self, service: ServiceLabel, by: By, close: &Close) {
        self.closes[service as usize][labels::by_place(by)][labels::code_place(close)].fetch_add(1, Relaxed);
    }

    /// One message of so many payload bytes.
    pub fn message(&self, service: ServiceLabel, direction: Direction, bytes: u64) {
        self.messages(service, direction, 1);
        self.bytes(service, direction, bytes);
    }

    /// Whole messages.
    pub fn messages(&self, service: ServiceLabel, direction: Direction, n: u64) {
        self.messages[service as usize][direction as usize].fetch_add(n, Relaxed);
    }

    /// Bytes of payload: of rooms and echo as inflated, of a relay as on the wire.
    pub fn bytes(&self, service: ServiceLabel, direction: Direction, n: u64) {
        self.bytes[service as usize][direction as usize].fetch_add(n, Relaxed);
    }

    /// A session's task panicked and was ended.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    /// Accepting stopped for a while, for want of descriptors or memory.
    pub fn accept_paused(&self) {
        self.accept_pauses.fetch_add(1, Relaxed);
    }

    /// A room came to be. Counted by its home shard.
    pub fn room_opened(&self) {
        self.rooms.add(1);
    }

    /// A room ended.
    pub fn room_closed(&self) {
        self.rooms.subtract(1);
    }

    /// A session joined a room.
    pub fn member_joined(&self) {
        self.room_members.add(1);
    }

    /// `n` memberships ended.
    pub fn members_left(&self, n: u64) {
        self.room_members.subtract(n);
    }

    /// A message of a room was put into the outboxes of `n` members.
    pub fn delivered(&self, n: u64) {
        self.deliveries.fetch_add(n, Relaxed);
    }

    /// `n` bytes could not be written at once and wait in an outbox.
    pub fn backlog_grew(&self, n: u64) {
        self.backlog_bytes.add(n);
    }

    /// `n` waiting bytes were written or thrown away.
    pub fn backlog_shrank(&self, n: u64) {
        self.backlog_bytes.subtract(n);
    }

    /// An application was asked, and what came of it.
    pub fn asked(&self, event: Asked, outcome: AskedOutcome) {
        self.asked[event as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// An event waits for an application to be told of it; [`ShardMetrics::told`] counts its end.
    pub fn hook_waits(&self) {
        self.hook_waiting.add(1);
    }

    /// An event that waited is done with.
    pub fn told(&self, outcome: ToldOutcome) {
        self.hook_waiting.subtract(1);
        self.told[outcome as usize].fetch_add(1, Relaxed);
    }

    /// A key set was fetched, or could not be. Counted in one block alone.
    pub fn jwks_fetched(&self, outcome: Fetched) {
        self.jwks_fetches[outcome as usize].fetch_add(1, Relaxed);
        if outcome == Fetched::Fresh {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.jwks_fetched_at.store(now.as_secs(), Relaxed);
        }
    }

    /// A connection to Redis can be used.
    pub fn redis_connected(&self) {
        self.redis_connected.add(1);
    }

    /// It failed.
    pub fn redis_lost(&self) {
        self.redis_connected.subtract(1);
        self.redis_reconnects.fetch_add(1, Relaxed);
    }

    /// It is not needed any more.
    pub fn redis_left(&self) {
        self.redis_connected.subtract(1);
    }

    /// A call of Redis came to its end.
    pub fn redis_called(&self, outcome: RedisCall) {
        self.redis_calls[outcome as usize].fetch_add(1, Relaxed);
    }

    /// Everything that a room had missed of Redis has been told.
    pub fn gap_filled(&self) {
        self.gaps_filled.fetch_add(1, Relaxed);
    }

    /// `n` messages that a room had missed of Redis were read again.
    pub fn messages_filled(&self, n: u64) {
        self.messages_filled.fetch_add(n, Relaxed);
    }

    /// The members of a room lost their places.
    pub fn places_lost(&self, cause: PlacesLost) {
        self.places_lost[cause as usize].fetch_add(1, Relaxed);
    }

    /// Redis was told what this node holds in a room.
    pub fn presence_flushed(&self) {
        self.presence_flushes.fetch_add(1, Relaxed);
    }

    /// A timer of the shard fired `late` after its time: how long everything else there waited.
    pub fn loop_lag(&self, late: Duration) {
        let bucket = LAG_BOUNDS.iter().position(|bound| late <= *bound).unwrap_or(LAG_BOUNDS.len());
        self.loop_lag.buckets[bucket].fetch_add(1, Relaxed);
        self.loop_lag.total_us.fetch_add(late.as_micros() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests;
