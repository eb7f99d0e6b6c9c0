//! Whether the daemon that a state names lives.
//!
//! It lives only if the lock is held, the boot and the start time of its process agree, and the control socket
//! answers with its run id. A pid alone means nothing: it may be another's by now.

use std::time::Duration;

use super::ask::Line;
use super::process;
use super::protocol::{Answer, Request};
use super::state::{CONTROL_SOCKET, State, StateDir};

/// The daemon must say who it is within this.
const HELLO_DEADLINE: Duration = Duration::from_secs(2);

/// How a run stands.
#[derive(Debug)]
pub enum Standing {
    /// Its daemon lives and is at the other end of this line.
    Alive(Line),
    /// It came to its end and said so.
    Final,
    /// Nobody is there, and it never came to its end.
    Dead(String),
    /// Somebody holds the lock who does not answer as its daemon would.
    Unreachable(String),
}

/// Looks how the run of `state` stands; `state` was read from `dir`.
pub fn standing(dir: &StateDir, state: &State) -> Standing {
    if state.is_final {
        return Standing::Final;
    }
    if !dir.is_locked() {
        let pid = state.pid;
        let why = match process::start_ticks(pid) {
            Some(start) if !is_same_process(state, start) => {
                format!("its daemon is gone without a word; pid {pid} is another process by now")
            }
            _ => "its daemon is gone without a word: killed, crashed, or the machine went down".to_owned(),
        };
        return Standing::Dead(state.why.clone().unwrap_or(why));
    }
    match process::start_ticks(state.pid) {
        Some(start) if is_same_process(state, start) => {}
        Some(_) => return Standing::Unreachable(format!("pid {} is another process by now", state.pid)),
        None => return Standing::Unreachable(format!("there is no process {}", state.pid)),
    }
    greet(dir, state).map_or_else(Standing::Unreachable, Standing::Alive)
}

fn is_same_process(state: &State, start: u64) -> bool {
    state.process_start == start && process::boot_id().is_ok_and(|boot| boot == state.boot_id)
}

fn greet(dir: &StateDir, state: &State) -> Result<Line, String> {
    let mut line = Line::connect(dir.folder(), CONTROL_SOCKET, HELLO_DEADLINE)
        .map_err(|error| format!("its control socket cannot be reached: {error}"))?;
    match line.ask(&Request::Hello {}, HELLO_DEADLINE) {
        Ok(Answer::Hello { run_id, .. }) if run_id == state.run_id => Ok(line),
        Ok(_) => Err("its control socket answers for another run".into()),
        Err(error) => Err(format!("its control socket does not answer: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::samples;
    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn dir() -> (tempfile::TempDir, StateDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StateDir::create(&temporary.path().join("state")).unwrap();
        (temporary, dir)
    }

    #[test]
    fn a_living_pid_alone_is_no_daemon() {
        let (_temporary, dir) = dir();
        let mut state = samples::state(ID);
        let Standing::Dead(why) = standing(&dir, &state) else { panic!("nobody holds the lock") };
        assert!(why.contains("another process"), "{why}");
        // Even the right start time does not help while the lock is free.
        state.process_start = process::start_ticks(state.pid).unwrap();
        state.boot_id = process::boot_id().unwrap();
        assert!(matches!(standing(&dir, &state), Standing::Dead(_)));
    }

    #[test]
    fn a_held_lock_alone_is_no_daemon() {
        let (_temporary, dir) = dir();
        let _lock = dir.try_lock().unwrap().unwrap();
        let mut state = samples::state(ID);
        let Standing::Unreachable(why) = standing(&dir, &state) else { panic!("another start time") };
        assert!(why.contains("another process"), "{why}");
        state.process_start = process::start_ticks(state.pid).unwrap();
        state.boot_id = process::boot_id().unwrap();
        let Standing::Unreachable(why) = standing(&dir, &state) else { panic!("no socket") };
        assert!(why.contains("control socket"), "{why}");
        state.boot_id = "another boot".into();
        assert!(matches!(standing(&dir, &state), Standing::Unreachable(_)));
    }

    #[test]
    fn a_final_state_needs_nobody() {
        let (_temporary, dir) = dir();
        let mut state = samples::state(ID);
        state.is_final = true;
        assert!(matches!(standing(&dir, &state), Standing::Final));
    }

    #[test]
    fn a_run_that_said_why_it_is_not_final_is_quoted() {
        let (_temporary, dir) = dir();
        let mut state = samples::state(ID);
        state.why = Some("a second signal cut the drain".into());
        assert!(matches!(standing(&dir, &state), Standing::Dead(why) if why.contains("second signal")));
    }
}
