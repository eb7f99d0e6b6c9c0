//! `weir run`: a proxy for one command.
//!
//! The daemon is a child with a state of its own that ends with us; the command gets the environment of `weir env`
//! and the signals that are sent to us. Its exit code is passed on, unless the gate has something to say.

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use engine::control::fault::{Fault, Kind};
use engine::control::folder::Folder;
use engine::control::gate::{Expected, Finding, Question, judge};
use engine::control::poll::wait;
use engine::control::process::watch;
use engine::control::signals::Signals;
use engine::control::state::new_run_id;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, kill_process};

use crate::args::{About, Args, Halt, Item, state_dir, usage};
use crate::detach::{self, Launched};
use crate::env;
use crate::output::{Talk, exit};
use crate::report;
use crate::start::{Flags, LATER, fixed_port};
use crate::status::living;

const ABOUT: About = About {
    help: "\
usage: weir run [options of start] -- COMMAND [ARGUMENTS…]

Starts a proxy, runs COMMAND through it, stops the proxy and says what it refused.
Exits with COMMAND's code when that failed; else with 11 when the run cannot be verified, 10 when the gate's
refusals happened, 0 otherwise. The proxy's state is private and goes when all was well.

options: those of `weir start`, without -D
",
    options: &[
        "--config",
        "--mode",
        "--host",
        "--port",
        "--driver",
        "--threads",
        "--state",
        "--log-file",
        "--help",
        "--color",
    ],
    later: LATER,
};

/// As shells answer for a command that is not there, or cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// `weir run`.
pub(crate) fn command(args: &mut Args) -> Result<u8, Halt> {
    let (mut flags, command) = parse(args)?;
    let talk = Talk::new(args.color);
    fixed_port(&mut flags)?;
    let private = match flags.state.take() {
        Some(named) => {
            flags.state = Some(named);
            None
        }
        None => {
            let place = private_place()?;
            flags.state = Some(place.clone());
            Some(place)
        }
    };
    flags.die_with_parent = true;
    let signals = Signals::take_over()
        .map_err(|error| Fault::new(Kind::Internal, "cannot take over signals").because(error))?;
    let daemon = match detach::launch(&flags) {
        Ok(Ok(daemon)) => daemon,
        Ok(Err(code)) => {
            remove(private);
            return Ok(code);
        }
        Err(fault) => {
            remove(private);
            return Err(fault.into());
        }
    };
    let ran = run_through(&daemon, &command, &signals);
    let (code, clean) = settle(talk, daemon, ran, private.is_some());
    match private {
        Some(place) if clean => remove(Some(place)),
        Some(place) => talk.say(&format!("weir: the state of this run is kept in {}", place.display())),
        None => {}
    }
    Ok(code)
}

fn parse(args: &mut Args) -> Result<(Flags, Vec<OsString>), Halt> {
    let args = args.of(&ABOUT);
    let mut flags = Flags::default();
    while let Some(item) = args.next()? {
        match item {
            Item::Option(name) if matches!(name.as_str(), "-D" | "--daemon" | "--die-with-parent") => {
                return Err(usage(format!(
                    "{name} is not for `run`: its proxy lives as long as the command"
                ))
                .hint("leave it out")
                .into());
            }
            Item::Option(name) => {
                if !flags.take(&name, args)? {
                    return Err(args.unknown(&name).into());
                }
            }
            Item::Operand(first) => {
                let mut command = vec![first];
                command.extend(args.rest()?);
                return Ok((flags, command));
            }
        }
    }
    Err(usage("no command to run").hint("weir run -- COMMAND [ARGUMENTS…]").into())
}

/// A directory of this run alone, under the place where a state would be.
fn private_place() -> Result<PathBuf, Fault> {
    let parent = state_dir(None)?;
    let made = Folder::create(&parent)
        .and_then(|folder| folder.create_inside(&format!("run-{}", new_run_id()?)))
        .map(|folder| folder.path().to_path_buf());
    made.map_err(|error| {
        Fault::new(Kind::Internal, format!("cannot make a state directory in {}", parent.display()))
            .because(error)
            .hint("--state or WEIR_STATE names another place")
    })
}

fn remove(place: Option<PathBuf>) {
    if let Some(place) = place {
        // What stays behind is named by the system's own cleaning of temporary directories.
        let _ = std::fs::remove_dir_all(place);
    }
}

/// Runs the command with the proxy's environment; answers how it ended.
fn run_through(daemon: &Launched, command: &[OsString], signals: &Signals) -> Result<ExitStatus, RunFault> {
    let (program, arguments) = command.split_first().ok_or(RunFault::Start(ErrorKind::NotFound.into()))?;
    let route = living(&daemon.status.state)
        .and_then(|state| env::route(&state, None, Vec::new()))
        .map_err(RunFault::Proxy)?;
    let mut child =
        Command::new(program).args(arguments).envs(route.variables()).spawn().map_err(RunFault::Start)?;
    attend(&mut child, signals).map_err(RunFault::Start)
}

/// Why the command did not run.
#[derive(Debug)]
enum RunFault {
    Start(std::io::Error),
    Proxy(Fault),
}

/// Waits for the command and hands on the signals that come meanwhile.
fn attend(child: &mut Child, signals: &Signals) -> std::io::Result<ExitStatus> {
    let Some(process) = watch(child.id())? else { return child.wait() };
    // The terminal has sent its ^C to the command already.
    let from_terminal = std::io::stdin().is_terminal();
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        fds.extend(signals.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        wait(&mut fds, None)?;
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let arrived = signals.arrived();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        for (count, signal) in [
            (arrived.terminate, Signal::TERM),
            (if from_terminal { 0 } else { arrived.interrupt }, Signal::INT),
            (arrived.hangup, Signal::HUP),
        ] {
            if let (1.., Some(pid)) = (count, pid) {
                // Not waited for yet, so the pid is still its own.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

/// Stops the proxy, says what it has seen, and decides the exit code; and whether nothing need be kept. The journal
/// of a `private` state that nobody need keep is not named: it is gone when the report is read.
fn settle(talk: Talk, mut daemon: Launched, ran: Result<ExitStatus, RunFault>, private: bool) -> (u8, bool) {
    let mut answer = judge(&Question {
        state: &daemon.status.state,
        expected: Expected::Exactly(daemon.status.run_id.clone()),
        timeout: None,
        binding: true,
    });
    if answer.is_final {
        // It has ended; this only takes the entry from the process table.
        let _ = daemon.child.wait();
    }
    let clean = answer.finding == Finding::Violations(0);
    if clean && private {
        answer.journal = None;
    }
    report::say(talk, &answer);
    let gate = report::exit_code(answer.finding, true);
    let code = match ran {
        Ok(status) => match code_of(status) {
            exit::OK => gate,
            code => code,
        },
        Err(RunFault::Proxy(fault)) => talk.fault(&fault),
        Err(RunFault::Start(error)) => {
            talk.fault(&Fault::new(Kind::Usage, "cannot run the command").because(&error));
            if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
        }
    };
    (code, clean)
}

/// The code of a command, as a shell would tell it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::INTERNAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::sample;

    #[test]
    fn everything_behind_the_command_is_its_own() {
        for words in [
            &["--port", "0", "--", "npm", "ci", "--json", "--", "-D"][..],
            &["--port=0", "npm", "ci", "--json", "--", "-D"],
        ] {
            let (flags, command) = parse(&mut sample(&ABOUT, words)).unwrap();
            assert_eq!(flags.port, Some(0));
            assert_eq!(command, ["npm", "ci", "--json", "--", "-D"], "{words:?}");
        }
        assert!(parse(&mut sample(&ABOUT, &["-D", "--", "npm"])).is_err());
        assert!(parse(&mut sample(&ABOUT, &["--port", "0", "--"])).is_err());
    }

    #[test]
    fn a_signal_is_told_as_shells_do() {
        assert_eq!(code_of(ExitStatus::from_raw(0)), 0);
        assert_eq!(code_of(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code_of(ExitStatus::from_raw(9)), 137);
    }
}
