//! A client's device: one socket after the other, to whatever node, until all leave.
use crate::court::{Court, Phase};
use crate::support::{client::request, token::good};
use crate::view::{Drop, View};
use crate::{Dice, Verdict};
use futures_util::{SinkExt, StreamExt};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

type Socket = WebSocketStream<TcpStream>;

/// How long a device waits for a connection, or to get rid of what it says, before it takes another node.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks whether something is due.
const TURN: Duration = Duration::from_millis(50);
/// How long a socket stays open that nobody reads: longer than the gateway waits for a pong.
const DEAD: Duration = Duration::from_secs(12);

/// What a checker sees of a device.
pub type Seen = Arc<Mutex<View>>;

pub struct Device {
    view: Seen,
    court: Arc<Court>,
    dice: Dice,
    phase: watch::Receiver<Phase>,
}

impl Device {
    pub fn new(view: Seen, court: Arc<Court>, dice: Dice) -> Device {
        let phase = court.phase();
        Device { view, court, dice, phase }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap()
    }

    fn is(&self, phase: Phase) -> bool {
        *self.phase.borrow() == phase
    }

    /// Lives until all leave, or something is wrong.
    pub async fn live(mut self) {
        while !self.is(Phase::Leaving) && self.court.verdict().is_ok() {
            self.stay_away().await;
            let Some((node, address)) = self.court.some_node(&mut self.dice) else {
                sleep(TURN).await;
                continue;
            };
            let name = self.view().client.clone();
            match timeout(PATIENCE, connect(&address, &name)).await {
                Ok(Ok(socket)) => {
                    self.view().event(format!("a socket of node {node}"));
                    self.court.count("sockets");
                    if let Err(wrong) = self.session(socket).await {
                        let (number, client) = (self.view().number, name);
                        self.court.fail(format!("device {number} of {client} at node {node}: {wrong}"));
                    }
                }
                Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(self.dice.between(50, 250))).await,
            }
        }
    }

    /// Some stay away until the next round, where they have said all.
    async fn stay_away(&mut self) {
        let away = self.view().has_all_said() && self.dice.percent(20);
        if away && !self.is(Phase::Leaving) {
            self.court.count("stayed away");
            self.view().away = true;
            let began = Instant::now();
            let wait = Duration::from_millis(self.dice.between(500, 20_000));
            // Through a time of rest, and until its own is over.
            let _ = timeout(wait, self.phase.wait_for(|phase| *phase == Phase::Leaving)).await;
            let _ = self.phase.wait_for(|phase| *phase != Phase::Rest).await;
            self.view().event(format!("was away for {:?}", began.elapsed()));
            self.view().away = false;
        }
    }

    /// One socket, until it is gone.
    async fn session(&mut self, mut socket: Socket) -> Verdict {
        let mut turn = tokio::time::interval(TURN);
        let mut next = Instant::now() + Duration::from_millis(self.dice.between(0, 500));
        loop {
            tokio::select! {
                heard = socket.next() => match heard {
                    Some(Ok(Message::Text(text))) => self.view().hear(&text, &self.court)?,
                    Some(Ok(Message::Close(frame))) => {
                        self.view().event(format!("is closed: {frame:?}"));
                        self.court.count("closed by the gateway");
                    }
                    Some(Ok(_)) => (),
                    Some(Err(e)) => return self.lost(&e.to_string()),
                    None => return self.lost("the end"),
                },
                _ = turn.tick() => {
                    let mut view = self.view();
                    if view.online && !self.is(Phase::Leaving) {
                        view.go_on(&self.court)?;
                    }
                }
                () = sleep_until(next) => {
                    next = Instant::now() + Duration::from_millis(self.dice.between(20, 300));
                    if let Some(how) = self.acts() {
                        return self.drops(socket, how).await;
                    }
                }
            }
            if !self.says(&mut socket).await {
                return self.lost("it takes nothing");
            }
        }
    }

    fn lost(&self, why: &str) -> Verdict {
        self.view().lost(why);
        self.court.count("sockets lost");
        Ok(())
    }

    fn acts(&mut self) -> Option<Drop> {
        let mut view = self.view();
        match *self.phase.borrow() {
            _ if !view.online => None,
            Phase::Chaos => view.act(&self.court),
            Phase::Rest => None,
            Phase::Leaving => Some(if view.number.is_multiple_of(2) { Drop::Close } else { Drop::Cut }),
        }
    }

    /// Sends what the view has to say; whether it could.
    async fn says(&self, socket: &mut Socket) -> bool {
        let texts = std::mem::take(&mut self.view().out);
        if texts.is_empty() {
            return true;
        }
        let all = async {
            for text in texts {
                socket.feed(Message::text(text)).await?;
            }
            socket.flush().await
        };
        matches!(timeout(PATIENCE, all).await, Ok(Ok(())))
    }

    async fn drops(&self, mut socket: Socket, how: Drop) -> Verdict {
        self.view().lost(&format!("{how:?}"));
        match how {
            Drop::Cut => self.court.count("sockets cut"),
            Drop::Close => {
                self.court.count("sockets closed");
                let _ = timeout(PATIENCE, socket.close(None)).await;
            }
            Drop::Dead => {
                self.court.count("sockets dead");
                tokio::spawn(async move {
                    sleep(DEAD).await;
                    drop(socket);
                });
            }
        }
        Ok(())
    }
}

async fn connect(address: &str, client: &str) -> Result<Socket, Box<dyn std::error::Error + Send + Sync>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let request = request("/ws", &[("Authorization", &format!("Bearer {}", good(client)))]);
    Ok(tokio_tungstenite::client_async(request, tcp).await?.0)
}
