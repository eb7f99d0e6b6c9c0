//! The folder `runs/`: one folder a run, what became of it, and when it goes.
//!
//! A run that was neither finished nor marked is unfinished: its daemon was killed, or the machine was. The next
//! start names it in the new state where it was of the same job, and marks it, so that a restart does not make a
//! crash unseen. Whoever writes here holds the lock, except for the mark `answered`.

use std::io;
use std::path::Path;

use super::folder::{Folder, FolderError};
use super::state::{is_run_id, read_state};

const RUNS: &str = "runs";
const ABANDONED: &str = "abandoned";
const ANSWERED: &str = "answered";
/// Seconds that a run's folder is kept.
const KEPT_S: u64 = 7 * 24 * 60 * 60;

/// The folder of all runs.
#[derive(Debug)]
pub struct Runs {
    folder: Folder,
}

impl Runs {
    /// Opens it in the state directory, making it where it is missing.
    ///
    /// # Errors
    /// When it cannot be made or trusted.
    pub fn create(state_dir: &Folder) -> Result<Self, FolderError> {
        Ok(Self { folder: state_dir.create_inside(RUNS)? })
    }

    /// Opens it in the state directory.
    ///
    /// # Errors
    /// `Missing` when no run was ever started there.
    pub fn open(state_dir: &Folder) -> Result<Self, FolderError> {
        Ok(Self { folder: state_dir.inside(RUNS)? })
    }

    /// Makes the folder of a new run.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&self, run_id: &str) -> Result<Folder, FolderError> {
        self.folder.create_inside(run_id)
    }

    /// The folder of a run.
    ///
    /// # Errors
    /// `Missing` when there is none; what is no run id names none.
    pub fn run(&self, run_id: &str) -> Result<Folder, FolderError> {
        if is_run_id(run_id) { self.folder.inside(run_id) } else { Err(FolderError::Missing) }
    }

    /// Takes a run's folder away, with everything in it.
    pub fn remove(&self, run_id: &str) {
        if is_run_id(run_id) {
            let _ = std::fs::remove_dir_all(self.folder.short_path(run_id));
        }
    }

    /// Whether no run has left anything here.
    pub fn is_empty(&self) -> bool {
        self.ids().is_ok_and(|ids| ids.is_empty())
    }

    /// The ids of the runs that are there.
    fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(self.folder.short_path("."))? {
            if let Ok(name) = entry?.file_name().into_string()
                && is_run_id(&name)
            {
                ids.push(name);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// The runs that never came to their end and are not marked yet. What cannot be read was of the same job.
    ///
    /// # Errors
    /// When the folder cannot be listed or a run in it cannot be trusted: a crash would go unseen.
    pub fn unfinished(&self, job: Option<&str>, boot_id: &str) -> Result<Vec<Unfinished>, FolderError> {
        let mut found = Vec::new();
        for id in self.ids()? {
            let run = match self.folder.inside(&id) {
                Ok(run) => run,
                Err(FolderError::Missing) => continue,
                Err(error) => return Err(error),
            };
            if run.has(ABANDONED) {
                continue;
            }
            let (finished, same_job) = match read_state(&run) {
                Ok(state) => (state.is_final, state.job.as_deref() == job && state.boot_id == boot_id),
                Err(_) => (false, true),
            };
            if !finished {
                let counts = same_job && !run.has(ANSWERED);
                found.push(Unfinished { id, run, counts });
            }
        }
        Ok(found)
    }

    /// Takes away the runs that are older than 7 days, but not `current`. `now_s` is Unix time in seconds.
    pub fn remove_old(&self, current: &str, now_s: u64) {
        for id in self.ids().unwrap_or_default() {
            let changed = self.folder.changed_s(&id).unwrap_or(now_s);
            if id != current && now_s.saturating_sub(changed) > KEPT_S {
                self.remove(&id);
            }
        }
    }
}

/// A run that never came to its end.
#[derive(Debug)]
pub struct Unfinished {
    /// Its id.
    pub id: String,
    run: Folder,
    /// It was of the same job and boot, and no gate has answered for it: the next run of the job must.
    pub counts: bool,
}

impl Unfinished {
    /// Marks it as abandoned. To be called once a new state names it where it counts: a start that fails in
    /// between must not make the crash unseen.
    ///
    /// # Errors
    /// When the mark cannot be written; then a later start names it once more, which errs on the safe side.
    pub fn mark(&self) -> Result<(), FolderError> {
        self.run.write(ABANDONED, b"a later start found this run unfinished\n")
    }
}

/// Whether a later start has found this run unfinished.
pub fn is_abandoned(run: &Folder) -> bool {
    run.has(ABANDONED)
}

/// Notes that a gate has answered for an unfinished run, so that the next run does not have to answer again.
pub fn mark_answered(run: &Folder) {
    if !run.has(ANSWERED) {
        // When it cannot be noted the next run answers once more, which errs on the safe side.
        let _ = run.write(ANSWERED, b"stop --fail-on-violation has answered 11 for this run\n");
    }
}

/// Where the folder of a run is, for people.
pub fn run_path(state_dir: &Path, run_id: &str) -> std::path::PathBuf {
    state_dir.join(RUNS).join(run_id)
}

#[cfg(test)]
mod tests {
    use super::super::state::{STATE_FILE, samples};
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccc";

    fn runs() -> (tempfile::TempDir, Runs) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::create(&temporary.path().join("state")).unwrap();
        let runs = Runs::create(&folder).unwrap();
        (temporary, runs)
    }

    fn leave(runs: &Runs, id: &str, job: Option<&str>, is_final: bool) -> Folder {
        let run = runs.begin(id).unwrap();
        let mut state = samples::state(id);
        state.job = job.map(Into::into);
        state.is_final = is_final;
        run.write(STATE_FILE, &serde_json::to_vec(&state).unwrap()).unwrap();
        run
    }

    fn counting(found: &[Unfinished]) -> Vec<&str> {
        found.iter().filter(|it| it.counts).map(|it| it.id.as_str()).collect()
    }

    #[test]
    fn an_unfinished_run_of_the_job_is_named_until_it_is_marked() {
        let (_temporary, runs) = runs();
        leave(&runs, A, Some("job:a"), true);
        let crashed = leave(&runs, B, Some("job:a"), false);
        leave(&runs, C, Some("job:other"), false);
        for _ in 0..2 {
            let found = runs.unfinished(Some("job:a"), "boot").unwrap();
            assert_eq!(
                (found.len(), counting(&found)),
                (2, vec![B]),
                "a start that failed has marked nothing"
            );
        }
        for it in runs.unfinished(Some("job:a"), "boot").unwrap() {
            it.mark().unwrap();
        }
        assert!(is_abandoned(&crashed) && is_abandoned(&runs.run(C).unwrap()));
        assert!(!is_abandoned(&runs.run(A).unwrap()));
        assert!(runs.unfinished(Some("job:a"), "boot").unwrap().is_empty());
    }

    #[test]
    fn no_job_is_a_job_like_any_other_and_another_boot_is_another() {
        let (_temporary, runs) = runs();
        leave(&runs, A, None, false);
        assert_eq!(counting(&runs.unfinished(None, "boot").unwrap()), [A]);
        assert!(counting(&runs.unfinished(None, "later boot").unwrap()).is_empty());
        assert!(counting(&runs.unfinished(Some("job:a"), "boot").unwrap()).is_empty());
    }

    #[test]
    fn what_was_answered_for_does_not_count_and_what_cannot_be_read_does() {
        let (_temporary, runs) = runs();
        mark_answered(&leave(&runs, A, None, false));
        runs.begin(B).unwrap().write(STATE_FILE, b"garbage").unwrap();
        runs.begin(C).unwrap();
        let found = runs.unfinished(None, "boot").unwrap();
        assert_eq!((found.len(), counting(&found)), (3, vec![B, C]));
    }

    #[test]
    fn runs_go_after_seven_days_but_not_the_current_one() {
        let (_temporary, runs) = runs();
        leave(&runs, A, None, true);
        leave(&runs, B, None, true);
        let now = runs.folder.changed_s(A).unwrap();
        runs.remove_old(A, now + KEPT_S);
        assert!(runs.run(A).is_ok() && runs.run(B).is_ok());
        runs.remove_old(A, now + KEPT_S + 2);
        assert!(runs.run(A).is_ok() && matches!(runs.run(B), Err(FolderError::Missing)));
    }

    #[test]
    fn what_is_no_run_id_names_no_folder() {
        let (_temporary, runs) = runs();
        assert!(runs.is_empty());
        assert!(matches!(runs.run("../.."), Err(FolderError::Missing)));
        runs.remove("..");
        assert!(runs.folder.path().exists());
    }
}
