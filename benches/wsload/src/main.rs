//! A load generator for WebSocket servers and gateways.
//!
//! It drives any server that speaks RFC 6455, so the same binary measures this
//! project and its peers in one run. Beside throughput and latency it charges
//! the CPU time and memory of the server's processes (`--pids`), which stay
//! comparable when the machine is noisy or the client is the bottleneck.
mod conn;
mod echo;
mod fanout;
mod floor;
mod frame;
mod handshake;
mod idle;
mod phase;
mod post;
mod proc;
mod report;
mod requests;
mod rooms;
mod tls;

use clap::{Args, Parser, Subcommand};
use conn::{Conn, Opening, Target};
use report::Report;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "Load generator for WebSocket servers", version)]
struct Cli {
    /// Print one JSON object instead of a line of key=value
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    cmd: Cmd,
}

#[derive(Args, Clone)]
struct Common {
    /// ws:// or wss:// address (certificates are not verified)
    url: String,
    /// Extra request header, `Name: value`; `{i}` becomes the connection's number, `{i/10}` a tenth of it
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Text message sent right after the handshake; `{i}` as above; may repeat
    #[arg(long = "init")]
    init: Vec<String>,
    /// Wait for this many messages from the server after the init messages
    #[arg(long, default_value_t = 0)]
    init_replies: usize,
    /// Wait for a message that contains this text after the init messages
    #[arg(long)]
    init_until: Option<String>,
    /// Connections
    #[arg(short = 'c', long, default_value_t = 100)]
    conns: usize,
    /// Seconds measured
    #[arg(short = 'd', long, default_value_t = 5.0)]
    secs: f64,
    /// Processes whose CPU time and memory are charged; children are added
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Bind connection i to 127.0.0.(2 + i / 20000) to get past the port limit
    #[arg(long)]
    spread: bool,
}

impl Common {
    fn opening(&self) -> Opening {
        Opening {
            headers: self.headers.clone(),
            init: self.init.clone(),
            init_replies: self.init_replies,
            init_until: self.init_until.clone(),
            spread: self.spread,
        }
    }

    fn secs(&self) -> Duration {
        Duration::from_secs_f64(self.secs)
    }
}

#[derive(Subcommand)]
enum Cmd {
    /// Every connection sends a message and waits for its echo
    Echo {
        #[command(flatten)]
        common: Common,
        /// Payload bytes
        #[arg(short = 's', long, default_value_t = 64)]
        size: usize,
        /// Messages in flight on each connection
        #[arg(short = 'w', long, default_value_t = 1)]
        window: usize,
    },
    /// One publisher, many subscribers; counts deliveries
    Fanout {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        publish: fanout::Publish,
    },
    /// Opens connections, lets them rest, prints the server's memory for each
    Idle {
        #[command(flatten)]
        common: Common,
    },
    /// Rooms in the gateway's own protocol: a fixed amount of work, every delivery checked
    Rooms {
        #[command(subcommand)]
        what: rooms::Rooms,
    },
    /// Every connection asks for the path by GET, again when the answer has come
    Requests {
        #[command(flatten)]
        common: Common,
        /// Bytes that the body must have
        #[arg(short = 's', long, default_value_t = floor::BODY.len())]
        size: usize,
    },
    /// Serves: the least work a one-thread server can do, as the limit to compare with
    Floor {
        port: u16,
        /// Relay to this address instead, HOST:PORT
        #[arg(long)]
        relay: Option<String>,
    },
    /// Opens and closes connections, --conns at a time
    Handshake {
        #[command(flatten)]
        common: Common,
        /// Resume TLS sessions
        #[arg(long)]
        resume: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.cmd) {
        Ok(report) => {
            println!("{}", report.line(cli.json));
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("wsload: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(cmd: Cmd) -> Result<Report, String> {
    proc::raise_fd_limit();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    rt.block_on(async {
        match cmd {
            Cmd::Echo { common, size, window } => echo::run(common, size, window).await,
            Cmd::Fanout { common, publish } => fanout::run(common, publish).await,
            Cmd::Rooms { what } => rooms::run(what).await,
            Cmd::Idle { common } => idle::run(common).await,
            Cmd::Requests { common, size } => requests::run(common, size).await,
            Cmd::Floor { port, relay } => {
                floor::serve(port, relay).map(|()| Report::default()).map_err(|e| e.to_string())
            }
            Cmd::Handshake { common, resume } => handshake::run(common, resume).await,
        }
    })
}

/// Opens all connections, 64 at a time, and hands each with its number to `f` when it is open.
async fn open_all(c: &Common, target: &Target, mut f: impl FnMut(usize, Conn)) -> Result<(), String> {
    let opening = c.opening();
    for first in (0..c.conns).step_by(64) {
        let mut set = tokio::task::JoinSet::new();
        for k in first..c.conns.min(first + 64) {
            let (target, opening) = (target.clone(), opening.clone());
            set.spawn(async move { Conn::open(&target, k, &opening).await.map(|conn| (k, conn)) });
        }
        while let Some(r) = set.join_next().await {
            let (k, conn) = r.map_err(|e| e.to_string())??;
            f(k, conn);
        }
    }
    Ok(())
}
