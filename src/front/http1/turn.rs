//! Which of a connection's requests are answered: what comes behind one that is not is kept from hyper, which would not
//! notice any more that the client leaves.
use super::super::{Body, BodyError};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What answers tell the guard of their connection.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    count: u64,
    waiting: Option<Waker>,
}

impl Turns {
    /// Only this thread comes here: hyper wants what it is given to be `Send`.
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when so many requests are answered.
    pub(super) fn poll_answered(&self, count: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut answers = self.answers();
        if answers.count >= count {
            return Poll::Ready(());
        }
        answers.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The body of an answer, which is complete, or given up, when this is dropped.
pub(super) struct Turn {
    body: Body,
    turns: Turns,
}

impl Turn {
    pub(super) fn new(body: Body, turns: Turns) -> Turn {
        Turn { body, turns }
    }
}

impl http_body::Body for Turn {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut answers = self.turns.answers();
        answers.count += 1;
        if let Some(waker) = answers.waiting.take() {
            waker.wake();
        }
    }
}
