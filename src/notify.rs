//! What systemd is told (sd_notify(3)): ready, reloading, stopping, and that no shard is stuck.
//!
//! Nothing happens where the process was not started with `NOTIFY_SOCKET`.
use crate::health::{Health, STALE_AFTER};
use sd_notify::NotifyState;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Longest wait for a full queue of systemd's: longer, and the main thread would hang with it.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to the service manager. A fault on it is logged, never returned: a gateway that serves
/// is worth more than one that says so.
#[derive(Debug, Clone)]
pub struct Notifier {
    socket: Option<OsString>,
}

impl Notifier {
    /// To the socket of `NOTIFY_SOCKET`.
    pub fn from_env() -> Notifier {
        Notifier::to(std::env::var_os("NOTIFY_SOCKET"))
    }

    /// To this socket: a path, or `@` and an abstract name. `None`: to nobody.
    pub fn to(socket: Option<OsString>) -> Notifier {
        Notifier { socket: socket.filter(|s| !s.is_empty()) }
    }

    /// The start, or a reload, is done. `status` is shown by `systemctl status`.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// A reload begins; [`Notifier::ready`] ends it, also where it failed.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "systemd is not told of the reload: no monotonic clock"),
        }
    }

    /// The gateway stops.
    pub fn stopping(&self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// A line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(&one_line(status))]);
    }

    /// Answers the watchdog at half of `period` for as long as the future is polled, but not while
    /// a shard is stuck: then systemd restarts the gateway.
    pub async fn watch(&self, period: Duration, health: &Health) {
        // A period of 0 would be no interval.
        let mut ticks = interval((period / 2).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            let stuck: Vec<usize> = health.stuck(now.into_std(), STALE_AFTER).collect();
            if stuck.is_empty() {
                self.tell(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(shards = ?stuck, "shards are stuck; the watchdog is not answered");
            }
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = send(socket, message.as_bytes()) {
            tracing::warn!(%error, socket = ?socket, "systemd cannot be told: {}", message.trim_end().escape_debug());
        }
    }
}

/// The period of the watchdog, where systemd wants one of this process (`WATCHDOG_USEC`).
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|period| !period.is_zero())
}

/// Connects anew each time, as libsystemd does: systemd may have been started again.
fn send(socket: &OsStr, message: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagrams = UnixDatagram::unbound()?;
    datagrams.set_write_timeout(Some(SEND_TIMEOUT))?;
    datagrams.connect_addr(&address)?;
    datagrams.send(message).map(drop)
}

/// A line break would begin the next assignment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tokio::time::Instant;

    /// Stands for systemd; its folder goes with it.
    struct Systemd {
        folder: PathBuf,
        socket: UnixDatagram,
    }

    impl Systemd {
        fn start() -> (Systemd, Notifier) {
            let folder = std::env::temp_dir().join(format!("wsgate-notify-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir(&folder).expect("folder");
            let path = folder.join("notify");
            let socket = UnixDatagram::bind(&path).expect("bind");
            socket.set_nonblocking(true).expect("nonblocking");
            (Systemd { folder, socket }, Notifier::to(Some(path.into())))
        }

        fn heard(&self) -> Option<String> {
            let mut buffer = [0; 512];
            let length = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        }
    }

    impl Drop for Systemd {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn says_what_happens() {
        let (systemd, notifier) = Systemd::start();
        notifier.ready("serving 2 listeners");
        assert_eq!(systemd.heard().as_deref(), Some("READY=1\nSTATUS=serving 2 listeners\n"));
        notifier.reloading();
        let heard = systemd.heard().expect("a message");
        let clock = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("the clock");
        assert!(clock.trim_end().parse::<u64>().expect("a number") > 0);
        notifier.stopping("draining");
        assert_eq!(systemd.heard().as_deref(), Some("STOPPING=1\nSTATUS=draining\n"));
        notifier.status("a\nREADY=1");
        assert_eq!(systemd.heard().as_deref(), Some("STATUS=a READY=1\n"));
        assert_eq!(systemd.heard(), None);
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("wsgate-{}", uuid::Uuid::new_v4());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        let socket = UnixDatagram::bind_addr(&address).expect("bind");
        Notifier::to(Some(format!("@{name}").into())).status("here");
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("a message");
        assert_eq!(&buffer[..length], b"STATUS=here\n");
    }

    #[test]
    fn nobody_listens() {
        Notifier::to(None).ready("");
        Notifier::to(Some(OsString::new())).ready("");
        Notifier::to(Some("/nowhere/notify".into())).ready("");
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_answered_only_while_every_shard_beats() {
        let (systemd, notifier) = Systemd::start();
        let health = Health::new(2, Instant::now().into_std());
        let period = Duration::from_secs(4);
        let watching = notifier.watch(period, &health);
        let mut watching = std::pin::pin!(watching);
        for _ in 0..6 {
            health.beat(0, Instant::now().into_std());
            let _ = tokio::time::timeout(Duration::from_secs(2), watching.as_mut()).await;
            assert_eq!(systemd.heard().as_deref(), Some("WATCHDOG=1\n"));
        }
        // Shard 1 has been silent for 12 s.
        let _ = tokio::time::timeout(Duration::from_secs(4), watching.as_mut()).await;
        assert!(systemd.heard().is_none_or(|last| last == "WATCHDOG=1\n"));
        while systemd.heard().is_some() {}
        let _ = tokio::time::timeout(Duration::from_secs(60), watching.as_mut()).await;
        assert_eq!(systemd.heard(), None);
        health.beat(0, Instant::now().into_std());
        health.beat(1, Instant::now().into_std());
        let _ = tokio::time::timeout(Duration::from_secs(3), watching.as_mut()).await;
        assert_eq!(systemd.heard().as_deref(), Some("WATCHDOG=1\n"));
    }
}
