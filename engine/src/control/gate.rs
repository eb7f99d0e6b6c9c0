//! The gate: what `weir stop` may say about a run.
//!
//! It believes two witnesses that agree: the daemon, living or by its final state, and the journal, read again from
//! its first byte. Whatever is missing, foreign, unfinished or in disagreement makes the run unverifiable; nothing
//! falls back to "clean". It never signals a process: it asks the daemon, and only the one that the state names.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::ask::Line;
use super::folder::{Folder, FolderError};
use super::poll;
use super::process;
use super::protocol::{Answer, Request, Stopped};
use super::runs::{self, Runs};
use super::standing::{Standing, standing};
use super::state::{Delivery, Ending, JOURNAL_FILE, SCHEMA, State, StateDir};
use crate::audit::tally::{Tally, Totals, Violation};
use crate::audit::verify::{Verified, Verifier};
use crate::limits::DRAIN_DEADLINE;

/// What the daemon may take beyond the drain: flush, seal, write.
const SEAL_GRACE: Duration = Duration::from_secs(15);
/// What the daemon may take to end after it has answered.
const EXIT_GRACE: Duration = Duration::from_secs(5);
/// Bytes that are read from the journal at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Which run is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Whichever is there.
    Any,
    /// The job's environment names it (`WEIR_RUN_ID`): that run, and the job's runs before it.
    ByJob(String),
    /// `--run-id` names it: that run and no other.
    Exactly(String),
}

impl Expected {
    fn run_id(&self) -> Option<&str> {
        match self {
            Self::Any => None,
            Self::ByJob(id) | Self::Exactly(id) => Some(id),
        }
    }
}

/// A question to the gate.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The state directory.
    pub state: &'a Path,
    /// Which run is meant.
    pub expected: Expected,
    /// Time for what is in flight; the default of `limits` when absent.
    pub timeout: Option<Duration>,
    /// Whether the answer is a gate's (`--fail-on-violation`), which then need not be given again for a run that
    /// was found dead.
    pub binding: bool,
}

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// There never was a run, and none is expected.
    NoRun,
    /// A run is expected, or has left traces, but its state is not there.
    Missing,
    /// Something disagrees; `Report::why` says what.
    Unverifiable,
    /// Daemon and journal agree; these are the violations.
    Violations(u64),
}

/// The answer, also as `weir stop --json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `state::SCHEMA`.
    pub schema: u32,
    /// The run that was found.
    pub run_id: Option<String>,
    /// Whether it came to its end and said so.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Whether what follows can be relied on.
    pub verifiable: bool,
    /// Why not, a line each.
    pub why: Vec<String>,
    /// What a person should know, a line each.
    pub warnings: Vec<String>,
    /// The numbers: the daemon's, or what the journal still says.
    pub totals: Option<Totals>,
    /// Refusals that the gate counts, the first thousand.
    pub violations: Vec<Violation>,
    /// What became of the events for the sinks.
    pub delivery: Vec<Delivery>,
    /// The journal.
    pub journal: Option<PathBuf>,
    /// Hash of its last line, by the daemon's word.
    pub head: Option<String>,
    /// Number of its last line, by the daemon's word.
    pub seq: Option<u64>,
    /// The sentence in one value.
    #[serde(skip)]
    pub finding: Finding,
}

/// Stops the run where it lives, and says what can be said about it.
pub fn judge(question: &Question<'_>) -> Report {
    let mut report = Report::empty();
    let dir = match StateDir::open(question.state) {
        Ok(dir) => dir,
        Err(FolderError::Missing) => return report.missing(question, false),
        Err(error) => {
            return report.doubt(format!("the state directory {}: {error}", question.state.display()));
        }
    };
    let state = match dir.read() {
        Ok(state) => state,
        Err(FolderError::Missing) => {
            let traces = dir.is_locked() || Runs::open(dir.folder()).is_ok_and(|runs| !runs.is_empty());
            return report.missing(question, traces);
        }
        Err(error) => return report.doubt(format!("the state in {}: {error}", question.state.display())),
    };
    if let Some(expected) = question.expected.run_id()
        && expected != state.run_id
    {
        let why = foreign(&dir, expected, &state);
        return report.doubt(why);
    }
    report.run(question, &dir, &state);
    report
}

/// Why a run that is not the state's own cannot be answered for.
fn foreign(dir: &StateDir, expected: &str, state: &State) -> String {
    let run = Runs::open(dir.folder()).and_then(|runs| runs.run(expected));
    let fate = match run {
        Ok(run) if runs::is_abandoned(&run) => "it never came to its end: a later start found it unfinished",
        Ok(_) => "another run was started after it",
        Err(_) => "nothing is known of it here",
    };
    format!("run {expected} is not the one of this state, which is {}; {fate}", state.run_id)
}

impl Report {
    fn empty() -> Self {
        Self {
            schema: SCHEMA,
            run_id: None,
            is_final: false,
            verifiable: false,
            why: Vec::new(),
            warnings: Vec::new(),
            totals: None,
            violations: Vec::new(),
            delivery: Vec::new(),
            journal: None,
            head: None,
            seq: None,
            finding: Finding::NoRun,
        }
    }

    fn doubt(mut self, why: String) -> Self {
        self.doubtful(why);
        self
    }

    fn doubtful(&mut self, why: String) {
        self.why.push(why);
        self.verifiable = false;
        self.finding = Finding::Unverifiable;
    }

    fn missing(mut self, question: &Question<'_>, traces: bool) -> Self {
        let place = question.state.display();
        match question.expected.run_id() {
            Some(id) => self.why.push(format!("run {id} was expected, and there is no state in {place}")),
            None if traces => {
                self.why.push(format!("runs have left traces in {place}, but its state is gone"))
            }
            None => {
                self.why.push(format!("no daemon was ever started on {place}"));
                return self;
            }
        }
        self.finding = Finding::Missing;
        self
    }

    /// The run of this state.
    fn run(&mut self, question: &Question<'_>, dir: &StateDir, state: &State) {
        self.run_id = Some(state.run_id.clone());
        self.verifiable = true;
        let run = match Runs::open(dir.folder()).and_then(|runs| runs.run(&state.run_id)) {
            Ok(run) => Some(run),
            Err(error) => {
                self.doubtful(format!("the folder of run {}: {error}", state.run_id));
                None
            }
        };
        self.journal = run.as_ref().map(|run| run.path().join(JOURNAL_FILE));
        let ending = match standing(dir, state) {
            Standing::Alive(line) => self.stop(question, dir, state, line),
            Standing::Final => {
                self.is_final = true;
                state.ended.clone()
            }
            Standing::Dead(why) | Standing::Unreachable(why) => {
                self.doubtful(format!("run {} never came to its end: {why}", state.run_id));
                if let (true, Some(run)) = (question.binding, &run) {
                    runs::mark_answered(run);
                }
                None
            }
        };
        self.compare(state, run.as_ref(), ending);
        if !matches!(question.expected, Expected::Exactly(_)) {
            for id in &state.abandoned {
                self.doubtful(format!(
                    "run {id} of the same job never came to its end, and this one followed it"
                ));
            }
        }
        if let (Finding::NoRun, Some(totals)) = (self.finding, &self.totals) {
            self.finding = Finding::Violations(totals.violations);
        }
    }

    /// Asks the living daemon to end, and waits until it has.
    fn stop(
        &mut self,
        question: &Question<'_>,
        dir: &StateDir,
        state: &State,
        mut line: Line,
    ) -> Option<Ending> {
        let request = Request::Stop {
            run_id: state.run_id.clone(),
            timeout_ms: question.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        };
        // Of the process that greeted us: a descriptor, so that its pid can become nobody else's meanwhile.
        let process = process::watch(state.pid).ok().flatten();
        let within = question.timeout.unwrap_or(DRAIN_DEADLINE).saturating_add(SEAL_GRACE);
        match line.ask(&request, within) {
            Ok(Answer::Stopped(stopped)) => {
                if let Some(process) = process
                    && !poll::readable(&process, EXIT_GRACE)
                {
                    self.warnings
                        .push(format!("the daemon (pid {}) has answered but not ended yet", state.pid));
                }
                let Stopped { is_final, why, ending, .. } = *stopped;
                self.is_final = is_final;
                if !is_final {
                    self.doubtful(why.unwrap_or_else(|| "the final state could not be written".into()));
                }
                Some(ending)
            }
            Ok(Answer::Refused { why }) => {
                self.doubtful(format!("the daemon refused to stop: {why}"));
                None
            }
            Ok(_) => {
                self.doubtful("the daemon answered something else than was asked".into());
                None
            }
            // It may have died after its last state was written: that one counts, now and when it is asked again.
            Err(error) => match dir.read() {
                Ok(last) if last.is_final && last.run_id == state.run_id => {
                    self.is_final = true;
                    last.ended
                }
                _ => {
                    self.doubtful(format!("the daemon did not say how the run ended: {error}"));
                    None
                }
            },
        }
    }

    /// Reads the journal again and holds it against the daemon's word.
    fn compare(&mut self, state: &State, run: Option<&Folder>, ending: Option<Ending>) {
        let journal = run.map(|run| read_journal(run, &state.run_id));
        match (&journal, &ending) {
            (Some(Ok(journal)), Some(ending)) => {
                for why in disagreements(journal, ending) {
                    self.doubtful(why);
                }
            }
            (Some(Err(why)), _) => self.doubtful(why.clone()),
            (_, None) if self.is_final => {
                self.doubtful("the final state does not say how the run ended".into())
            }
            _ => {}
        }
        if let Some(Ok(Verified { tally: Tally { totals, violations }, .. })) = journal {
            self.totals = Some(totals);
            self.violations = violations;
        }
        if let Some(ending) = ending {
            if !ending.verifiable {
                let why = ending.why.as_deref().unwrap_or("the daemon does not say why");
                self.doubtful(format!("the journal is not complete: {why}"));
            }
            self.totals = Some(ending.totals);
            self.delivery = ending.delivery;
            self.head = Some(ending.head);
            self.seq = Some(ending.seq);
        }
    }
}

/// What the journal and the daemon say differently.
fn disagreements(journal: &Verified, ending: &Ending) -> Vec<String> {
    let mut found = Vec::new();
    if !journal.sealed {
        found.push("the journal has no last line".to_owned());
    }
    if journal.seq != ending.seq {
        found.push(format!("the journal has {} lines, the daemon wrote {}", journal.seq, ending.seq));
    }
    if journal.head.to_string() != ending.head {
        found.push("the journal ends with another hash than the daemon says".to_owned());
    }
    if journal.tally.totals != ending.totals {
        found.push("the journal counts otherwise than the daemon".to_owned());
    }
    if journal.lost > 0 {
        found.push(format!("{} records never reached the journal", journal.lost));
    }
    found
}

fn read_journal(run: &Folder, run_id: &str) -> Result<Verified, String> {
    let at = |error: &dyn std::fmt::Display| format!("the journal {JOURNAL_FILE}: {error}");
    let mut file = run.open_read(JOURNAL_FILE).map_err(|error| at(&error))?;
    let mut verifier = Verifier::new(Some(run_id));
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk).map_err(|error| at(&error))?;
        if read == 0 {
            return verifier.finish().map_err(|broken| broken.to_string());
        }
        verifier.push(chunk.get(..read).unwrap_or_default()).map_err(|broken| broken.to_string())?;
    }
}
