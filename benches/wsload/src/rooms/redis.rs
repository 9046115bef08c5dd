//! What the Redis behind the servers did meanwhile: its CPU time, and its commands.
use crate::proc;
use crate::report::Report;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long Redis may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Redis, from the moment on that is measured.
pub struct Redis {
    tcp: TcpStream,
    pid: u32,
    cpu_secs: f64,
    began: Instant,
}

impl Redis {
    /// Begins to count at the Redis of this HOST:PORT, on this machine.
    pub fn watch(address: &str) -> Result<Redis, String> {
        let named = |e: std::io::Error| format!("Redis at {address}: {e}");
        let tcp = TcpStream::connect(address).map_err(named)?;
        tcp.set_read_timeout(Some(ANSWER_MAX)).map_err(named)?;
        let mut redis = Redis { tcp, pid: 0, cpu_secs: 0.0, began: Instant::now() };
        let server = redis.ask("INFO server")?;
        let pid = server.lines().find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok());
        redis.pid = pid.ok_or("Redis does not say its process_id")?;
        redis.ask("CONFIG RESETSTAT")?;
        redis.cpu_secs = proc::cpu(&[redis.pid]);
        redis.began = Instant::now();
        Ok(redis)
    }

    /// Adds what was counted, for each of so many publishes.
    pub fn charge(mut self, mut report: Report, publishes: u64) -> Result<Report, String> {
        let (cpu, secs) = (proc::cpu(&[self.pid]) - self.cpu_secs, self.began.elapsed().as_secs_f64());
        let stats = self.ask("INFO commandstats")?;
        report = report.number("redis_cpu_us", cpu * 1e6 / publishes as f64, 3);
        report = report.number("redis_busy", cpu / secs, 3).number("publishes_per_s", publishes as f64 / secs, 0);
        for (command, calls) in calls(&stats) {
            let each = calls as f64 / publishes as f64;
            // What is asked from time to time is not of a publish.
            if each >= 0.01 {
                report = report.number(format!("redis_{command}"), each, 4);
            }
        }
        Ok(report)
    }

    /// The text of an answer that is one.
    fn ask(&mut self, command: &str) -> Result<String, String> {
        self.tcp.write_all(format!("{command}\r\n").as_bytes()).map_err(|e| e.to_string())?;
        let (mut answer, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let n = self.tcp.read(&mut chunk).map_err(|e| format!("Redis: {e}"))?;
            answer.extend_from_slice(&chunk[..n]);
            if n == 0 || answer.starts_with(b"-") {
                return Err(format!("Redis answers {command} with {}", String::from_utf8_lossy(&answer).trim()));
            }
            if let Some(text) = whole(&answer) {
                return Ok(text);
            }
        }
    }
}

/// The text of a simple or a bulk string, where all of it is there.
fn whole(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let (head, rest) = text.split_once("\r\n")?;
    match head.strip_prefix('$') {
        None => Some(head.trim_start_matches('+').into()),
        Some(length) => rest.get(..length.parse().ok()?).map(str::to_owned),
    }
}

/// How often each command was called, those of scripts included.
fn calls(stats: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((command.replace(['|', '-'], "_"), rest.split(',').next()?.parse().ok()?))
    };
    stats.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_when_they_are_whole() {
        assert_eq!(whole(b"+OK\r\n"), Some("OK".into()));
        assert_eq!(whole(b"$5\r\nab"), None);
        assert_eq!(whole(b"$2\r\nab\r\n"), Some("ab".into()));
        let stats = "# Commandstats\r\ncmdstat_evalsha:calls=12,usec=3\r\ncmdstat_config|resetstat:calls=1,usec=3\r\n";
        let found = calls(stats);
        assert_eq!((found["evalsha"], found["config_resetstat"]), (12, 1));
    }
}
