//! Builds the parts from the configuration, runs them, reloads, and drains: wiring only.
mod banner;
mod cluster;
mod reload;
mod signals;
mod thread;

use crate::admin::{self, Interface};
use crate::admission::{Gate, token};
use crate::bans::Bans;
use crate::cluster::Redis;
use crate::config::{self, Config, KeySource, Listener};
use crate::health::{Health, STALE_AFTER};
use crate::hook::Hook;
use crate::limits::Limiter;
use crate::listen::{Acceptor, Bound, Intake, Sockets, bind};
use crate::metrics::Metrics;
use crate::notify::{Notifier, watchdog_period};
use crate::rooms::desk::Desk;
use crate::rooms::{self, Clustered, Shared};
use crate::store::{Store, StoreError};
use crate::tls::{self, ALPN_HTTP1, ALPN_HTTP2, LoadError, Tls};
use crate::upstream::{self, Upstreams};
use signals::Signals;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use thread::{Running, ShardParts};
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How often tables forget those who hold nothing.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// What sessions have beyond the drain's window, for their last Close.
const GRACE: Duration = Duration::from_secs(5);
/// Servers that a shard may be behind with, when it is told whose sessions are to be closed.
const LOST_SERVERS: usize = 64;

/// The parts that the main thread keeps.
struct Parts {
    config: Arc<Config>,
    /// The file that it was read from.
    path: PathBuf,
    gate: Arc<Gate>,
    tls: Vec<Option<Arc<Tls>>>,
    limiter: Arc<Limiter>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    draining: Arc<AtomicBool>,
    lasting: Lasting,
    hook: Option<Arc<Hook>>,
    upstreams: Arc<Upstreams>,
    /// The other nodes, where there may be some.
    cluster: Option<Clustered>,
    /// Notified where the gateway is to stop.
    drain: Arc<Notify>,
}

/// What is built before the other nodes are looked for.
struct Early {
    config: Arc<Config>,
    tls: Vec<Option<Arc<Tls>>>,
    limiter: Arc<Limiter>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    hook: Option<Arc<Hook>>,
    upstreams: Arc<Upstreams>,
    redis: Option<Arc<Redis>>,
    drain: Arc<Notify>,
}

/// Runs the gateway until a signal ends it. `config` was read from `path`, which SIGHUP has read again.
///
/// # Errors
/// What kept it from starting, or that a shard has died, in words for the operator.
pub fn run(config: Config, path: &Path, program: &str) -> Result<(), String> {
    raise_descriptor_limit(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start the runtime: {e}"))?;
    let served = runtime.block_on(serve(Arc::new(config), path, program));
    // A reload whose disk hangs must not hold up the end.
    runtime.shutdown_background();
    served
}

/// Takes all the descriptors that the system allows: the soft limit is a default for programs that
/// cannot handle many, and each connection is one, or two where it is relayed.
fn raise_descriptor_limit(config: &Config) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < config.server.max_connections as u64 => {
            tracing::warn!(
                limit,
                max_connections = config.server.max_connections,
                "fewer descriptors than connections"
            );
        }
        Ok(_) => (),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of descriptors"),
    }
}

async fn serve(config: Arc<Config>, path: &Path, program: &str) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|e| format!("cannot take signals: {e}"))?;
    make_missing_files(&config)?;
    let admin = bind_admin(&config).await?;
    let early = Early::new(config)?;
    let mut serving = JoinSet::new();
    // Health is answered for as long as Redis is waited for.
    let interface = early.config.admin.as_ref().map(Interface::new);
    if let Some((listener, interface)) = admin.zip(interface.clone()) {
        serving.spawn(admin::serve(listener, interface));
    }
    let cluster = tokio::select! {
        joined = early.join(&mut serving) => joined?,
        () = signals.stop.next() => return Ok(()),
    };
    let mut begun = tokio::select! {
        begun = begin(early, cluster.clone(), path) => begun.map(Some),
        () = signals.stop.next() => Ok(None),
    };
    let served = match &mut begun {
        Ok(Some((parts, bound))) => {
            let bound = std::mem::take(bound);
            parts.serve(bound, interface, &mut signals, &mut serving, program).await
        }
        Ok(None) => Ok(Served::CutShort),
        Err(error) => Err(error.clone()),
    };
    if let Some(Clustered { nodes, .. }) = cluster {
        nodes.leave(cluster::LEAVE_TIMEOUT).await;
    }
    match served? {
        Served::CutShort => return Ok(()),
        Served::ToTheEnd => (),
    }
    if let Some(hook) = begun?.as_ref().and_then(|(parts, _)| parts.hook.as_ref()) {
        tokio::select! {
            _ = hook.flush(Instant::now() + GRACE) => (),
            () = signals.stop.next() => tracing::warn!("stopped at once by a second signal"),
        }
    }
    Ok(())
}

/// Listens, and makes the parts.
async fn begin(early: Early, cluster: Option<Clustered>, path: &Path) -> Result<(Parts, Vec<Bound>), String> {
    // Not while this node waits for Redis or for its name: who comes would wait too, instead of going to another node.
    let bound = bind(&early.config)?;
    // After what fails most often: the store is closed again where anything fails, but opening it takes its time.
    let parts = Parts::new(early, cluster, path).await?;
    Ok((parts, bound))
}

/// How serving ended, where it did not fail.
enum Served {
    ToTheEnd,
    /// By a second signal.
    CutShort,
}

/// What lasts. The store is closed by Drop, in whatever way the gateway ends: it waits for that, up to 5 s.
struct Lasting {
    /// There where the rules ask for it.
    store: Option<Store>,
    /// They open it when there is one, and for the first ban: no folder is needed while nothing is to be kept.
    bans: Arc<Bans>,
}

impl Lasting {
    /// Where there are other nodes, what lasts is in Redis.
    async fn open(config: &Config, cluster: Option<&Clustered>) -> Result<Lasting, String> {
        if let Some(Clustered { config: cluster, nodes, .. }) = cluster {
            let bans = Bans::of_nodes(nodes.clone(), &cluster.prefix, &config.namespaces).await;
            return Ok(Lasting { store: None, bans: bans.map_err(|e| format!("cannot read the bans: {e}"))? });
        }
        let (rooms, folder) = (&config.rooms, config.rooms.store.clone());
        let durable = rooms.rules.durable || rooms.policies.iter().any(|policy| policy.rules.durable);
        let open = || -> Result<Lasting, StoreError> {
            let store = durable.then(|| Store::open(&folder)).transpose()?;
            Ok(Lasting { bans: Bans::load(folder.clone(), store.clone(), &config.namespaces)?, store })
        };
        open().map_err(|e| e.to_string())
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.bans.close();
    }
}

/// What `serve` would miss of the files that the configuration names: keys and certificates that cannot be
/// read or do not fit. What `serve` makes itself is not missed.
pub fn missing_files(config: &Config) -> Vec<String> {
    let mut missing = Vec::new();
    let made = matches!(&config.auth.key, Some(KeySource::SecretFile { path, generate: true }) if !path.exists());
    if !made && let Err(error) = token::Keyring::load(&config.auth) {
        missing.push(error.to_string());
    }
    missing.extend(config.cluster.as_ref().and_then(|cluster| reach(cluster, Metrics::new(0)).err()));
    missing.extend(config.upstreams.iter().filter_map(|u| upstream::trust(u).err()).map(|error| error.to_string()));
    for listener in config.listeners.iter().filter(|l| !l.tls.is_empty()) {
        let made = listener.tls.iter().any(|c| c.generate && !c.certificate.exists() && !c.private_key.exists());
        if !made && let Err(error) = load_tls(listener) {
            missing.push(error.to_string());
        }
    }
    missing
}

/// `None` for a listener of plain HTTP.
fn load_tls(listener: &Listener) -> Result<Option<Tls>, LoadError> {
    if listener.tls.is_empty() {
        return Ok(None);
    }
    let alpn: &[&[u8]] = if listener.http2 { &[ALPN_HTTP2, ALPN_HTTP1] } else { &[ALPN_HTTP1] };
    Tls::load_with(&listener.tls, alpn, listener.client_ca.as_deref()).map(Some)
}

fn make_missing_files(config: &Config) -> Result<(), String> {
    if let Some(KeySource::SecretFile { path, generate: true }) = &config.auth.key
        && token::ensure_secret(path).map_err(|e| e.to_string())?
    {
        tracing::info!(path = %path.display(), "made a secret for tokens");
    }
    for certificate in config.listeners.iter().flat_map(|l| &l.tls) {
        if tls::generate(certificate).map_err(|e| e.to_string())? {
            tracing::info!(path = %certificate.certificate.display(), "made a certificate for localhost");
        }
    }
    Ok(())
}

impl Early {
    fn new(config: Arc<Config>) -> Result<Early, String> {
        let metrics = Metrics::new(config.server.shards);
        let hook = config.rooms.hook.as_ref().map(|hook| Hook::new(hook, metrics.clone())).transpose()?;
        let upstreams = Upstreams::new(&config.upstreams);
        let levels = upstreams.clone();
        metrics.read_servers(move || levels.server_levels());
        if let Some(error) = upstreams.reload(&config.upstreams).first() {
            return Err(error.to_string());
        }
        let load = |listener| load_tls(listener).map(|tls| tls.map(Arc::new)).map_err(|e| e.to_string());
        Ok(Early {
            tls: config.listeners.iter().map(load).collect::<Result<_, _>>()?,
            limiter: Limiter::of(&config),
            health: Arc::new(Health::new(config.server.shards, Instant::now())),
            redis: config.cluster.as_ref().map(|cluster| reach(cluster, metrics.clone())).transpose()?,
            metrics,
            hook,
            upstreams,
            drain: Arc::default(),
            config,
        })
    }
}

impl Parts {
    async fn new(early: Early, cluster: Option<Clustered>, path: &Path) -> Result<Parts, String> {
        let Early { config, tls, limiter, metrics, health, hook, upstreams, redis: _, drain } = early;
        let lasting = Lasting::open(&config, cluster.as_ref()).await?;
        let gate = Gate::new(config.clone(), limiter.clone(), lasting.bans.clone()).map_err(|e| e.to_string())?;
        Ok(Parts {
            gate: Arc::new(gate),
            draining: Arc::default(),
            path: path.to_owned(),
            lasting,
            cluster,
            config,
            tls,
            limiter,
            metrics,
            health,
            hook,
            upstreams,
            drain,
        })
    }

    /// Serves until the gateway is told to stop, and until the last session has ended.
    async fn serve(
        &self,
        bound: Vec<Bound>,
        interface: Option<Arc<Interface>>,
        signals: &mut Signals,
        serving: &mut JoinSet<()>,
        program: &str,
    ) -> Result<Served, String> {
        let notifier = Notifier::from_env();
        let (mut shards, intakes, shared) = self.start_shards()?;
        let desk = Desk::new(shared.clone());
        let sharing = async {
            self.share(&desk, &shared, serving).await;
            self.shards_reach().await;
        };
        let stopped = tokio::select! {
            () = sharing => false,
            () = signals.stop.next() => true,
        };
        let mut accepting = JoinSet::new();
        if !stopped {
            let addresses: Vec<(usize, String)> = bound.iter().map(|b| (b.listener, b.address.clone())).collect();
            announce(&self.config, &addresses);
            let acceptor = Acceptor::new(self.gate.clone(), self.metrics.clone(), intakes.clone());
            accepting = accept(Arc::new(acceptor), bound);
            if let Some((interface, state)) = interface.zip(self.admin_state(desk)) {
                interface.open(state);
            }
            self.spawn(&intakes, shared, &notifier, serving);
            self.health.set_ready();
            self.say_phase();
            banner::print(&self.config, &addresses, program);
            notifier.ready(cluster::status(self.nodes()));
            self.until_stopped(signals, &mut shards, &notifier).await?;
        }
        tracing::info!(window_s = self.config.server.drain.as_secs_f64(), "stopping");
        notifier.stopping("closing sessions");
        self.health.set_draining();
        self.say_phase();
        self.draining.store(true, Relaxed);
        accepting.abort_all();
        for intake in intakes {
            // Each for itself: a stuck shard whose queue is full must not keep the others from hearing it.
            let window = self.config.server.drain;
            serving.spawn(async move { intake.drain(window).await });
        }
        tokio::select! {
            ended = timeout(self.config.server.drain + GRACE, shards.all_ended()) => {
                match ended {
                    Ok(()) => tracing::info!("stopped"),
                    Err(_) => tracing::warn!("stopped with sessions that did not end in time"),
                }
                Ok(Served::ToTheEnd)
            }
            () = signals.stop.next() => {
                tracing::warn!("stopped at once by a second signal");
                Ok(Served::CutShort)
            }
        }
    }

    /// What goes on beside the shards.
    fn spawn(&self, intakes: &[Intake], rooms: Shared, notifier: &Notifier, serving: &mut JoinSet<()>) {
        serving.spawn(sweep(self.limiter.clone(), self.lasting.bans.clone(), rooms));
        if let Some(hook) = self.hook.clone() {
            serving.spawn(hook.run());
        }
        let (gate, metrics) = (self.gate.clone(), self.metrics.clone());
        serving.spawn(async move { gate.fetch_keys(&metrics).await });
        let (lost, _) = broadcast::channel(LOST_SERVERS);
        for intake in intakes {
            serving.spawn(lose(lost.subscribe(), intake.clone()));
        }
        serving.spawn(self.upstreams.clone().run(lost));
        if let Some(period) = watchdog_period() {
            let (health, notifier) = (self.health.clone(), notifier.clone());
            serving.spawn(async move { notifier.watch(period, &health).await });
        }
        if let Some(nodes) = self.nodes().cloned() {
            serving.spawn(cluster::tell_standing(nodes, self.health.clone(), notifier.clone()));
        }
    }

    fn say_phase(&self) {
        if let Some(nodes) = self.nodes() {
            nodes.about_changed();
        }
    }

    /// Reloads as often as it is told to.
    async fn until_stopped(
        &self,
        signals: &mut Signals,
        shards: &mut Running,
        notifier: &Notifier,
    ) -> Result<(), String> {
        loop {
            tokio::select! {
                () = signals.stop.next() => return Ok(()),
                () = self.drain.notified() => return Ok(()),
                _ = signals.reload.recv() => (),
                died = shards.next_end() => return Err(died),
            }
            notifier.reloading();
            tokio::select! {
                () = self.reload() => notifier.ready(cluster::status(self.nodes())),
                () = signals.stop.next() => return Ok(()),
                () = self.drain.notified() => return Ok(()),
                died = shards.next_end() => return Err(died),
            }
        }
    }

    fn start_shards(&self) -> Result<(Running, Vec<Intake>, Shared), String> {
        let config = &self.config;
        let made_of = rooms::Parts {
            rules: Arc::new(config.rooms.clone()),
            namespaces: config.namespaces.clone().into(),
            bans: self.lasting.bans.clone(),
            hook: self.hook.clone(),
            store: self.lasting.store.clone(),
            cluster: self.cluster.clone(),
        };
        let (shared, inboxes) = Shared::new(config.server.shards, made_of);
        let timeouts = config.listeners.iter().map(|l| l.header_timeout);
        let sockets = Arc::new(Sockets(self.tls.iter().cloned().zip(timeouts).collect()));
        let ending = Arc::new(Barrier::new(config.server.shards));
        let parts = inboxes.into_iter().enumerate().map(|(index, inbox)| ShardParts {
            index,
            gate: self.gate.clone(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            draining: self.draining.clone(),
            upstreams: self.upstreams.clone(),
            sockets: sockets.clone(),
            shared: shared.clone(),
            inbox,
            ending: ending.clone(),
        });
        let (running, intakes) = Running::start(parts.collect())?;
        Ok((running, intakes, shared))
    }

    fn admin_state(&self, desk: Desk) -> Option<Arc<admin::State>> {
        let (admin, config) = (self.config.admin.clone()?, self.config.clone());
        let (metrics, health, bans) = (self.metrics.clone(), self.health.clone(), self.lasting.bans.clone());
        let state = admin::State::new(admin, config, metrics, health, desk, bans, self.upstreams.clone());
        Some(Arc::new(admin::State { drain: self.drain.clone(), nodes: self.nodes().cloned(), ..state }))
    }
}

fn reach(cluster: &config::Cluster, metrics: Arc<Metrics>) -> Result<Arc<Redis>, String> {
    Redis::new(cluster, metrics).map_err(|e| e.to_string())
}

async fn bind_admin(config: &Config) -> Result<Option<TcpListener>, String> {
    let Some(admin) = &config.admin else { return Ok(None) };
    let listener =
        TcpListener::bind(admin.address).await.map_err(|e| format!("cannot listen on {}: {e}", admin.address))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    tracing::info!(%address, listener = "admin", "listening");
    Ok(Some(listener))
}

fn announce(config: &Config, addresses: &[(usize, String)]) {
    for (listener, address) in addresses {
        tracing::info!(%address, listener, tls = !config.listeners[*listener].tls.is_empty(), "listening");
    }
}

fn accept(acceptor: Arc<Acceptor>, bound: Vec<Bound>) -> JoinSet<()> {
    let mut accepting = JoinSet::new();
    for bound in bound {
        let acceptor = acceptor.clone();
        accepting.spawn(async move { acceptor.run(bound).await });
    }
    accepting
}

/// Tells a shard of servers whose sessions are to be closed. Each for itself: one whose queue is full must not keep the
/// others from hearing it.
async fn lose(mut servers: broadcast::Receiver<u64>, shard: Intake) {
    loop {
        match servers.recv().await {
            Ok(server) => shard.lose(server).await,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "a shard was not told of servers that are unhealthy: their sessions stay");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn sweep(limiter: Arc<Limiter>, bans: Arc<Bans>, rooms: Shared) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        limiter.sweep();
        rooms.sweep();
        bans.sweep();
    }
}

/// A shard that has not been heard of for so long is stuck.
const _: () = assert!(STALE_AFTER.as_secs() >= 2);
