//! Query strings: known parameters alone, each at most once.
use super::answer::Fault;
use super::name::{self, decode};

/// Items of one page, at most; also where no limit is named and the items are small.
pub(super) const PAGE_MAX: usize = 1000;
/// Items of one page where no limit is named.
pub(super) const PAGE: usize = 100;

/// The parameters of a call.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads a query string; `+` is a space, as forms write it.
    ///
    /// # Errors
    /// A parameter that is not `known`, one that comes twice, and a broken escape.
    pub fn parse(raw: Option<&str>, known: &[&'static str]) -> Result<Query, Fault> {
        let mut query = Query::default();
        for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = |text: &str| {
                decode(&text.replace('+', "%20")).ok_or_else(|| Fault::bad("the query is not percent-encoded UTF-8"))
            };
            let (name, value) = (read(name)?, read(value)?);
            let Some(known) = known.iter().find(|k| **k == name) else {
                return Err(Fault::bad(format!("unknown parameter \"{}\"", name::words(&name, 64))));
            };
            if query.get(known).is_some() {
                return Err(Fault::bad(format!("the parameter \"{known}\" came twice")));
            }
            query.0.push((known, value));
        }
        Ok(query)
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// `after`; an empty one is none, so that a loop over pages may begin with it.
    pub fn after(&self) -> Option<&str> {
        self.get("after").filter(|after| !after.is_empty())
    }

    /// `limit`, or this one.
    pub fn limit(&self, otherwise: usize) -> Result<usize, Fault> {
        let Some(text) = self.get("limit") else { return Ok(otherwise) };
        let limit = text.parse().ok().filter(|n| (1..=PAGE_MAX).contains(n));
        limit.ok_or_else(|| Fault::bad(format!("\"limit\" must be a whole number from 1 to {PAGE_MAX}")))
    }

    /// `since`, an offset.
    pub fn since(&self) -> Result<Option<u64>, Fault> {
        let Some(text) = self.get("since") else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Fault::bad("\"since\" must be an offset, a whole number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_and_come_once() {
        let known = ["limit", "after", "namespace"];
        let query = |raw| Query::parse(Some(raw), &known);
        let read = query("limit=7&after=J%C3%BCrgen+B%2b&").expect("a query");
        assert_eq!((read.limit(5), read.after(), read.get("namespace")), (Ok(7), Some("Jürgen B+"), None));
        assert_eq!(Query::parse(None, &[]).expect("a query").limit(5), Ok(5));
        assert_eq!(query("after=").expect("a query").after(), None);
        for (raw, words) in [
            ("limt=7", "unknown parameter \"limt\""),
            ("x%0Ay", "unknown parameter \"x y\""),
            ("=1", "unknown parameter \"\""),
            ("limit=1&limit=1", "\"limit\" came twice"),
            ("after=%", "percent-encoded"),
            ("after=%FF", "percent-encoded"),
        ] {
            match query(raw) {
                Err(Fault::BadRequest(why)) => assert!(why.contains(words), "{raw}: {why}"),
                other => panic!("{raw}: {other:?}"),
            }
        }
    }

    #[test]
    fn numbers_are_bounded() {
        let query = |raw| Query::parse(Some(raw), &["limit", "since"]).expect("a query");
        for raw in ["limit=1", "limit=1000"] {
            assert!(query(raw).limit(5).is_ok(), "{raw}");
        }
        for raw in ["limit=", "limit=0", "limit=1001", "limit=-1", "limit=1.0", "limit=99999999999999999999"] {
            assert!(query(raw).limit(5).is_err(), "{raw}");
        }
        assert_eq!(query("since=0").since(), Ok(Some(0)));
        for raw in ["since=", "since=-1", "since=x"] {
            assert!(query(raw).since().is_err(), "{raw}");
        }
    }
}
