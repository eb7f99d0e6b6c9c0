//! The state of a run on disk: what `start` leaves for every other command.
//!
//! ```text
//! <state dir>/        0700, ours
//!   state.lock        held (flock) for the daemon's life, never renamed
//!   state.json        the run that holds, or last held, the lock; replaced whole
//!   control.sock      0600
//!   runs/<id>/        one a run, kept for 7 days
//!     state.json      the run's own copy, so that a later start cannot make it unsaid
//!     journal.jsonl
//!     weir.log        of a detached daemon
//!     abandoned       a later start found the run unfinished
//!     answered        `stop --fail-on-violation` has answered 11 for the unfinished run
//! ```
//!
//! Invariants: only the holder of the lock writes `state.json`; `final` is written once, after the journal is
//! sealed; a run without it proves nothing. Nothing here signals a process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::fault::{Fault, Kind};
use super::folder::{Folder, FolderError};
use crate::audit::tally::Totals;

/// The version of `state.json` and of every JSON answer of the command line.
pub const SCHEMA: u32 = 1;
/// The file that names the run.
pub const STATE_FILE: &str = "state.json";
/// The journal of a run, in its folder.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// The control socket.
pub const CONTROL_SOCKET: &str = "control.sock";
const LOCK_FILE: &str = "state.lock";

/// `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `SCHEMA`; another one is refused.
    pub schema: u32,
    /// 128 random bits in hex.
    pub run_id: String,
    /// The daemon's process; names it only together with the next two.
    pub pid: u32,
    /// When it started, clock ticks since boot.
    pub process_start: u64,
    /// The boot that it started in.
    pub boot_id: String,
    /// Unix time in seconds.
    pub started_s: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its control socket.
    pub control: PathBuf,
    /// Its journal.
    pub journal: PathBuf,
    /// The CI job that it belongs to; `None` outside every known CI.
    pub job: Option<String>,
    /// `enforce`, `audit` or `observe`.
    pub mode: String,
    /// The policy in force.
    pub policy: PolicyName,
    /// Runs of the same job and boot that this start found unfinished, and for which no gate has answered.
    pub abandoned: Vec<String>,
    /// Whether the run has come to its end and `ended` can be relied on.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Why the run is not final although its daemon has ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// What the daemon said at its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<Ending>,
}

/// Which policy is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyName {
    /// The file, or the preset's name.
    pub source: String,
    /// Hex of its digest.
    pub digest: String,
}

/// The daemon's last word about a run, taken after the drain and the flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Hash of the journal's last line.
    pub head: String,
    /// Number of the journal's last line.
    pub seq: u64,
    /// What was counted.
    pub totals: Totals,
    /// Whether everything that was counted is in the journal.
    pub verifiable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// What became of the events that sinks were to get; one entry a sink.
    pub delivery: Vec<Delivery>,
}

/// What became of the events for one sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The sink's name in the policy.
    pub sink: String,
    /// Events that it took.
    pub delivered: u64,
    /// Events that it did not take.
    pub undelivered: u64,
}

/// The lock of a state directory; free again when it is dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] OwnedFd);

/// An open state directory.
#[derive(Debug)]
pub struct StateDir {
    folder: Folder,
}

impl StateDir {
    /// Opens it, making it where it is missing.
    ///
    /// # Errors
    /// A fault that names the directory, when it cannot be made or trusted.
    pub fn create(path: &Path) -> Result<Self, Fault> {
        if path.to_str().is_none_or(|text| text.contains(['\n', '\r', '\0'])) {
            return Err(Fault::new(Kind::Usage, format!("the state directory {path:?} is no line of UTF-8"))
                .hint("choose another one with --state or WEIR_STATE"));
        }
        match Folder::create(path) {
            Ok(folder) => Ok(Self { folder }),
            Err(error) => Err(unusable(path, &error)),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// `FolderError::Missing` when there is none: no daemon was ever started there.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Folder::open(path).map(|folder| Self { folder })
    }

    /// The directory itself.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Takes the lock, or says that another has it.
    ///
    /// # Errors
    /// A fault that names the file, when it cannot be opened or trusted.
    pub fn try_lock(&self) -> Result<Option<Lock>, Fault> {
        let fault = |error: &dyn std::fmt::Display| {
            Fault::new(
                Kind::Internal,
                format!("cannot lock {}", self.folder.path().join(LOCK_FILE).display()),
            )
            .because(error)
            .hint("remove what stands there, or choose another directory with --state")
        };
        let file = self.folder.open_lasting(LOCK_FILE).map_err(|error| fault(&error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(fault(&io::Error::from(errno))),
        }
    }

    /// Whether a daemon, or a start on its way, holds the lock. Makes no file.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = self.folder.open_read(LOCK_FILE) else { return false };
        // Shared, so that two who look do not take each other for a daemon; a start tries again.
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// The state of the last run.
    ///
    /// # Errors
    /// `Missing`, or `Untrusted` with what is wrong with it.
    pub fn read(&self) -> Result<State, FolderError> {
        read_state(&self.folder)
    }

    /// Replaces the state, and the run's own copy of it first.
    ///
    /// # Errors
    /// When either cannot be written.
    pub fn write(&self, run: &Folder, state: &State) -> Result<(), FolderError> {
        let mut text = serde_json::to_vec_pretty(state).map_err(io::Error::other)?;
        text.push(b'\n');
        run.write(STATE_FILE, &text)?;
        self.folder.write(STATE_FILE, &text)
    }
}

/// The state in `folder`: the directory's own, or a run's copy.
///
/// # Errors
/// `Missing`, or `Untrusted` with what is wrong with it.
pub fn read_state(folder: &Folder) -> Result<State, FolderError> {
    let text = folder.read(STATE_FILE)?;
    let state: State = serde_json::from_str(&text)
        .map_err(|error| FolderError::Untrusted(format!("it does not parse: {error}")))?;
    if state.schema != SCHEMA {
        return Err(FolderError::Untrusted(format!("it has schema {}, not {SCHEMA}", state.schema)));
    }
    if !is_run_id(&state.run_id) {
        return Err(FolderError::Untrusted("its run id is none".into()));
    }
    Ok(state)
}

/// Whether `text` is spelled as a run id; nothing else becomes part of a path.
pub fn is_run_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A new run id.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn new_run_id() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

fn unusable(path: &Path, error: &FolderError) -> Fault {
    Fault::new(Kind::Internal, format!("cannot use the state directory {}", path.display()))
        .because(error)
        .hint("choose another one with --state or WEIR_STATE")
}

#[cfg(test)]
pub(super) mod samples {
    //! A state for the tests of this folder.

    use super::*;

    pub(in crate::control) fn state(run_id: &str) -> State {
        State {
            schema: SCHEMA,
            run_id: run_id.into(),
            pid: std::process::id(),
            process_start: 1,
            boot_id: "boot".into(),
            started_s: 1_700_000_000,
            address: SocketAddr::from(([127, 0, 0, 1], 3128)),
            control: "/s/control.sock".into(),
            journal: "/s/runs/x/journal.jsonl".into(),
            job: Some("job:a".into()),
            mode: "enforce".into(),
            policy: PolicyName { source: "ci".into(), digest: "00".into() },
            abandoned: Vec::new(),
            is_final: false,
            why: None,
            ended: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn dir() -> (tempfile::TempDir, StateDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StateDir::create(&temporary.path().join("state")).unwrap();
        (temporary, dir)
    }

    #[test]
    fn a_state_comes_back_as_it_was_written() {
        let (_temporary, dir) = dir();
        assert!(matches!(dir.read(), Err(FolderError::Missing)));
        let run = dir.folder().create_inside("runs").unwrap();
        let mut state = samples::state(ID);
        state.is_final = true;
        state.ended = Some(Ending {
            head: "ab".into(),
            seq: 2,
            totals: Totals::default(),
            verifiable: true,
            why: None,
            delivery: Vec::new(),
        });
        dir.write(&run, &state).unwrap();
        assert_eq!(dir.read().unwrap(), state);
        assert_eq!(read_state(&run).unwrap(), state);
    }

    #[test]
    fn a_state_that_was_tampered_with_is_not_believed() {
        let (_temporary, dir) = dir();
        let good = serde_json::to_string(&samples::state(ID)).unwrap();
        for (text, says) in [
            (String::new(), "does not parse"),
            ("{".into(), "does not parse"),
            ("null".into(), "does not parse"),
            (good.replace("\"schema\":1", "\"schema\":2"), "schema 2"),
            (good.replace(ID, "../../../../tmp/elsewhere-0123456"), "run id"),
            (good.replace(ID, ""), "run id"),
        ] {
            dir.folder().write(STATE_FILE, text.as_bytes()).unwrap();
            match dir.read() {
                Err(FolderError::Untrusted(why)) => assert!(why.contains(says), "{text}: {why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_lock_has_one_holder_and_is_free_after_it() {
        let (_temporary, dir) = dir();
        assert!(!dir.is_locked(), "nobody has made it yet");
        let lock = dir.try_lock().unwrap().unwrap();
        assert!(dir.is_locked());
        assert!(dir.try_lock().unwrap().is_none());
        drop(lock);
        assert!(!dir.is_locked());
        assert!(dir.try_lock().unwrap().is_some());
    }

    #[test]
    fn a_planted_lock_is_refused_with_its_name() {
        let (temporary, dir) = dir();
        std::os::unix::fs::symlink(temporary.path(), dir.folder().path().join(LOCK_FILE)).unwrap();
        let fault = dir.try_lock().unwrap_err();
        assert!(fault.error.contains("state.lock") && fault.hint.is_some(), "{fault}");
    }

    #[test]
    fn run_ids_are_random_and_no_paths() {
        let id = new_run_id().unwrap();
        assert!(is_run_id(&id) && id != new_run_id().unwrap());
        for text in ["", "..", "0011", &ID.to_uppercase(), &format!("{ID}0"), &ID.replace('0', "/")] {
            assert!(!is_run_id(text), "{text}");
        }
    }

    #[test]
    fn a_directory_that_is_no_line_is_a_usage_fault() {
        let temporary = tempfile::tempdir().unwrap();
        let fault = StateDir::create(&temporary.path().join("a\nb")).unwrap_err();
        assert_eq!(fault.kind, Kind::Usage);
    }
}
