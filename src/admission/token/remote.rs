//! A key set that is fetched from a URL: when it has grown old, and when a token names a key that it does not have.
use super::{LoadError, Verifier};
use crate::config::Auth;
use crate::dial::{self, origin::Origin};
use crate::metrics::{Fetched, Metrics};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::Builder;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// For one fetch, all of it; and how long a token waits for one.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// How often tokens with unknown keys may have the set fetched, and how soon a fetch that failed is tried again.
const FETCH_EVERY: Duration = Duration::from_secs(10);
/// Largest key set, in bytes.
const SET_BYTES_MAX: usize = 1 << 20;
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Where a key set is fetched, by one task, and where others wait for it.
pub(super) struct Remote {
    origin: Origin,
    /// The URL without its query, for people.
    shown: String,
    refresh: Duration,
    wanted: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    busy: bool,
    /// When a fetch began for the last time because a token, or the operator, wanted it.
    demanded: Option<Instant>,
    /// Fetches that have ended, well or not.
    ended: u64,
}

impl Progress {
    fn was_demanded(&self) -> bool {
        self.demanded.is_some_and(|began| began.elapsed() < FETCH_EVERY)
    }
}

/// Why there is no newer set. Shows nothing that came but its status.
enum Failure {
    Late,
    Unreachable(io::Error),
    Broken(hyper::Error),
    Status(StatusCode),
    Cut,
    Unusable(String),
}

/// The last set that came, and what is wrong with it: what was seen before is not looked into, and complained of, again.
#[derive(Default)]
struct Known {
    set: Vec<u8>,
    fault: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Late => write!(f, "no answer within {} s", FETCH_WITHIN.as_secs()),
            Failure::Unreachable(error) => write!(f, "no connection: {error}"),
            Failure::Broken(error) => write!(f, "the connection broke: {error}"),
            Failure::Status(status) => write!(f, "status {}", status.as_u16()),
            Failure::Cut => write!(f, "an answer of more than {SET_BYTES_MAX} bytes, or one that was cut off"),
            Failure::Unusable(why) => f.write_str(why),
        }
    }
}

impl Remote {
    /// Nothing is fetched yet.
    pub(super) fn new(url: &str, refresh: Duration) -> Result<Remote, LoadError> {
        Ok(Remote {
            origin: Origin::new(url)?,
            shown: url.split('?').next().unwrap_or_default().to_owned(),
            refresh,
            wanted: Notify::new(),
            progress: watch::Sender::default(),
        })
    }

    /// Has the set fetched, and waits until it was or could not be. `false` where that does not come in time, and at
    /// once where it was done for another token a moment ago: whoever sends tokens with unknown keys makes no more than
    /// one fetch in 10 s.
    pub(super) async fn fetched(&self) -> bool {
        let mut progress = self.progress.subscribe();
        let seen = *progress.borrow();
        if !seen.busy {
            if seen.was_demanded() {
                return false;
            }
            self.wanted.notify_one();
        }
        matches!(timeout(FETCH_WITHIN, progress.wait_for(|now| now.ended > seen.ended)).await, Ok(Ok(_)))
    }

    /// Has the set fetched soon, however recently that was done.
    pub(super) fn renew(&self) {
        self.progress.send_modify(|progress| progress.demanded = None);
        self.wanted.notify_one();
    }

    /// Keeps `verifier` fresh, for ever. An old set serves while there is no newer one.
    pub(super) async fn run(&self, auth: &Auth, verifier: &ArcSwapOption<Verifier>, metrics: &Metrics) {
        let mut known = Known::default();
        let mut failing = false;
        loop {
            let began = Instant::now();
            self.progress.send_modify(|progress| progress.busy = true);
            let outcome = self.renewed(auth, verifier, &mut known).await;
            let pause = match &outcome {
                Ok(()) => self.refresh,
                Err(_) => self.refresh.min(FETCH_EVERY),
            };
            metrics.elsewhere().jwks_fetched(if outcome.is_ok() { Fetched::Fresh } else { Fetched::Failed });
            self.log(outcome, verifier.load().is_some(), &mut failing);
            self.progress.send_modify(|progress| (progress.busy, progress.ended) = (false, progress.ended + 1));
            // Many gateways that were started together do not ask together.
            self.rest(began + pause.mul_f64(rand::random_range(0.9..1.0))).await;
        }
    }

    async fn rest(&self, due: Instant) {
        while timeout_at(due, self.wanted.notified()).await.is_ok() {
            if !self.progress.borrow().was_demanded() {
                // Together: who sees that it was demanded must see that it goes on.
                self.progress.send_modify(|progress| (progress.busy, progress.demanded) = (true, Some(Instant::now())));
                return;
            }
        }
    }

    /// Once each way, however long it takes.
    fn log(&self, outcome: Result<(), Failure>, has_keys: bool, failing: &mut bool) {
        let jwks = &*self.shown;
        match outcome {
            Ok(()) if std::mem::take(failing) => tracing::info!(jwks, "the key set is fetched again"),
            Err(why) if !std::mem::replace(failing, true) => {
                let then = if has_keys { "the old keys stay" } else { "no token is good until it is" };
                tracing::warn!(jwks, %why, then, "the key set cannot be fetched");
            }
            Ok(()) | Err(_) => (),
        }
    }

    async fn renewed(&self, auth: &Auth, verifier: &ArcSwapOption<Verifier>, known: &mut Known) -> Result<(), Failure> {
        let deadline = Instant::now() + FETCH_WITHIN;
        let set = timeout_at(deadline, self.get(deadline)).await.unwrap_or(Err(Failure::Late))?;
        if set != known.set {
            let judged = Verifier::of_set(&set, &self.shown, auth);
            *known = Known { set, fault: judged.as_ref().err().map(LoadError::to_string) };
            if let Ok(fresh) = judged {
                verifier.store(Some(Arc::new(fresh)));
            }
        }
        known.fault.clone().map_or(Ok(()), |why| Err(Failure::Unusable(why)))
    }

    /// Redirects are not followed, and nothing is kept but the body.
    async fn get(&self, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let stream = self.origin.connect(deadline).await.map_err(Failure::Unreachable)?;
        let made = Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = made.map_err(Failure::Broken)?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = self.origin.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.origin.authority.clone());
        headers.insert(USER_AGENT, dial::USER_AGENT);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let answer = async {
            let answer = sender.send_request(request).await.map_err(Failure::Broken)?;
            if answer.status() != StatusCode::OK {
                return Err(Failure::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), SET_BYTES_MAX).collect().await;
            Ok(body.map_err(|_| Failure::Cut)?.to_bytes().to_vec())
        };
        // The answer tells how the connection ended, if it did.
        let driven = async {
            let _ = connection.await;
            pending().await
        };
        tokio::select! {
            answer = answer => answer,
            () = driven => Err(Failure::Cut),
        }
    }
}
