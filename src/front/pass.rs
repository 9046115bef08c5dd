//! Ordinary requests: passed on to a backend, and its answer back.
use super::answer::{Answer, describe};
use super::{Body, Front, Opens};
use crate::admission::refusal::Refusal;
use crate::admission::{Entrance, Passed, Permits};
use crate::close::Code;
use crate::metrics::{Handshake, Refused};
use crate::upstream::{Download, Ordinary};
use hyper::http::request::Parts;
use std::rc::Rc;

/// An answer on its way, and what its request holds until then.
pub struct Passing {
    pub(super) download: Download,
    _permits: Permits,
    _opens: Opens,
}

impl Front {
    /// Passes a request on that was let in.
    pub(super) async fn pass(
        &self,
        entrance: &Rc<Entrance>,
        passed: Passed,
        head: Parts,
        body: Body,
        opens: Opens,
    ) -> Answer {
        let Passed { route, upstream, identity, origin, permits } = passed;
        self.around.shard.metrics().handshake(Handshake::Passed);
        let path = self.path(&route, &head.uri);
        let forward = describe(&head, &path, &origin, Some(&identity));
        let ordinary = Ordinary { method: &head.method, forward, body: Box::pin(body) };
        match self.lines.send(&self.upstreams, upstream, ordinary).await {
            Ok(answer) => {
                let passing = |download| Passing { download, _permits: permits, _opens: opens };
                Answer::Whole(answer.map(|download| Body::Passed(Box::new(passing(download)))))
            }
            Err(failed) => {
                let reason = failed.reason;
                tracing::warn!(target: "wsgate::upstream", route = route.name(), %reason, "no answer");
                let refusal = Refusal::by_status(Code::UpstreamUnavailable, Refused::Upstream).status(failed.status);
                self.decline(entrance, &refusal)
            }
        }
    }
}
