//! `weir status`: how the daemon is, by its own word.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::control::fault::{Fault, Kind};
use engine::control::folder::FolderError;
use engine::control::poll::ask_until;
use engine::control::protocol::{Answer, Request, Status};
use engine::control::standing::{Standing, standing};
use engine::control::state::{State, StateDir};
use serde::Serialize;

use crate::args::{About, Args, Halt, Item, state_dir};
use crate::output::{Talk, exit, print, print_json};

const ABOUT: About = About {
    help: "\
usage: weir status [--json] [--wait TIME] [--state DIR]

Says how the proxy is: address, pid, driver, policy, connections, violations so far.
Exits 0 when it runs, 3 when it does not.

options:
      --json         as JSON (schema 1)
      --wait TIME    wait so long for it to run, such as 10s
      --state DIR    the state directory
",
    options: &["--json", "--wait", "--state", "--help", "--color"],
    later: &[],
};

/// The daemon must answer within this.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How often a daemon that is waited for is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// What is known of a daemon that does not run.
#[derive(Debug, Serialize)]
struct NotRunning {
    schema: u32,
    running: bool,
    state: PathBuf,
    run_id: Option<String>,
    #[serde(rename = "final")]
    is_final: bool,
    why: String,
}

/// `weir status`.
pub(crate) fn command(args: &mut Args) -> Result<u8, Halt> {
    let args = args.of(&ABOUT);
    let (mut json, mut wait, mut state) = (false, Duration::ZERO, None);
    while let Some(item) = args.next()? {
        match item {
            Item::Option(name) => match name.as_str() {
                "--json" => json = true,
                "--wait" => wait = args.duration("--wait")?,
                "--state" => state = Some(args.path("--state")?),
                _ => return Err(args.unknown(&name).into()),
            },
            Item::Operand(operand) => return Err(args.unexpected(&operand).into()),
        }
    }
    let place = state_dir(state)?;
    let mut last = None;
    let found = ask_until(Instant::now() + wait, LOOK, || match ask(&place) {
        Ok(status) => Some(status),
        Err(why) => {
            last = Some(why);
            None
        }
    });
    match (found, last) {
        (Some(status), _) if json => print_json(&status)?,
        (Some(status), _) => print(&lines(&status))?,
        (None, why) => {
            let why = why.unwrap_or_else(|| not_running(&place, None, "it was not looked for".into()));
            if json {
                print_json(&why)?;
            }
            return Err(Fault::new(Kind::NoDaemon, "weir is not running")
                .because(why.why)
                .hint(START)
                .into());
        }
    }
    Ok(exit::OK)
}

const START: &str = "start it with `weir start -D`; --state or WEIR_STATE names where it keeps its state";

/// The state of a daemon that lives.
///
/// # Errors
/// A fault (exit 3) that says why there is none.
pub(crate) fn living(place: &Path) -> Result<State, Fault> {
    match look(place) {
        Ok((state, _)) => Ok(state),
        Err(why) => Err(Fault::new(Kind::NoDaemon, "weir is not running").because(why.why).hint(START)),
    }
}

fn look(place: &Path) -> Result<(State, engine::control::ask::Line), NotRunning> {
    let dir = StateDir::open(place).map_err(|error| not_running(place, None, no_state(place, &error)))?;
    let state = dir.read().map_err(|error| not_running(place, None, no_state(place, &error)))?;
    match standing(&dir, &state) {
        Standing::Alive(line) => Ok((state, line)),
        Standing::Final => {
            let why = format!("run {} has ended", state.run_id);
            Err(not_running(place, Some(&state), why))
        }
        Standing::Dead(why) | Standing::Unreachable(why) => {
            let why = format!("run {}: {why}", state.run_id);
            Err(not_running(place, Some(&state), why))
        }
    }
}

fn ask(place: &Path) -> Result<Status, NotRunning> {
    let (state, mut line) = look(place)?;
    match line.ask(&Request::Status {}, ANSWER_DEADLINE) {
        Ok(Answer::Status(status)) => Ok(*status),
        Ok(_) => Err(not_running(place, Some(&state), "it answered something else than was asked".into())),
        Err(error) => Err(not_running(place, Some(&state), format!("it does not answer: {error}"))),
    }
}

fn no_state(place: &Path, error: &FolderError) -> String {
    match error {
        FolderError::Missing => format!("there is no state in {}", place.display()),
        error => format!("the state in {}: {error}", place.display()),
    }
}

fn not_running(place: &Path, state: Option<&State>, why: String) -> NotRunning {
    NotRunning {
        schema: 1,
        running: false,
        state: place.to_path_buf(),
        run_id: state.map(|state| state.run_id.clone()),
        is_final: state.is_some_and(|state| state.is_final),
        why,
    }
}

/// What `start` prints when it is ready.
pub(crate) fn summary(status: &Status) -> String {
    format!(
        "address: http://{}\nrun_id: {}\npid: {}\npolicy: {} ({}, {})\ndriver: {} ({}, {} threads)\nstate: {}\n",
        status.address,
        status.run_id,
        status.pid,
        status.policy.source,
        status.mode,
        status.policy.digest.get(..12).unwrap_or(&status.policy.digest),
        status.driver.name,
        status.driver.rung,
        status.driver.threads,
        status.state.display(),
    )
}

fn lines(status: &Status) -> String {
    let Status { connections, bytes, .. } = status;
    let mut text = summary(status);
    text += &format!(
        "journal: {}\nuptime: {} s{}\nconnections: {} open, {} in all, {} tunnels, {} refused\nbytes: {} up, {} down\nviolations: {}\n",
        status.journal.display(),
        status.uptime_s,
        if status.draining { ", draining" } else { "" },
        connections.open,
        connections.total,
        connections.tunnels,
        connections.refused,
        bytes.up,
        bytes.down,
        status.violations,
    );
    for warning in &status.warnings {
        text += &format!("warning: {}\n", crate::output::one_line(warning));
    }
    text
}

/// Says what a person should know of a daemon that has just begun.
pub(crate) fn warn(talk: Talk, status: &Status) {
    for warning in &status.warnings {
        talk.warning(warning);
    }
}
