//! The journal of a run as a test reads it: one JSON object a line.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::wait::eventually;

/// A journal file.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The one at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Journal {
        Journal { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its complete lines.
    pub fn lines(&self) -> Vec<String> {
        let text =
            fs::read_to_string(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// Its records.
    pub fn records(&self) -> Vec<Value> {
        self.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The records of one kind: `run`, `decided`, `ended`, `noted`, `final`.
    pub fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["kind"] == kind).collect()
    }

    /// Waits for a record of this kind that satisfies `is_it`.
    pub fn wait_for(&self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("a `{kind}` record in the journal"), || {
            self.of_kind(kind).into_iter().find(&is_it)
        })
    }

    /// Waits until there are so many records of this kind.
    pub fn wait_for_count(&self, kind: &str, count: usize) {
        eventually(&format!("{count} `{kind}` records"), || {
            (self.of_kind(kind).len() >= count).then_some(())
        });
    }

    /// Rewrites the file in place (the writer keeps its descriptor) with what `edit` makes of its bytes.
    pub fn tamper(&self, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let bytes = fs::read(&self.path).unwrap();
        fs::write(&self.path, edit(bytes)).unwrap();
    }

    /// Rewrites the file in place with what `edit` makes of its lines.
    pub fn tamper_lines(&self, edit: impl FnOnce(&mut Vec<String>)) {
        let mut lines = self.lines();
        edit(&mut lines);
        self.tamper(|_| lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect());
    }
}
