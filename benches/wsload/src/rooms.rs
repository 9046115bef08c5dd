//! Rooms, in the gateway's own protocol `rooms.v1`: every delivery is checked by its offset and its text,
//! every wait has a bound, and a fault of any client ends the run.
mod crowd;
mod fanout;
mod grid;
mod joins;
mod latency;
mod listener;
mod recovery;
mod redis;
mod seat;

use crate::conn::Target;
use crate::report::Report;
use clap::{Args, Subcommand};
use redis::Redis;
use std::time::Duration;

/// Where the clients go, and how long they wait.
#[derive(Args, Clone)]
pub struct Place {
    /// ws:// or wss:// address of a route to rooms
    url: String,
    /// Other nodes of the same cluster: clients are dealt out over all of them in turn; may repeat
    #[arg(long)]
    also: Vec<String>,
    /// HOST:PORT of the Redis behind the nodes, on this machine: its CPU time and its commands are reported
    #[arg(long)]
    redis: Option<String>,
    /// Extra request header, `Name: value`; `{i}` becomes the connection's number
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Clients, each with one connection
    #[arg(short = 'c', long, default_value_t = 100)]
    clients: usize,
    /// Bytes of the text that is published
    #[arg(short = 's', long, default_value_t = 64)]
    size: usize,
    /// Seconds that each step may take before the run is given up
    #[arg(long, default_value_t = 60.0)]
    within: f64,
    /// Processes whose CPU time is charged; children are added
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Bind connection i to 127.0.0.(2 + i / 20000) to get past the port limit
    #[arg(long)]
    spread: bool,
    /// The server is `wsload floor`: no protocol, texts are all that there is
    #[arg(skip)]
    floor: bool,
}

impl Place {
    fn within(&self) -> Duration {
        Duration::from_secs_f64(self.within)
    }

    /// Where clients go, in turn.
    fn targets(&self) -> Result<Vec<Target>, String> {
        std::iter::once(&self.url).chain(&self.also).map(|url| Target::new(url, true)).collect()
    }

    /// Redis from now on, where there is one.
    fn watch_redis(&self) -> Result<Option<Redis>, String> {
        self.redis.as_deref().map(Redis::watch).transpose()
    }
}

/// What the clients do.
#[derive(Subcommand)]
pub enum Rooms {
    /// One member publishes to a room of --clients, the next message when all have the one before
    Fanout {
        #[command(flatten)]
        place: Place,
        /// Messages published
        #[arg(short = 'm', long, default_value_t = 100)]
        messages: u64,
        /// Messages that are sent at once, the next when all have them
        #[arg(long, default_value_t = 1)]
        batch: u64,
        /// The server is `wsload floor`, at /sub: nobody joins, and the text is sent to all as it is
        #[arg(long)]
        floor: bool,
    },
    /// A member sends, another receives, at another node where there is one: how long that takes
    Latency {
        #[command(flatten)]
        place: Place,
        /// Messages, one after the other
        #[arg(short = 'm', long, default_value_t = 1000)]
        messages: u64,
    },
    /// --clients in rooms of --members; every one publishes, its next message when it sees the one before
    Grid {
        #[command(flatten)]
        place: Place,
        /// Members of a room
        #[arg(long, default_value_t = 10)]
        members: usize,
        /// Messages that each member publishes
        #[arg(short = 'm', long, default_value_t = 5)]
        messages: u64,
    },
    /// All clients are connected, then all join one room at once
    Joins {
        #[command(flatten)]
        place: Place,
        /// The server pushes presence, as it does unless its configuration says otherwise
        #[arg(long)]
        presence: bool,
    },
    /// All members of a room are cut off, miss --messages, connect, and then recover all at once
    Recovery {
        #[command(flatten)]
        place: Place,
        /// Messages that are missed
        #[arg(short = 'm', long, default_value_t = 100)]
        messages: u64,
        /// The server pushes presence: what that costs is charged too
        #[arg(long)]
        presence: bool,
    },
}

/// Runs one of them.
pub async fn run(what: Rooms) -> Result<Report, String> {
    match what {
        Rooms::Fanout { place, messages, batch, floor } => {
            fanout::run(&Place { floor, ..place }, messages, batch).await
        }
        Rooms::Latency { place, messages } => latency::run(&place, messages).await,
        Rooms::Grid { place, members, messages } => grid::run(&place, members, messages).await,
        Rooms::Joins { place, presence } => joins::run(&place, presence).await,
        Rooms::Recovery { place, messages, presence } => recovery::run(&place, messages, presence).await,
    }
}
