//! What the kernel says of a process: threads, memory, descriptors, life.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Threads of the process.
pub fn threads(pid: u32) -> usize {
    status_number(pid, "Threads:").unwrap_or_else(|| panic!("process {pid} is gone"))
}

/// Resident memory of the process, KiB.
pub fn rss_kib(pid: u32) -> usize {
    status_number(pid, "VmRSS:").unwrap_or_else(|| panic!("process {pid} is gone"))
}

/// User and system time that the process has used, to 10 ms.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // proc(5): utime and stime are fields 14 and 15; the name and what is before it are cut off here.
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Open descriptors of the process.
///
/// # Errors
/// A process that may not be inspected (no core files, other user) does not show them.
pub fn descriptors(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Whether the process runs; a zombie does not.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// Sends a signal to a process that the test started.
///
/// # Errors
/// When it is gone.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Raises the limit on descriptors as far as it goes and says where it is then.
pub fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && rustix::process::setrlimit(Resource::Nofile, raised).is_err() {
        return limit.current.map_or(usize::MAX, |now| now as usize);
    }
    limit.maximum.map_or(usize::MAX, |now| now as usize)
}

fn status_number(pid: u32, key: &str) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}
