//! What the kernel knows of this process, under the names that Prometheus' own clients use.
use std::fs;

/// One look at `/proc/self`. What the kernel does not tell is `None`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    /// Memory in use, in bytes.
    pub resident_bytes: Option<u64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// The soft limit of open descriptors; `None` where there is none.
    pub max_fds: Option<u64>,
    /// User and system time, in seconds.
    pub cpu_seconds: Option<f64>,
}

impl Process {
    /// Looks: four small reads, whatever the number of connections.
    pub fn look() -> Process {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        Process {
            resident_bytes: resident_bytes(&read("status")),
            // Since Linux 6.2 the size of this folder is the number of descriptors; before it is 0.
            open_fds: fs::metadata("/proc/self/fd").map(|m| m.len()).ok().filter(|n| *n > 0),
            max_fds: max_fds(&read("limits")),
            cpu_seconds: cpu_seconds(&read("stat")),
        }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn max_fds(limits: &str) -> Option<u64> {
    limits.lines().find_map(|l| l.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    /// The kernel's `USER_HZ`, 100 on every architecture that Rust's std knows.
    const TICKS_PER_SECOND: f64 = 100.0;
    // The name of the program, in parentheses, may hold spaces; the state is field 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(resident_bytes("VmPeak:\t  9 kB\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident_bytes("VmRSS:\tmany"), None);
        assert_eq!(max_fds("Max open files            1024                 524288               files\n"), Some(1024));
        assert_eq!(max_fds("Max open files            unlimited            unlimited            files\n"), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 101 0 0 0 150 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn finds_itself() {
        let process = Process::look();
        assert!(process.resident_bytes > Some(100_000), "{process:?}");
        assert!(process.cpu_seconds.is_some(), "{process:?}");
    }
}
