//! Where Redis is, and how one of its servers is spoken to first.
use super::wire::{Frame, Inbox};
use crate::cluster::script::{Call, Reply, Script};
use crate::config::keys::LoadError;
use crate::config::{self, RedisServer, secret::Secret};
use crate::dial::{addresses, connect_any};
use crate::metrics::{Metrics, ShardMetrics};
use crate::outbox::wire::Stream;
use crate::tls::client;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Most look-ups of names at once, of all links.
const LOOKUPS_MAX: usize = 4;
/// How long connecting may take, over all addresses of a name.
const DIALED_FOR: Duration = Duration::from_secs(2);

/// How many shards there are, and how many of them reach all masters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    pub(super) all: usize,
    pub(super) reaching: usize,
}

impl Shards {
    /// Whether one of them, or more, does not reach all masters.
    pub fn are_cut_off(self) -> bool {
        self.reaching < self.all
    }
}

/// Where Redis is, and who we are there: what all links share. Made once.
pub struct Redis {
    pub(super) servers: Vec<RedisServer>,
    pub(super) sentinel_master: Option<Arc<str>>,
    tls: Option<TlsConnector>,
    user: Option<Arc<str>>,
    password: Option<Secret>,
    node: Arc<str>,
    lookups: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    shards: watch::Sender<Shards>,
}

impl Redis {
    /// Reads the authorities' certificates: not to be called on a shard's thread.
    ///
    /// # Errors
    /// Where they cannot be read, or the system has none.
    pub fn new(config: &config::Cluster, metrics: Arc<Metrics>) -> Result<Arc<Redis>, LoadError> {
        let tls = if config.tls { Some(TlsConnector::from(client::config(config.ca.as_deref(), None)?)) } else { None };
        Ok(Arc::new(Redis {
            servers: config.servers.clone(),
            sentinel_master: config.sentinel_master.clone(),
            tls,
            user: config.user.clone(),
            password: config.password.clone(),
            node: config.node.clone(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            metrics,
            shards: watch::Sender::default(),
        }))
    }

    /// Waits until so many shards reach all masters.
    pub async fn reached_by(&self, shards: usize) {
        // It fails only where the sender is gone.
        let _ = self.shards().wait_for(|now| now.reaching >= shards).await;
    }

    /// How the shards do, to be looked at and waited for. It may be half a second old.
    pub fn shards(&self) -> watch::Receiver<Shards> {
        self.shards.subscribe()
    }

    /// Something has changed with one of them.
    pub(super) fn shard_changed(&self, change: impl FnOnce(&mut Shards)) {
        self.shards.send_modify(change);
    }

    pub(super) fn counters(&self, shard: Option<usize>) -> &ShardMetrics {
        shard.map_or_else(|| self.metrics.elsewhere(), |shard| self.metrics.shard(shard))
    }

    /// Connects to a server, and makes itself known there. Has no time of its own. `sentinel`: it is asked as a Sentinel:
    /// those have users of their own, mostly none, so that one which refuses ours is greeted without it.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) async fn greet(&self, server: &RedisServer, sentinel: bool) -> Result<(Talk, Greeting), Fault> {
        let mut talk = self.dial(server).await?;
        let mut words: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &self.password {
            let user = self.user.as_deref().unwrap_or("default");
            words.extend([b"AUTH", user.as_bytes(), password.expose()]);
        }
        let answer = match talk.ask(&words).await {
            Err(Fault::Refused(_)) if sentinel && self.password.is_some() => talk.ask(&words[..2]).await?,
            answer => answer?,
        };
        let greeting = Greeting::read(&answer).ok_or(Fault::Wrong("HELLO was answered with something else"))?;
        Ok((talk, greeting))
    }

    async fn dial(&self, server: &RedisServer) -> Result<Talk, Fault> {
        let name = ServerName::try_from(server.host.to_string());
        let tls = match (&self.tls, &name) {
            (None, _) => None,
            (Some(connector), Ok(name)) => Some((connector, name)),
            (Some(_), Err(_)) => return Err(Fault::Wrong("a name that no certificate can have")),
        };
        let addresses = addresses(&self.lookups, &server.host, server.port).await?;
        let stream = connect_any(&addresses, tls, Instant::now() + DIALED_FOR).await?;
        Ok(Talk { stream, inbox: Inbox::default() })
    }

    /// A connection to a master, on which calls can be made. Has no time of its own.
    ///
    /// # Errors
    /// [`Fault`]; also where it is no master, or a part of a cluster that is down.
    pub(super) async fn enter(&self, server: &RedisServer, scripts: &[&Script]) -> Result<Talk, Fault> {
        let (mut talk, greeting) = self.greet(server, false).await?;
        match greeting {
            Greeting::Master => {}
            Greeting::Cluster { replica: false } => talk.expect_cluster_up().await?,
            Greeting::Replica | Greeting::Cluster { replica: true } => return Err(Fault::Wrong("it is a replica")),
            Greeting::Sentinel => return Err(Fault::Wrong("it is a Sentinel")),
        }
        // Only a name for the operator's CLIENT LIST: a user may not be allowed to, or the name not be one of Redis'.
        match talk.ask(&[b"CLIENT", b"SETNAME", format!("wsgate-{}", self.node).as_bytes()]).await {
            Ok(_) | Err(Fault::Refused(_)) => {}
            Err(fault) => return Err(fault),
        }
        for script in scripts {
            let sha = talk.ask(&[b"SCRIPT", b"LOAD", script.source.as_bytes()]).await?;
            if sha.text() != Some(script.sha()) {
                return Err(Fault::Wrong("a script got another name than its own"));
            }
        }
        Ok(talk)
    }
}

/// Why a server is not used.
#[derive(Debug)]
pub enum Fault {
    /// The connection cannot be made, has ended, or brought what is no RESP3.
    Lost(io::Error),
    /// It refuses something that it was asked.
    Refused(Box<str>),
    /// It is not what is wanted.
    Wrong(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Lost(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Lost(error) => error.fmt(f),
            Fault::Refused(error) => f.write_str(error),
            Fault::Wrong(what) => f.write_str(what),
        }
    }
}

/// What a server says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// A server that is no replica.
    Master,
    /// A replica of one.
    Replica,
    /// A part of a Redis Cluster.
    Cluster {
        /// Whether it is a replica.
        replica: bool,
    },
    /// A Sentinel.
    Sentinel,
}

impl Greeting {
    fn read(answer: &Reply) -> Option<Greeting> {
        let field = |name: &str| {
            let pair = answer.list()?.chunks(2).find(|pair| pair[0].text() == Some(name))?;
            pair.get(1)?.text()
        };
        Some(match (field("mode")?, field("role")) {
            ("sentinel", _) => Greeting::Sentinel,
            ("cluster", role) => Greeting::Cluster { replica: role? != "master" },
            (_, Some("replica" | "slave")) => Greeting::Replica,
            (_, Some("master")) => Greeting::Master,
            (_, _) => return None,
        })
    }
}

/// A connection that is asked one thing after another.
pub struct Talk {
    pub(super) stream: Stream,
    pub(super) inbox: Inbox,
}

impl Talk {
    /// A part of a cluster that is down may have an old map of slots, and serves nobody.
    ///
    /// # Errors
    /// [`Fault`], also where the cluster is down.
    pub(super) async fn expect_cluster_up(&mut self) -> Result<(), Fault> {
        let info = self.ask(&[b"CLUSTER", b"INFO"]).await?;
        let is_up = info.text().is_some_and(|info| info.contains("cluster_state:ok"));
        if is_up { Ok(()) } else { Err(Fault::Wrong("the cluster is down")) }
    }

    /// Asks, and waits for the answer. What nobody asked for is passed over.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) async fn ask(&mut self, words: &[&[u8]]) -> Result<Reply, Fault> {
        let call = Call::command(b"", words);
        self.stream.write_all(&call.bytes).await?;
        self.stream.flush().await?;
        loop {
            match self.inbox.next().map_err(io::Error::from)? {
                Some(Frame::Reply(reply)) => return Ok(reply),
                Some(Frame::Error(error)) => return Err(Fault::Refused(said(&error))),
                Some(Frame::Message { .. } | Frame::Subscribed | Frame::Unsubscribed(_) | Frame::Other) => {}
                None => {
                    let (inbox, stream) = (&mut self.inbox, &mut self.stream);
                    if poll_fn(|cx| inbox.poll_fill(stream, cx)).await? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                }
            }
        }
    }
}

/// An error of Redis as it may be shown: one short line, without what was sent.
pub(super) fn said(error: &str) -> Box<str> {
    const CHARACTERS_MAX: usize = 200;
    let line = error.lines().next().unwrap_or_default();
    let line = line.split(", with args beginning with").next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(CHARACTERS_MAX).collect::<String>().into()
}
