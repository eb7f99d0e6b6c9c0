//! A run's results: one JSON object a line, with the facts of the machine, appended and never rewritten.
//!
//! No path and no host name goes into a record; results are committed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::peers::Peer;
use crate::workload::{Cell, Scale};

/// What all records of a run share.
pub(crate) struct Facts {
    date: String,
    commit: String,
    kernel: String,
    cpu: String,
    cores: usize,
}

impl Facts {
    /// Looks around: the clock, git in `root`, `uname`, `/proc/cpuinfo`.
    pub(crate) fn gather(root: &Path) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            date: utc(now.as_secs()),
            commit: commit(root),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpu: model.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get),
        }
    }

    /// The run's name: when it began, to the second.
    pub(crate) fn date(&self) -> &str {
        &self.date
    }

    /// One line: facts, what was measured, and `cost` with `figures`, or `failed` with the reason.
    pub(crate) fn record(
        &self,
        cell: Cell,
        peer: &Peer,
        round: usize,
        scale: &Scale,
        result: io::Result<Value>,
    ) -> Value {
        let mut record = json!({
            "schema": 1, "date": self.date, "commit": self.commit, "kernel": self.kernel, "cpu": self.cpu,
            "cores": self.cores, "scale": scale.name, "workload": cell.name(), "unit": cell.unit(),
            "peer": peer.name(), "round": round,
        });
        let outcome = match result {
            Ok(value) => value,
            Err(error) => json!({ "failed": error.to_string() }),
        };
        if let (Value::Object(record), Value::Object(outcome)) = (&mut record, outcome) {
            record.extend(outcome);
        }
        record
    }
}

/// Where records go: a file that grows, or stdout.
pub(crate) struct Sink {
    file: Option<File>,
    /// All of this run, for the table at its end.
    pub(crate) records: Vec<Value>,
}

impl Sink {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path: &Path| {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
        };
        Ok(Self { file: path.map(open).transpose()?, records: Vec::new() })
    }

    /// Writes one record in one write, so that runs at the same time do not mix their lines.
    pub(crate) fn write(&mut self, record: &Value) -> io::Result<()> {
        let line = format!("{record}\n");
        self.records.push(record.clone());
        match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => io::stdout().lock().write_all(line.as_bytes()),
        }
    }
}

/// The commit, with `+` when the tree differs from it, or `unknown`.
fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    if changed { head + "+" } else { head }
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(crate) fn utc(seconds: u64) -> String {
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}
