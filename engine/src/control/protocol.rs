//! What is said over the control socket: one JSON object a line, a request and its answer.
//!
//! `Status` is also what `weir status --json` prints, so its names are the contract of `schema` 1.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::state::{Ending, PolicyName};

/// Bytes of one request line.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who are you?
    Hello {},
    /// How are you?
    Status {},
    /// Drain, flush, seal, and say how it ended.
    Stop {
        /// The run that is meant; another one refuses.
        run_id: String,
        /// Milliseconds for what is in flight; the default of `limits` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `Hello`.
    Hello {
        /// The run.
        run_id: String,
        /// The daemon's process.
        pid: u32,
    },
    /// To `Status`.
    Status(Box<Status>),
    /// To `Stop`, when all is over.
    Stopped(Box<Stopped>),
    /// The request cannot be served.
    Refused {
        /// One line for people.
        why: String,
    },
}

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The run.
    pub run_id: String,
    /// Whether the final state is on disk.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Why not.
    pub why: Option<String>,
    /// Head, numbers and delivery.
    pub ending: Ending,
}

/// A living daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `state::SCHEMA`.
    pub schema: u32,
    /// True: it answered.
    pub running: bool,
    /// Whether it stops, and lets only what is in flight finish.
    pub draining: bool,
    /// The run.
    pub run_id: String,
    /// The daemon's process.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Hash of the sources that it was built from.
    pub build_id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// What moves its bytes.
    pub driver: DriverStatus,
    /// `enforce`, `audit` or `observe`.
    pub mode: String,
    /// The policy in force.
    pub policy: PolicyName,
    /// The state directory.
    pub state: PathBuf,
    /// The journal.
    pub journal: PathBuf,
    /// The CI job that it belongs to.
    pub job: Option<String>,
    /// Connections of clients.
    pub connections: Connections,
    /// Bytes of tunnels and bodies.
    pub bytes: Bytes,
    /// Refusals so far that the gate counts.
    pub violations: u64,
    /// Whether everything that happened so far is in the journal.
    pub verifiable: bool,
    /// What a person should know, a line each.
    pub warnings: Vec<String>,
}

/// What moves the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverStatus {
    /// `io_uring` or `epoll`.
    pub name: String,
    /// How much of it could be had.
    pub rung: String,
    /// Cores that it runs on.
    pub threads: usize,
}

/// Connections of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Open now.
    pub open: u64,
    /// Since the start.
    pub total: u64,
    /// Of them, tunnels.
    pub tunnels: u64,
    /// Requests that were refused.
    pub refused: u64,
}

/// Bytes of tunnels and bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// From clients.
    pub up: u64,
    /// To clients.
    pub down: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_short_lines_and_strict() {
        let stop = Request::Stop { run_id: "ab".into(), timeout_ms: Some(5) };
        let line = serde_json::to_string(&stop).unwrap();
        assert_eq!(line, r#"{"ask":"stop","run_id":"ab","timeout_ms":5}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), stop);
        assert_eq!(serde_json::from_str::<Request>(r#"{"ask":"hello"}"#).unwrap(), Request::Hello {});
        for line in [r#"{"ask":"hello","x":1}"#, r#"{"ask":"stop"}"#, r#"{"ask":"reload"}"#, "", "[]"] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }
}
