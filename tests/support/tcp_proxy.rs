//! A way to a server that can be cut, blocked and held still.
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards every connection to a server on this machine, as long as it lets them.
pub struct TcpProxy {
    pub port: u16,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Connections of an earlier number have been cut.
    cuts: u32,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Refusing,
    Still,
}

impl TcpProxy {
    /// A proxy to this port, on a port of its own.
    pub async fn to(port: u16) -> TcpProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (state, watched) = watch::channel(State { cuts: 0, mode: Mode::Open });
        let task = tokio::spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], port)), watched));
        TcpProxy { port: own, state, task }
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends all connections, with what is on its way over them; others may be made.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Ends all connections, and each that is made from now on.
    pub fn refuse(&self) {
        self.state.send_modify(|state| *state = State { cuts: state.cuts + 1, mode: Mode::Refusing });
    }

    /// Nothing goes either way from now on; connections stay, and can be made.
    pub fn hold(&self) {
        self.state.send_modify(|state| state.mode = Mode::Still);
    }

    /// Everything goes through again, what was held included.
    pub fn open(&self) {
        self.state.send_modify(|state| state.mode = Mode::Open);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: watch::Receiver<State>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let now = *state.borrow();
        if now.mode == Mode::Refusing {
            continue;
        }
        let mut state = state.clone();
        tokio::spawn(async move {
            let mut is_cut = state.clone();
            tokio::select! {
                _ = is_cut.wait_for(|state| state.cuts != now.cuts) => {}
                () = forward(near, server, &mut state) => {}
            }
        });
    }
}

async fn forward(near: TcpStream, server: SocketAddr, state: &mut watch::Receiver<State>) {
    let Ok(()) = passes(state).await else { return };
    let Ok(far) = TcpStream::connect(server).await else { return };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(pump(near_in, far_out, state.clone()), pump(far_in, near_out, state.clone()));
}

/// Waits until things go through.
async fn passes(state: &mut watch::Receiver<State>) -> Result<(), ()> {
    state.wait_for(|state| state.mode == Mode::Open).await.map(|_| ()).map_err(|_| ())
}

/// Until one side ends; then the other's way is ended too.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut chunk = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        if passes(&mut state).await.is_err() || to.write_all(&chunk[..n]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
