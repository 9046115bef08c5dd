//! One publisher, many subscribers; counts deliveries.
use crate::conn::{Conn, Target};
use crate::post::Poster;
use crate::report::{Report, histogram};
use crate::{Common, frame, open_all, proc};
use clap::Args;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many subscribers are watched for the window and for the times.
const SAMPLED: usize = 8;

/// How the publisher publishes.
#[derive(Args)]
pub struct Publish {
    /// Text published; `{t}` becomes the send time, by which published
    /// messages are told from others, `{n}` a counter, `{pad}` padding up to --size bytes
    #[arg(long, default_value = "{t}{pad}")]
    message: String,
    /// Bytes of the whole published text
    #[arg(short = 's', long, default_value_t = 64)]
    size: usize,
    /// Messages published a second; 0 keeps the server saturated
    #[arg(short = 'r', long, default_value_t = 0.0)]
    rate: f64,
    /// When saturating: publishes in flight (not yet seen by the slowest of 8 sampled subscribers)
    #[arg(short = 'w', long, default_value_t = 4)]
    window: u64,
    /// Publish by HTTP POST to this http:// address instead of the socket
    #[arg(long)]
    post: Option<String>,
    /// Connect the publisher here instead of at the subscribers' address
    #[arg(long)]
    pub_url: Option<String>,
    /// Init messages of the publisher (default: those of the subscribers)
    #[arg(long)]
    pub_init: Vec<String>,
}

/// What the tasks share.
struct Shared {
    epoch: Instant,
    measured: AtomicBool,
    published: AtomicU64,
    /// Published messages that arrived, and the bytes of their payloads.
    delivered: AtomicU64,
    delivered_bytes: AtomicU64,
    /// Messages that are not the publisher's: answers, presence.
    others: AtomicU64,
    lost: AtomicU64,
    /// For each sampled subscriber, the published messages that it saw.
    seen: Vec<AtomicU64>,
    times: Mutex<Histogram<u64>>,
}

impl Shared {
    fn micros(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    fn counts(&self) -> [u64; 4] {
        [&self.delivered, &self.delivered_bytes, &self.others, &self.published].map(|n| n.load(Relaxed))
    }

    fn arrived(&self, payload: &[u8], sample: Option<usize>) {
        let Some(sent) = frame::find_time(payload) else {
            self.others.fetch_add(1, Relaxed);
            return;
        };
        self.delivered.fetch_add(1, Relaxed);
        self.delivered_bytes.fetch_add(payload.len() as u64, Relaxed);
        let Some(k) = sample else { return };
        self.seen[k].fetch_add(1, Relaxed);
        if self.measured.load(Relaxed) {
            let micros = self.micros().saturating_sub(sent).max(1);
            self.times.lock().unwrap_or_else(PoisonError::into_inner).record(micros).ok();
        }
    }
}

/// Measures deliveries; the first second is not counted.
pub async fn run(c: Common, publish: Publish) -> Result<Report, String> {
    let target = Target::new(&c.url, true)?;
    let sampled = SAMPLED.min(c.conns);
    let shared = Arc::new(Shared {
        epoch: Instant::now(),
        measured: AtomicBool::new(false),
        published: AtomicU64::new(0),
        delivered: AtomicU64::new(0),
        delivered_bytes: AtomicU64::new(0),
        others: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        seen: (0..sampled).map(|_| AtomicU64::new(0)).collect(),
        times: Mutex::new(histogram()),
    });
    // Sampled evenly, the first and the last among them.
    let last = c.conns.saturating_sub(1);
    let samples: Vec<usize> = (0..sampled).map(|k| k * last / (sampled - 1).max(1)).collect();
    open_all(&c, &target, |i, conn| {
        tokio::spawn(subscribe(conn, shared.clone(), samples.binary_search(&i).ok()));
    })
    .await?;
    let sender = Sender::open(&c, &publish).await?;
    tokio::spawn(publish_all(sender, publish, shared.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (cpu0, before) = (proc::cpu(&c.pids), shared.counts());
    shared.measured.store(true, Relaxed);
    let t0 = Instant::now();
    tokio::time::sleep(c.secs()).await;
    shared.measured.store(false, Relaxed);
    let (secs, cpu) = (t0.elapsed().as_secs_f64(), proc::cpu(&c.pids) - cpu0);
    let after = shared.counts();
    let [delivered, bytes, others, published] = std::array::from_fn(|k| after[k] - before[k]);
    let times = shared.times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Report::default()
        .count("published", published)
        .count("lost_connections", shared.lost.load(Relaxed))
        .count("others", others)
        .number("payload_bytes", bytes as f64 / delivered as f64, 1)
        .work("deliveries", delivered, secs, cpu)
        .times(&times))
}

async fn subscribe(mut conn: Conn, shared: Arc<Shared>, sample: Option<usize>) {
    while conn.read_messages(|payload| shared.arrived(payload, sample)).await.is_ok() {}
    shared.lost.fetch_add(1, Relaxed);
}

/// The publisher's connection.
enum Sender {
    Post(Poster),
    Socket(Conn),
}

impl Sender {
    async fn open(c: &Common, publish: &Publish) -> Result<Sender, String> {
        if let Some(url) = &publish.post {
            return Ok(Sender::Post(Poster::open(url).await?));
        }
        let target = Target::new(publish.pub_url.as_ref().unwrap_or(&c.url), true)?;
        let mut opening = c.opening();
        opening.spread = false;
        if !publish.pub_init.is_empty() {
            opening.init.clone_from(&publish.pub_init);
        }
        let mut conn = Conn::open(&target, 999_999, &opening).await?;
        conn.drain_in_background();
        Ok(Sender::Socket(conn))
    }

    async fn send(&mut self, text: &str) -> Result<(), String> {
        match self {
            Sender::Post(poster) => poster.post(text).await,
            Sender::Socket(conn) => conn.write(&frame::client_frame(1, text.as_bytes())).await,
        }
    }
}

async fn publish_all(mut sender: Sender, publish: Publish, shared: Arc<Shared>) {
    let started = Instant::now();
    let mut n = 0u64;
    loop {
        let (due, pause) = if publish.rate > 0.0 {
            ((started.elapsed().as_secs_f64() * publish.rate) as u64, 200)
        } else {
            let slowest = shared.seen.iter().map(|s| s.load(Relaxed)).min().unwrap_or(0);
            (slowest + publish.window, 20)
        };
        if n >= due {
            tokio::time::sleep(Duration::from_micros(pause)).await;
            continue;
        }
        let text = frame::fill(&publish.message, shared.micros(), n, publish.size);
        if let Err(e) = sender.send(&text).await {
            eprintln!("wsload: publisher stopped: {e}");
            return;
        }
        n += 1;
        shared.published.store(n, Relaxed);
    }
}
