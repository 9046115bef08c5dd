//! Statuses that nodes share. What a client says to one node the others are told, and Redis keeps, so that a node that has
//! just started knows it before the client comes. Every node knows all of them: in Redis they are touched by nodes with
//! sessions of the client, and everything there is read again now and then, and whenever Redis is reached anew.
use super::{CLIENTS_MAX, Said};
use crate::cluster::nodes::Topic;
use crate::cluster::{Call, Nodes, Script, Trouble};
use crate::config::Namespace;
use crate::identity::is_client;
use crate::rooms::Shared;
use crate::rooms::protocol::{Status, is_status};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// How often statuses in Redis are touched, and read.
const TOUCH_EVERY: Duration = Duration::from_secs(300);
/// How long a status that is not touched stays in Redis.
const KEPT_SECONDS: u64 = 900;
/// Statuses that are written, told or read at once.
const BATCH: usize = 256;
/// How long Redis is tried at the start.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two tries.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// How long Redis has to take more again.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes statuses (from ARGV[3] on: client, version, and the rest) that are no older than what stands there. ARGV[1]: at most
/// so many; ARGV[2]: all are gone after so many seconds.
pub static SAY: Script = Script::new(
    r"
local now = redis.call('TIME')[1]
for i = 3, #ARGV, 3 do
  local before = redis.call('HGET', KEYS[1], ARGV[i])
  local known = before and tonumber(string.match(before, '^%d+ (%d+) '))
  local write
  if before then
    write = known == nil or tonumber(ARGV[i + 1]) >= known
  else
    write = redis.call('HLEN', KEYS[1]) < tonumber(ARGV[1])
  end
  if write then
    redis.call('HSET', KEYS[1], ARGV[i], now .. ' ' .. ARGV[i + 1] .. ' ' .. ARGV[i + 2])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2] .. '000')
return 1
",
);

/// A page of statuses from the cursor ARGV[1] on; those that nobody has touched for ARGV[2] seconds are deleted.
pub static READ: Script = Script::new(
    r"
local since = redis.call('TIME')[1] - ARGV[2]
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[3])
local said = {}
for i = 1, #page[2], 2 do
  local at = tonumber(string.match(page[2][i + 1], '^(%d+) '))
  if at and at >= since then
    said[#said + 1] = page[2][i]
    said[#said + 1] = page[2][i + 1]
  else
    redis.call('HDEL', KEYS[1], page[2][i])
  end
end
return {page[1], said}
",
);

/// What the other nodes, and Redis, are still to be told.
pub(in crate::rooms) struct Sharing {
    nodes: Arc<Nodes>,
    prefix: Arc<str>,
    untold: Mutex<Untold>,
    /// Something is untold.
    wake: Notify,
    reached: Arc<Notify>,
}

type OfClient = (Arc<str>, Arc<Said>);
type Untold = HashMap<(Namespace, Arc<str>), Arc<Said>>;

/// As nodes are told: a namespace, a client, and what it has said.
type Line = (Box<str>, Box<str>, u64, i64, Box<str>);

impl Said {
    /// `None` where no gateway can have written it.
    pub(in crate::rooms) fn read(version: u64, since_us: i64, status: &str) -> Option<Said> {
        let status = is_status(status).then(|| Status::from(status)).filter(|status| *status != Status::Offline)?;
        Some(Said { version, since: Timestamp::from_microsecond(since_us).ok()?, status })
    }

    /// As [`READ`] gives it.
    fn parse(text: &str) -> Option<Said> {
        let mut words = text.splitn(4, ' ');
        let (_at, version, since, status) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Said::read(version.parse().ok()?, since.parse().ok()?, status)
    }
}

impl Sharing {
    pub(in crate::rooms) fn new(nodes: Arc<Nodes>, prefix: Arc<str>) -> Arc<Sharing> {
        let reached = Arc::new(Notify::new());
        let notified = reached.clone();
        nodes.on_reached(Box::new(move || notified.notify_one()));
        Arc::new(Sharing { nodes, prefix, untold: Mutex::default(), wake: Notify::new(), reached })
    }

    /// The others are told soon. From any thread.
    pub(in crate::rooms) fn tell(&self, namespace: Namespace, client: &Arc<str>, said: &Arc<Said>) {
        self.keep(namespace, client.clone(), said.clone());
        self.wake.notify_one();
    }

    fn keep(&self, namespace: Namespace, client: Arc<str>, said: Arc<Said>) {
        let (untold, key) = (&mut *self.untold(), (namespace, client));
        let full = untold.len() >= CLIENTS_MAX;
        match untold.get_mut(&key) {
            Some(known) if *known < said => *known = said,
            Some(_) => {}
            None if full => {}
            None => drop(untold.insert(key, said)),
        }
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some of what is untold, of one namespace.
    fn take(&self) -> Option<(Namespace, Vec<OfClient>)> {
        let mut untold = self.untold();
        let namespace = untold.keys().next()?.0;
        let clients: Vec<_> = untold.keys().filter(|key| key.0 == namespace).take(BATCH).cloned().collect();
        let taken = clients.into_iter().filter_map(|key| Some((key.1.clone(), untold.remove(&key)?))).collect();
        let left = untold.len();
        untold.shrink_to(2 * left);
        Some((namespace, taken))
    }

    fn key(&self, namespace: &str) -> Vec<u8> {
        format!("{}:{{said/{namespace}}}", self.prefix).into_bytes()
    }

    /// Writes to Redis.
    async fn write(&self, namespace: &str, batch: &[OfClient]) -> Result<(), Trouble> {
        let mut args = vec![CLIENTS_MAX.to_string(), KEPT_SECONDS.to_string()];
        for (client, said) in batch {
            let rest = format!("{} {}", said.since.as_microsecond(), said.status.as_str());
            args.extend([client.to_string(), said.version.to_string(), rest]);
        }
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        self.nodes.call(Call::script(&SAY, &[&self.key(namespace)], &args)).await.map(drop)
    }

    /// Writes to Redis what is untold, and tells the others.
    async fn flush(&self, namespaces: &[Arc<str>]) -> Result<(), Trouble> {
        while let Some((namespace, batch)) = self.take() {
            let name = &namespaces[usize::from(namespace.index)];
            let line = |(client, said): &OfClient| -> Line {
                let since_us = said.since.as_microsecond();
                ((**name).into(), (**client).into(), said.version, since_us, said.status.as_str().into())
            };
            let lines: Vec<Line> = batch.iter().map(line).collect();
            // Such values can be written always.
            let told = serde_json::to_vec(&lines).unwrap_or_default();
            let done = match self.write(name, &batch).await {
                Ok(()) => self.nodes.tell_all(Topic::Statuses, told.into()).await,
                Err(trouble) => Err(trouble),
            };
            match done {
                Ok(()) => {}
                Err(Trouble::Refused(error)) => tracing::error!(%error, "Redis keeps no statuses"),
                Err(trouble) => {
                    batch.into_iter().for_each(|(client, said)| self.keep(namespace, client, said));
                    return Err(trouble);
                }
            }
        }
        Ok(())
    }

    /// Keeps what clients with sessions here have said from being deleted in Redis.
    async fn touch(&self, shared: &Shared) -> Result<(), Trouble> {
        let held = shared.statuses.held();
        for (index, name) in shared.namespaces.iter().enumerate() {
            let here = held.iter().filter(|(namespace, ..)| usize::from(namespace.index) == index);
            let said: Vec<_> = here.map(|(_, client, said)| (client.clone(), said.clone())).collect();
            for batch in said.chunks(BATCH) {
                self.write(name, batch).await?;
            }
        }
        Ok(())
    }

    /// Learns what Redis has.
    async fn read(&self, shared: &Shared) -> Result<(), Trouble> {
        for name in shared.namespaces.iter() {
            let mut cursor = "0".to_owned();
            loop {
                let args = [cursor, KEPT_SECONDS.to_string(), BATCH.to_string()];
                let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
                let reply = self.nodes.call(Call::script(&READ, &[&self.key(name)], &args)).await?;
                let Some([next, page]) = reply.list() else { break };
                for pair in page.list().unwrap_or_default().chunks_exact(2) {
                    if let (Some(client), Some(said)) = (pair[0].text(), pair[1].text().and_then(Said::parse)) {
                        shared.learn_status(name, client, said);
                    }
                }
                cursor = next.text().unwrap_or("0").to_owned();
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Shared {
    /// A client that hides is hidden on other nodes at once, whenever those who see it here are told: it may go there.
    pub(in crate::rooms) fn hide_elsewhere(&self, namespace: Namespace, client: &Arc<str>) {
        let Some(sharing) = &self.sharing else { return };
        let said = self.statuses.of(namespace, client).filter(|said| said.status == Status::Invisible);
        said.iter().for_each(|said| sharing.tell(namespace, client, said));
    }

    /// Another node tells what a client has said.
    fn learn_status(&self, namespace: &str, client: &str, said: Said) {
        let namespace = Namespace::named(&self.namespaces, namespace).filter(|_| is_client(client));
        let Some(namespace) = namespace else { return };
        let client = Arc::<str>::from(client);
        if let Some(said) = self.statuses.learn(namespace, &client, said, Instant::now()) {
            self.post_status(namespace, &client, &said);
        }
    }

    fn told_statuses(&self, payload: &[u8]) {
        let Ok(lines) = serde_json::from_slice::<Vec<Line>>(payload) else {
            return tracing::warn!("a node has told of statuses what is not understood");
        };
        for (namespace, client, version, since_us, status) in lines {
            if let Some(said) = Said::read(version, since_us, &status) {
                self.learn_status(&namespace, &client, said);
            }
        }
    }

    /// Knows what clients have said to other nodes, as Redis keeps it, and hears of it from now on. To be awaited before
    /// the first client comes; where Redis does not answer it is read later.
    pub async fn hear_statuses(&self) {
        let Some(sharing) = &self.sharing else { return };
        let shared = self.clone();
        sharing.nodes.handle(Topic::Statuses, Box::new(move |payload| shared.told_statuses(&payload)));
        let give_up_at = Instant::now() + START_TIMEOUT;
        while let Err(trouble) = sharing.read(self).await {
            if trouble != Trouble::Away || Instant::now() > give_up_at {
                tracing::warn!(?trouble, "what clients have said of themselves could not be read yet");
                return sharing.reached.notify_one();
            }
            sleep(TRY_EVERY).await;
        }
    }

    /// Shares with other nodes what clients say of themselves, for as long as it is polled: to be run on the main thread.
    pub async fn share_statuses(self) {
        let Some(sharing) = self.sharing.clone() else { return std::future::pending().await };
        let mut touch_at = Instant::now() + TOUCH_EVERY;
        loop {
            let all = tokio::select! {
                () = sharing.wake.notified() => false,
                () = sharing.reached.notified() => true,
                () = sleep_until(touch_at) => true,
            };
            let done = async {
                sharing.flush(&self.namespaces).await?;
                if all {
                    sharing.touch(&self).await?;
                    sharing.read(&self).await?;
                }
                Ok(())
            };
            let done: Result<(), Trouble> = done.await;
            if all {
                touch_at = Instant::now() + TOUCH_EVERY;
            }
            match done {
                Ok(()) => {}
                // Whenever it is reached again all is done anew.
                Err(Trouble::Away) => tracing::debug!("what clients say of themselves is not shared: Redis is away"),
                Err(trouble @ (Trouble::Full | Trouble::Refused(_))) => {
                    tracing::warn!(?trouble, "what clients say of themselves is not shared yet");
                    sleep(PAUSE).await;
                    sharing.wake.notify_one();
                }
            }
        }
    }
}
