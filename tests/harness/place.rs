//! The surroundings of one job: a folder of its own with home and state, and an environment with nothing else in it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::binary::weir;
use super::namespace::Namespace;
use super::wait::{PATIENCE, within};

/// A job's folder and environment.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    namespace: Option<Namespace>,
}

/// A command that ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; 128 and the signal's number after a signal.
    pub code: i32,
    /// What it printed as data.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Place {
    /// A new one.
    pub fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("weir-it-").tempdir().unwrap();
        for name in ["home", "tmp"] {
            fs::DirBuilder::new().mode(0o700).create(folder.path().join(name)).unwrap();
        }
        Place { folder, namespace: None }
    }

    /// A new one whose state stands on a small disk of its own.
    ///
    /// # Errors
    /// Why the machine does not permit one.
    pub fn on_small_disk(options: &str) -> Result<Place, String> {
        let mut place = Place::new();
        let disk = place.folder.path().join("disk");
        fs::create_dir(&disk).unwrap();
        place.namespace = Some(Namespace::with_tmpfs(&disk, options)?);
        Ok(place)
    }

    /// Its small disk.
    ///
    /// # Panics
    /// When it has none.
    pub fn disk(&self) -> &Namespace {
        self.namespace.as_ref().expect("a place on a small disk")
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The state directory that its commands use.
    pub fn state(&self) -> PathBuf {
        self.path().join(if self.namespace.is_some() { "disk/state" } else { "state" })
    }

    /// The state file.
    pub fn state_file(&self) -> PathBuf {
        self.state().join("state.json")
    }

    /// Writes a file into it and gives its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `program` in the clean environment of the job: PATH, HOME, TMPDIR, LANG and WEIR_STATE, nothing else.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(namespace) => {
                let words = namespace.prefix();
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).arg(program);
                command
            }
        };
        let bin = weir().path.parent().unwrap().display();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        command
            .env_clear()
            .env("PATH", format!("{bin}:{path}"))
            .env("HOME", self.path().join("home"))
            .env("TMPDIR", self.path().join("tmp"))
            .env("LANG", "C.UTF-8")
            .env("RES_OPTIONS", "timeout:1 attempts:1") // names that do not exist are to fail soon
            .env("WEIR_STATE", self.state())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// `weir` with these arguments, not yet run.
    pub fn weir(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&weir().path);
        command.args(arguments);
        command
    }

    /// Runs `weir` with these arguments to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.weir(arguments))
    }

    /// Runs a script of the shell in the job's environment.
    pub fn shell(&self, script: &str) -> Finished {
        let mut command = self.command("sh");
        command.args(["-c", script]);
        finish(command)
    }
}

impl Default for Place {
    fn default() -> Self {
        Place::new()
    }
}

impl Finished {
    /// Insists on an exit code.
    ///
    /// # Panics
    /// When it is another; shows what was said.
    pub fn exits(self, code: i32) -> Finished {
        assert_eq!(self.code, code, "exit code\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Its data as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("no JSON: {error}\nstdout: {}\nstderr: {}", self.stdout, self.stderr)
        })
    }

    /// Insists that it said each of these words on stderr.
    ///
    /// # Panics
    /// When one is missing.
    pub fn says(self, words: &[&str]) -> Finished {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing in stderr: {}", self.stderr);
        }
        self
    }
}

/// Runs a command to its end with a deadline, and until nobody holds its output open.
///
/// # Panics
/// When it does not end, or leaves its output open behind it.
pub fn finish(command: Command) -> Finished {
    Running::start(command).finish()
}

/// A command that runs, its output being read.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    since: Instant,
    what: String,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Running {
        let what = format!("{:?} {:?}", command.get_program(), command.get_args().collect::<Vec<_>>());
        let since = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let (stdout, stderr) = (drain(child.stdout.take().unwrap()), drain(child.stderr.take().unwrap()));
        Running { child, stdout, stderr, since, what }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and until nobody holds its output open.
    ///
    /// # Panics
    /// When either does not come in time.
    pub fn finish(mut self) -> Finished {
        let patience = PATIENCE * 2;
        let Some(status) = within(patience, || self.child.try_wait().unwrap()) else {
            let _ = self.child.kill();
            panic!("{} did not end within {patience:?}", self.what);
        };
        let took = self.since.elapsed();
        let closed =
            within(PATIENCE, || (self.stdout.is_finished() && self.stderr.is_finished()).then_some(()));
        assert!(closed.is_some(), "{}: somebody still holds its output open", self.what);
        let (stdout, stderr) = (self.stdout.join().unwrap(), self.stderr.join().unwrap());
        Finished { code: code_of(status), stdout, stderr, took }
    }
}

/// An exit status as a shell says it.
pub fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
