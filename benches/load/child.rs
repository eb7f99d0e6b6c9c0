//! Processes of a run: started, known by pid, and ended with the run, however it ends.
//!
//! Our own (origin, relay, generator) ask the kernel to be killed with their parent. A foreign program cannot be
//! asked, and one that changes its user loses that wish; it gets a warden, a small process of ours in a group of
//! its own that ends it as soon as the pipe from the run closes, be it by a drop, ctrl-c or SIGKILL.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use serde_json::Value;

/// A foreign program's output, in its scratch directory.
pub(crate) const LOG: &str = "output.log";

/// A program has this long to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A process that lives as long as this value.
pub(crate) struct Process {
    child: Child,
    /// What is measured: the program itself, never its warden.
    pub(crate) pid: u32,
    is_warden: bool,
}

impl Process {
    /// Starts a part of ourselves that serves; returns when it says on which port of loopback.
    pub(crate) fn part(arguments: &[&str]) -> io::Result<(Self, u16)> {
        let mut child = ourselves()?.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let pid = child.id();
        let said = first_number(&mut child);
        let process = Self { child, pid, is_warden: false };
        let port = u16::try_from(said?).map_err(io::Error::other)?;
        Ok((process, port))
    }

    /// Starts a foreign program under a warden. It sees no environment but PATH; the warden removes `scratch`.
    pub(crate) fn foreign(program: &Path, arguments: &[OsString], scratch: &Path) -> io::Result<Self> {
        let mut warden = ourselves()?;
        warden.arg("warden").arg(scratch).arg(program).args(arguments);
        let mut child = warden.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn()?;
        let said = first_number(&mut child);
        let mut process = Self { child, pid: 0, is_warden: true };
        process.pid = said?;
        Ok(process)
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if !self.is_warden {
            let _gone_already = self.child.kill();
        }
        let _status = self.child.wait();
    }
}

/// Runs a part of ourselves to its end; its one JSON value, or its last words as the error.
pub(crate) fn answer(arguments: &[&str]) -> io::Result<Value> {
    let output = ourselves()?.args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout)?)
    } else {
        let words = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{} ({})", words.trim(), output.status)))
    }
}

/// Called by a part of ourselves before anything else.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Tells the parent a number. Fails when the parent is gone, so that a part which lost it early ends too.
pub(crate) fn say(number: u32) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{number}")?;
    out.flush()
}

/// The warden's life: starts the program, waits until it ends or stdin does, then leaves nothing behind.
pub(crate) fn warden(scratch: &Path, program: &Path, arguments: &[OsString]) -> io::Result<()> {
    let log = File::create(scratch.join(LOG))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn()?;
    let ended = say(child.id()).and_then(|()| guard(&child));
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // The child is not waited for yet, so its pid and group are still its own.
        let _gone_already = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait()?;
    if matches!(ended, Ok(true)) {
        // The parent still reads the log; it removes the directory.
        return Err(io::Error::other(format!("{} ended by itself: {status}", program.display())));
    }
    std::fs::remove_dir_all(scratch)
}

/// Waits for the program's end (true) or for the pipe's (false), after which the program is asked to end.
fn guard(child: &Child) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no pid"))?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let stdin = io::stdin();
    let mut both = [PollFd::new(&handle, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut both, None)?;
    if both.first().is_some_and(|handle| !handle.revents().is_empty()) {
        return Ok(true);
    }
    kill_process(pid, Signal::TERM)?;
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&Timespec::try_from(GRACE).unwrap_or_default()))?;
    Ok(false)
}

fn ourselves() -> io::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// The number a child says first.
fn first_number(child: &mut Child) -> io::Result<u32> {
    let Some(stdout) = child.stdout.take() else { return Err(io::Error::other("no pipe to the child")) };
    let mut line = String::new();
    BufReader::new(stdout.take(64)).read_line(&mut line)?;
    line.trim().parse().map_err(|_| io::Error::other("a part of the harness ended before it was ready"))
}

/// The end of a foreign program's output, for an error.
pub(crate) fn last_words(scratch: &Path) -> String {
    let text = std::fs::read(scratch.join(LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("; ")
}

/// Finds a program on PATH or in the system's directories for administrators.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|file| file.is_file())
}
