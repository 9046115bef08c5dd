//! What both directions of one request and its answer share: when something moved last, and whether the request's body
//! may flow.
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// One request and its answer.
pub(super) struct Exchange {
    /// When the last byte moved, either way.
    moved: Cell<Instant>,
    /// How long nothing may move between the end of the request and the head of the answer, beside `idle`.
    response: Option<Duration>,
    /// How long nothing may move.
    idle: Option<Duration>,
    answered: Cell<bool>,
    expired: Cell<bool>,
    broken: Cell<bool>,
    /// The request's body waits for `100 Continue`.
    held: Cell<bool>,
    /// Told of a `100 Continue`.
    pub(super) continues: Arc<Notify>,
    waiting: RefCell<Option<Waker>>,
    uploading: Cell<bool>,
    /// Told when the whole request is on its way: another time counts then.
    pub(super) uploaded: Notify,
}

impl Exchange {
    /// `response`: the most time between the last byte of the request and the head of its answer; `idle`: the most time
    /// in which nothing moves.
    pub(super) fn new(response: Option<Duration>, idle: Option<Duration>) -> Rc<Exchange> {
        Rc::new(Exchange {
            moved: Cell::new(Instant::now()),
            response,
            idle,
            answered: Cell::new(false),
            expired: Cell::new(false),
            broken: Cell::new(false),
            held: Cell::new(false),
            continues: Arc::default(),
            waiting: RefCell::new(None),
            uploading: Cell::new(true),
            uploaded: Notify::new(),
        })
    }

    /// How long nothing may move now.
    fn limit(&self) -> Option<Duration> {
        let waits = !self.uploading.get() && !self.answered.get();
        let response = if waits { self.response } else { None };
        response.into_iter().chain(self.idle).min()
    }

    /// Something moved.
    pub(super) fn touch(&self) {
        self.moved.set(Instant::now());
    }

    /// From here on `idle_timeout` alone counts.
    pub(super) fn head_has_come(&self) {
        self.answered.set(true);
        self.touch();
    }

    /// The request's body is held back.
    pub(super) fn hold(&self) {
        self.held.set(true);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.get()
    }

    /// The request's body may flow.
    pub(super) fn release(&self) {
        self.held.set(false);
        self.touch();
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Ready when the request's body may flow.
    pub(super) fn poll_released(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.held.get() {
            return Poll::Ready(());
        }
        self.waiting.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Nothing moved for too long.
    pub(super) fn has_expired(&self) -> bool {
        self.expired.get()
    }

    /// The client's body breaks off, or breaks the grammar.
    pub(super) fn break_off(&self) {
        self.broken.set(true);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// The whole request is on its way, or its connection is gone.
    pub(super) fn upload_ended(&self) {
        self.uploading.set(false);
        self.touch();
        self.uploaded.notify_one();
    }

    pub(super) fn is_uploading(&self) -> bool {
        self.uploading.get()
    }
}

/// Waits for the time in which nothing moves. Its timer is not set anew for every byte, but looks when it fires; whoever
/// polls it does so again when [`Exchange::uploaded`] tells of a shorter time.
pub(super) struct Quiet {
    exchange: Rc<Exchange>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Quiet {
    pub(super) fn new(exchange: Rc<Exchange>) -> Quiet {
        Quiet { exchange, timer: None }
    }

    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(limit) = self.exchange.limit() else { return Poll::Pending };
            let due = self.exchange.moved.get() + limit;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            ready!(timer.as_mut().poll(cx));
            if due <= Instant::now() {
                self.exchange.expired.set(true);
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }

    pub(super) async fn expired(&mut self) {
        poll_fn(|cx| self.poll_expired(cx)).await;
    }
}
