//! What a run found: `key=value` pairs on one line, or one JSON object.
use hdrhistogram::Histogram;
use std::borrow::Cow;
use std::fmt::Write;

/// The figures of one run, in the order in which they are printed.
#[derive(Default)]
pub struct Report(Vec<(Cow<'static, str>, f64, usize)>);

impl Report {
    /// Adds a whole number.
    pub fn count(mut self, name: &'static str, n: u64) -> Self {
        self.0.push((name.into(), n as f64, 0));
        self
    }

    /// Adds a number, printed with `digits` decimal places; one that is not finite is left out.
    pub fn number(mut self, name: impl Into<Cow<'static, str>>, value: f64, digits: usize) -> Self {
        if value.is_finite() {
            self.0.push((name.into(), value, digits));
        }
        self
    }

    /// Adds a count of `what` over `secs`, its rate, and the server's CPU time for each where some was charged.
    pub fn work(self, what: &'static str, n: u64, secs: f64, cpu_secs: f64) -> Self {
        let all = self.count(what, n).number("secs", secs, 3).number("per_s", n as f64 / secs, 0);
        if cpu_secs <= 0.0 || n == 0 {
            return all;
        }
        all.number("cpu_us", cpu_secs * 1e6 / n as f64, 3).number("cpu_s", cpu_secs, 3).number(
            "per_cpu_s",
            n as f64 / cpu_secs,
            0,
        )
    }

    /// Adds the quantiles of times in microseconds.
    pub fn times(self, h: &Histogram<u64>) -> Self {
        if h.is_empty() {
            return self;
        }
        let at = |q| h.value_at_quantile(q);
        self.count("p50_us", at(0.5)).count("p90_us", at(0.9)).count("p99_us", at(0.99)).count("max_us", h.max())
    }

    /// The line to print.
    pub fn line(&self, json: bool) -> String {
        let mut out = String::new();
        for (name, value, digits) in &self.0 {
            let gap = if out.is_empty() { "" } else { " " };
            match json {
                true => write!(out, "{}\"{name}\":{value:.digits$}", if out.is_empty() { "" } else { "," }),
                false => write!(out, "{gap}{name}={value:.digits$}"),
            }
            .expect("a String takes everything");
        }
        if json { format!("{{{out}}}") } else { out }
    }
}

/// An empty histogram of 1 µs to 1 min.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        let report = Report::default().work("echoes", 100, 2.0, 0.001).number("nothing", f64::NAN, 1);
        let plain = "echoes=100 secs=2.000 per_s=50 cpu_us=10.000 cpu_s=0.001 per_cpu_s=100000";
        assert_eq!(report.line(false), plain);
        assert!(report.line(true).starts_with("{\"echoes\":100,\"secs\":2.000,\"per_s\":50,"));
        assert_eq!(Report::default().line(true), "{}");
    }
}
