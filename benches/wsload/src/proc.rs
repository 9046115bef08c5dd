//! CPU time and memory of the server's processes, from /proc (Linux).
use std::fs;

/// Lets this process open as many descriptors as it may.
pub fn raise_fd_limit() {
    // SAFETY: plain system calls on a local value.
    unsafe {
        let mut l = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut l) == 0 {
            l.rlim_cur = l.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &l);
        }
    }
}

/// The given processes and all that descend from them.
fn family(pids: &[u32]) -> Vec<u32> {
    let mut all = pids.to_vec();
    let mut k = 0;
    while k < all.len() {
        let pid = all[k];
        if let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) {
            for t in tasks.flatten() {
                if let Ok(s) = fs::read_to_string(t.path().join("children")) {
                    all.extend(s.split_whitespace().filter_map(|p| p.parse::<u32>().ok()));
                }
            }
        }
        k += 1;
    }
    all.sort();
    all.dedup();
    all
}

/// Seconds of CPU time, user and system, that the processes have used.
pub fn cpu(pids: &[u32]) -> f64 {
    // SAFETY: plain system call.
    let tick = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    family(pids)
        .iter()
        .filter_map(|p| {
            // schedstat counts nanoseconds for each thread; stat counts ticks.
            let mut ns = 0u64;
            for t in fs::read_dir(format!("/proc/{p}/task")).ok()?.flatten() {
                if let Ok(s) = fs::read_to_string(t.path().join("schedstat")) {
                    ns += s.split(' ').next()?.parse::<u64>().ok()?;
                }
            }
            if ns > 0 {
                return Some(ns as f64 / 1e9);
            }
            let s = fs::read_to_string(format!("/proc/{p}/stat")).ok()?;
            let f: Vec<&str> = s.rsplit(')').next()?.split_whitespace().collect();
            Some((f[11].parse::<f64>().ok()? + f[12].parse::<f64>().ok()?) / tick)
        })
        .sum()
}

/// KiB of memory in use: proportional share, or resident where that is hidden.
pub fn memory(pids: &[u32]) -> u64 {
    family(pids)
        .iter()
        .filter_map(|p| {
            let field = |file: &str, name: &str| {
                let s = fs::read_to_string(format!("/proc/{p}/{file}")).ok()?;
                s.lines().find(|l| l.starts_with(name))?.split_whitespace().nth(1)?.parse::<u64>().ok()
            };
            field("smaps_rollup", "Pss:").or_else(|| field("status", "VmRSS:"))
        })
        .sum()
}
