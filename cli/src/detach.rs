//! Starting a daemon as a child of our own, and the way from a child to a daemon.
//!
//! No fork: the launcher runs the same program again with `HANDSHAKE`. The child's stdout is a pipe, on which it
//! writes its status, one line of JSON, when it is ready; its stderr is ours until then, so it tells people itself
//! why it could not start. After that both lead to the log. No other descriptor of the launcher reaches it, which
//! is why `out=$(weir start -D)` returns.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};

use engine::control::fault::{Fault, Kind};
use engine::control::protocol::Status;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::output::exit;
use crate::start::Flags;

/// The option between a launcher and its daemon; no part of the command line that people see.
pub(crate) const HANDSHAKE: &str = "--handshake";

/// A daemon that is ready.
#[derive(Debug)]
pub(crate) struct Launched {
    /// What it says of itself.
    pub(crate) status: Status,
    /// Its process.
    pub(crate) child: Child,
}

/// Starts a daemon and waits until it is ready. Answers the exit code of one that could not start; it has said why.
///
/// # Errors
/// When the program cannot be run again.
pub(crate) fn launch(flags: &Flags) -> Result<Result<Launched, u8>, Fault> {
    let failed = |error: &dyn std::fmt::Display| {
        Fault::new(Kind::Internal, "cannot start the daemon's process").because(error)
    };
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    keep_descriptors_ours().map_err(|error| failed(&error))?;
    let mut child = Command::new(program)
        .args(["start", HANDSHAKE])
        .args(flags.words())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // What cannot be read is no status, and the child's end says the rest.
        let _ = BufReader::new(stdout).read_line(&mut line);
    }
    match serde_json::from_str(&line) {
        Ok(status) => Ok(Ok(Launched { status, child })),
        Err(_) => {
            let status = child.wait().map_err(|error| failed(&error))?;
            match status.code().and_then(|code| u8::try_from(code).ok()) {
                Some(code) if code != exit::OK => Ok(Err(code)),
                _ => Err(failed(&format!("it ended before it was ready: {status}"))),
            }
        }
    }
}

/// Marks every descriptor but the standard ones close-on-exec: a pipe that the launcher was given must not live on
/// in the daemon.
fn keep_descriptors_ours() -> std::io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if number <= 2 {
            continue;
        }
        #[expect(unsafe_code, reason = "a descriptor that was inherited has no owner here to borrow it from")]
        // SAFETY: the number was open a moment ago and is only borrowed for two fcntl calls; nothing else runs in
        // this process, and if it was closed since (the listing's own), the calls answer EBADF.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if let Ok(flags) = fcntl_getfd(descriptor) {
            let _ = fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// Leaves the launcher's session: its terminal and its signals are not ours.
pub(crate) fn become_daemon() {
    // Fails only for the leader of a process group, which a spawned child is not.
    let _ = rustix::process::setsid();
}

/// Tells the launcher that the daemon works.
///
/// # Errors
/// When the launcher has gone: then nobody knows of this daemon, and it must not stay.
pub(crate) fn report_ready(status: &Status) -> Result<(), Fault> {
    let gone = |error: &dyn std::fmt::Display| {
        Fault::new(Kind::Internal, "the launcher ended before the daemon was ready").because(error)
    };
    let mut line = serde_json::to_vec(status).map_err(|error| gone(&error))?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line).and_then(|()| stdout.flush()).map_err(|error| gone(&error))
}

/// Leads stderr to `log`, and stdout with it where it was the launcher's pipe.
///
/// # Errors
/// When a descriptor cannot be had.
pub(crate) fn talk_to(log: &impl AsFd, stdout_too: bool) -> std::io::Result<()> {
    rustix::stdio::dup2_stderr(log)?;
    if stdout_too {
        rustix::stdio::dup2_stdout(log)?;
    }
    Ok(())
}
