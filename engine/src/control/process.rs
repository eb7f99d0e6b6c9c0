//! Facts about processes, and what the daemon does to its own at start.
//!
//! A pid names a process only together with its start time; nothing here sends a signal.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, getppid, getrlimit, pidfd_open,
    set_dumpable_behavior, setrlimit, umask,
};

/// When a process started, in clock ticks since boot (proc(5), field 22 of stat); `None` when there is none.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    start_ticks_of(&String::from_utf8_lossy(&stat))
}

/// The command's name (field 2) may hold spaces and brackets: count from the last bracket.
fn start_ticks_of(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The kernel's name for this boot: a state of another boot has no living daemon.
///
/// # Errors
/// When /proc is not there.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A descriptor that becomes readable when the process ends; `None` when it has ended already.
///
/// # Errors
/// When the kernel has no pidfds (before 5.3) or no descriptor is left.
pub fn watch(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A descriptor that becomes readable when this process' parent ends; `None` when it has ended already.
/// Not PDEATHSIG, which follows the parent's thread (prctl(2)).
///
/// # Errors
/// As for `watch`.
pub fn watch_parent() -> io::Result<Option<OwnedFd>> {
    let Some(parent) = getppid() else {
        // The parent lives in another pid namespace, where it cannot be watched from.
        return Err(io::Error::other("the parent is in another pid namespace"));
    };
    let pidfd = watch(parent.as_raw_nonzero().get().unsigned_abs())?;
    // Between the two calls the parent may have gone and its pid to another.
    Ok(pidfd.filter(|_| getppid() == Some(parent)))
}

/// Makes the process fit to hold secrets and many connections: no core files, no ptrace by its own user, files
/// private by default, as many descriptors as the hard limit gives. None of it is worth failing for.
pub fn harden() {
    // The allocator asks for huge pages; 2 MiB at a time is more than hundreds of idle tunnels need.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let descriptors = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: descriptors.maximum, ..descriptors });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_command_does_not_shift_the_fields() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("17 (a) b) (c) {}", fields.join(" "));
        assert_eq!(start_ticks_of(&stat), Some(22));
        assert_eq!(start_ticks_of("17 (a"), None);
        assert_eq!(start_ticks_of("17 (a) R 1"), None);
    }

    #[test]
    fn this_process_has_a_start_and_a_child_that_ended_can_be_waited_for() {
        assert!(start_ticks(std::process::id()).is_some());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pidfd = watch(child.id()).unwrap().expect("not reaped yet");
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
        child.wait().unwrap();
        assert!(watch(child.id()).unwrap().is_none());
    }
}
