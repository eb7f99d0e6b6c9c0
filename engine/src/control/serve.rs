//! The main thread of a running daemon: signals, the parent, the control socket; then drain, flush, seal, end.
//!
//! ```text
//! Serving -stop, SIGTERM, SIGINT, parent gone-> Draining -drained or deadline-> flush -> seal -> final state
//!                                                  `-second signal-> cut -> seal -> a state that is not final
//! ```
//!
//! It never waits for a client of the control socket, and nothing of the data plane waits for it.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::folder::{Folder, FolderError};
use super::journal::Journal;
use super::log;
use super::poll;
use super::protocol::{Answer, Bytes, Connections, DriverStatus, Request, Status, Stopped};
use super::resolve::Resolver;
use super::signals::Signals;
use super::socket::{ControlSocket, Reply};
use super::state::{CONTROL_SOCKET, Delivery, Ending, SCHEMA, State, StateDir};
use crate::driver::Driver;
use crate::limits::DRAIN_DEADLINE;

/// How often the cores are asked whether they are done, while they drain.
const DRAIN_LOOK: Duration = Duration::from_millis(5);
/// Time for what is in flight when the parent has ended: its jobs have ended with it.
const ORPHAN_DRAIN: Duration = Duration::from_secs(2);
/// Those who asked to stop get this long to take their answer.
const FAREWELL: Duration = Duration::from_secs(2);
/// The longest drain that can be asked for.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How a daemon ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The final state is written.
    Final,
    /// It is not, for this reason: the run cannot be verified.
    NotFinal(String),
}

/// A running daemon: what it hears, and the run.
pub(super) struct Daemon<'a> {
    pub(super) signals: Signals,
    pub(super) parent: Option<OwnedFd>,
    pub(super) control: ControlSocket,
    pub(super) run: Run<'a>,
}

/// A run under way.
pub(super) struct Run<'a> {
    pub(super) version: &'static str,
    pub(super) build_id: &'static str,
    pub(super) warnings: Vec<String>,
    pub(super) dir: &'a StateDir,
    pub(super) folder: Folder,
    pub(super) state: State,
    pub(super) started: Instant,
    pub(super) driver: Driver,
    pub(super) journal: Journal,
    pub(super) resolver: Resolver,
}

/// Where the loop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining { until: Instant },
    Cut,
}

impl Phase {
    /// Begins the drain, or shortens it; nothing lengthens it. Says whether it begins.
    fn drain(&mut self, now: Instant, time: Duration) -> bool {
        let wanted = now + time.min(DRAIN_MAX);
        let begins = *self == Phase::Serving;
        match *self {
            Phase::Serving => *self = Phase::Draining { until: wanted },
            Phase::Draining { until } => *self = Phase::Draining { until: until.min(wanted) },
            Phase::Cut => {}
        }
        begins
    }
}

impl Daemon<'_> {
    /// Serves until it is stopped.
    pub(super) fn serve(mut self) -> End {
        for id in &self.run.state.abandoned {
            log::line(&format!(
                "run {id} of the same job was found unfinished; the gate of this run will say so"
            ));
        }
        let mut phase = Phase::Serving;
        let mut signalled = 0_usize;
        loop {
            let ready = self.wait(phase);
            self.take_signals(&mut phase, &mut signalled);
            self.look_at_parent(&ready, &mut phase);
            self.answer(ready.get(4..).unwrap_or_default(), &mut phase);
            match phase {
                Phase::Serving => {}
                Phase::Draining { until } => {
                    if self.run.driver.is_drained() || Instant::now() >= until {
                        return self.end(None);
                    }
                }
                Phase::Cut => return self.end(Some("a second signal cut the drain".to_owned())),
            }
        }
    }

    /// Waits for the next thing to do; the readiness of: three signal pipes, the parent, the control socket.
    fn wait(&self, phase: Phase) -> Vec<PollFlags> {
        let [term, int, hup] = self.signals.fds();
        let mut fds: Vec<PollFd<'_>> =
            [term, int, hup].into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // A place of its own also without a parent to watch: a descriptor that is asked nothing.
        fds.push(match &self.parent {
            Some(parent) => PollFd::new(parent, PollFlags::IN),
            None => PollFd::from_borrowed_fd(term, PollFlags::empty()),
        });
        fds.extend(self.control.interest());
        let patience = match phase {
            Phase::Serving => self.control.patience(),
            Phase::Draining { .. } | Phase::Cut => Some(DRAIN_LOOK),
        };
        if let Err(error) = poll::wait(&mut fds, patience) {
            // Without memory for a poll the next one is all that can be tried.
            log::line(&format!("poll: {error}"));
        }
        fds.iter().map(PollFd::revents).collect()
    }

    fn take_signals(&self, phase: &mut Phase, signalled: &mut usize) {
        let arrived = self.signals.arrived();
        if arrived.hangup > 0 {
            log::line("SIGHUP: a reload of the policy is not supported yet; the policy stays");
        }
        let stops = arrived.terminate + arrived.interrupt;
        if stops == 0 {
            return;
        }
        *signalled += stops;
        if *signalled > 1 {
            log::line("a second signal: cutting what is in flight");
            *phase = Phase::Cut;
        } else {
            self.run.drain(phase, DRAIN_DEADLINE, "a signal");
        }
    }

    fn look_at_parent(&mut self, ready: &[PollFlags], phase: &mut Phase) {
        let gone = ready.get(3).is_some_and(|ready| ready.contains(PollFlags::IN));
        if gone && self.parent.take().is_some() {
            self.run.drain(phase, ORPHAN_DRAIN, "the end of the parent");
        }
    }

    /// Serves the control socket.
    fn answer(&mut self, ready: &[PollFlags], phase: &mut Phase) {
        let run = &self.run;
        let mut stop = None;
        let draining = *phase != Phase::Serving;
        self.control.serve(ready, Instant::now(), |request| match request {
            Request::Hello {} => {
                Reply::Now(Answer::Hello { run_id: run.state.run_id.clone(), pid: run.state.pid })
            }
            Request::Status {} => Reply::Now(Answer::Status(Box::new(Status { draining, ..run.status() }))),
            Request::Stop { run_id, .. } if run_id != run.state.run_id => {
                Reply::Now(Answer::Refused { why: format!("this is run {}", run.state.run_id) })
            }
            Request::Stop { timeout_ms, .. } => {
                stop = Some(timeout_ms.map_or(DRAIN_DEADLINE, Duration::from_millis));
                Reply::AtTheEnd
            }
        });
        if let Some(time) = stop {
            self.run.drain(phase, time, "`weir stop`");
        }
    }

    /// Ends the run and tells those who wait for it. `cut` says why it cannot be final.
    fn end(mut self, cut: Option<String>) -> End {
        let dir = self.run.dir;
        let stopped = self.run.end(cut);
        let why = stopped.why.clone();
        self.control.finish(&Answer::Stopped(Box::new(stopped)));
        say_farewell(&mut self.control);
        dir.folder().remove(CONTROL_SOCKET);
        match why {
            None => End::Final,
            Some(why) => {
                log::line(&format!("the run is not verifiable: {why}"));
                End::NotFinal(why)
            }
        }
    }
}

impl Run<'_> {
    /// Writes the first state.
    pub(super) fn publish(&self) -> Result<(), FolderError> {
        self.dir.write(&self.folder, &self.state)
    }

    /// Ends without a word: the start has failed.
    pub(super) fn give_up(mut self) {
        self.driver.halt();
        self.resolver.stop();
        drop(self.journal.seal());
    }

    fn drain(&self, phase: &mut Phase, time: Duration, cause: &str) {
        if phase.drain(Instant::now(), time) {
            log::line(&format!("draining for {cause}, at most {} s", time.as_secs()));
            self.driver.drain();
        }
    }

    /// What `weir status` shows.
    pub(super) fn status(&self) -> Status {
        let info = self.driver.info();
        let counters = self.driver.counters();
        let health = self.journal.health();
        let mut warnings = self.warnings.clone();
        warnings.extend(health.why.as_ref().map(|why| format!("the run is no longer verifiable: {why}")));
        warnings.extend(
            self.state.abandoned.iter().map(|id| format!("run {id} of the same job was found unfinished")),
        );
        Status {
            schema: SCHEMA,
            running: true,
            draining: false,
            run_id: self.state.run_id.clone(),
            pid: self.state.pid,
            version: self.version.to_owned(),
            build_id: self.build_id.to_owned(),
            address: self.state.address,
            uptime_s: self.started.elapsed().as_secs(),
            driver: DriverStatus {
                name: info.name.to_string(),
                rung: info.rung.to_string(),
                threads: info.threads,
            },
            mode: self.state.mode.clone(),
            policy: self.state.policy.clone(),
            state: self.dir.folder().path().to_path_buf(),
            journal: self.state.journal.clone(),
            job: self.state.job.clone(),
            connections: Connections {
                open: counters.open as u64,
                total: counters.total,
                tunnels: counters.tunnels as u64,
                refused: counters.refused,
            },
            bytes: Bytes { up: counters.up, down: counters.down },
            violations: self.journal.tally().totals.violations,
            verifiable: health.verifiable,
            warnings,
        }
    }

    /// Cuts what is left, flushes, seals, and writes the last state.
    fn end(mut self, cut: Option<String>) -> Stopped {
        self.driver.halt();
        self.resolver.stop();
        let delivery = flush();
        let sealed = self.journal.seal();
        let ending = Ending {
            head: sealed.head.to_string(),
            seq: sealed.seq,
            totals: sealed.tally.totals,
            verifiable: sealed.verifiable,
            why: sealed.why.map(|why| why.to_string()),
            delivery,
        };
        self.state.is_final = cut.is_none();
        self.state.why = cut;
        self.state.ended = Some(ending.clone());
        if let Err(error) = self.dir.write(&self.folder, &self.state) {
            self.state.is_final = false;
            self.state.why = Some(format!("the final state could not be written: {error}"));
        }
        let State { run_id, is_final, why, .. } = self.state;
        Stopped { run_id, is_final, why, ending }
    }
}

/// The stage between the drain and the seal in which events go to their sinks; there are no sinks yet.
fn flush() -> Vec<Delivery> {
    Vec::new()
}

/// Waits until the answers are taken.
fn say_farewell(control: &mut ControlSocket) {
    let until = Instant::now() + FAREWELL;
    while control.owes() && Instant::now() < until {
        let mut fds = control.interest();
        // Nobody new is heard.
        let _ = poll::wait(fds.get_mut(1..).unwrap_or_default(), Some(DRAIN_LOOK));
        let mut ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        if let Some(listener) = ready.first_mut() {
            *listener = PollFlags::empty();
        }
        control
            .serve(&ready, Instant::now(), |_| Reply::Now(Answer::Refused { why: "the run is over".into() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_only_ever_shortened() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let mut phase = Phase::Serving;
        assert!(phase.drain(now, seconds(30)));
        assert!(!phase.drain(now, seconds(60)));
        assert_eq!(phase, Phase::Draining { until: now + seconds(30) });
        assert!(!phase.drain(now, seconds(2)));
        assert_eq!(phase, Phase::Draining { until: now + seconds(2) });
        phase = Phase::Cut;
        assert!(!phase.drain(now, seconds(1)));
        assert_eq!(phase, Phase::Cut);
        phase = Phase::Serving;
        assert!(phase.drain(now, Duration::MAX));
        assert_eq!(phase, Phase::Draining { until: now + DRAIN_MAX });
    }
}
