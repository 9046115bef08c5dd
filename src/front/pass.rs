//! Ordinary requests: passed on to a backend, and its answer back.
use super::answer::{Answer, describe};
use super::{Body, Front};
use crate::admission::refusal::Refusal;
use crate::admission::{Passed, Permits};
use crate::close::Code;
use crate::metrics::{Handshake, Refused};
use crate::shard::Shard;
use crate::upstream::{Download, Hints, Ordinary, Unanswered, Unavailable};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use std::rc::Rc;

/// An answer on its way, and what its request holds until then.
pub struct Passing {
    pub(super) download: Download,
    _permits: Permits,
    _counted: Counted,
}

impl Front {
    /// Passes a request on that was let in.
    pub(super) async fn pass(&self, passed: Passed, head: Parts, body: Body, hints: Option<Hints>) -> Answer {
        let Passed { route, upstream, identity, origin, permits } = passed;
        let counted = Counted::new(self.around.shard.clone());
        let path = self.path(&route, &head.uri);
        let forward = describe(&head, &path, &origin, Some(&identity));
        let ordinary = Ordinary { method: &head.method, forward, body: Box::pin(body), hints };
        let answered = self.lines.send(&self.upstreams, upstream, ordinary).await;
        let answer = match answered {
            Ok(answer) => answer
                .map(|download| Body::Passed(Box::new(Passing { download, _permits: permits, _counted: counted }))),
            Err(Unanswered::Broken) => {
                let message = "the body breaks off, or breaks the grammar";
                self.say(&Refusal::plain(StatusCode::BAD_REQUEST, Refused::Malformed, message).last())
            }
            Err(Unanswered::Unavailable(Unavailable { status, reason })) => {
                tracing::warn!(target: "wsgate::upstream", route = route.name(), %reason, "no answer");
                self.say(&Refusal::by_status(Code::UpstreamUnavailable, Refused::Upstream).status(status))
            }
        };
        let status = answer.status();
        self.around.shard.metrics().request(status.as_u16());
        tracing::debug!(target: "wsgate::upstream", route = route.name(), method = %head.method, %status, "answered");
        Answer::Whole(answer)
    }

    /// The answer to a request that was let in for nothing.
    fn say(&self, refusal: &Refusal) -> Response<Body> {
        self.around.shard.metrics().refused(refusal.reason);
        refusal.response().map(Body::Full)
    }
}

/// A request among those in flight.
struct Counted(Rc<Shard>);

impl Counted {
    fn new(shard: Rc<Shard>) -> Counted {
        shard.metrics().handshake(Handshake::Passed);
        shard.metrics().request_began();
        Counted(shard)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics().request_ended();
    }
}
