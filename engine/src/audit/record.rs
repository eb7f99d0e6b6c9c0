//! The records of a run: a decision before the first byte of its answer, an end after its last.
//!
//! Values only; how they are spelled in the file is `audit::line`. What one run has is told once, in its
//! `RunHeader`: a record names only what is its own.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::error::Code;

/// What a run says of itself before its first record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHeader {
    /// The run's id, which the hash chain begins with.
    pub run: Box<str>,
    /// The CI job that the run belongs to, as its environment names it.
    pub job: Option<Box<str>>,
    /// Unix time in microseconds.
    pub at_us: u64,
    /// Digest of the policy in force.
    pub policy: Box<str>,
    /// Version and build id of weir.
    pub build: Box<str>,
    /// `enforce`, `audit` or `observe`.
    pub mode: Box<str>,
    /// The codes whose refusals are violations (`gate.fail_on`).
    pub gate: CodeSet,
}

/// A set of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CodeSet(u64);

impl CodeSet {
    /// Whether `code` is in the set.
    pub fn contains(self, code: Code) -> bool {
        self.0 & (1 << code as u32) != 0
    }

    /// The codes in it, in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = Code> {
        Code::ALL.iter().copied().filter(move |&code| self.contains(code))
    }
}

impl FromIterator<Code> for CodeSet {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        const { assert!(Code::ALL.len() <= 64) };
        Self(codes.into_iter().fold(0, |bits, code| bits | 1 << code as u32))
    }
}

/// One event of the data plane, as the cores hand it over; the writer gives it its place and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// What policy said of a request.
    Decided(Box<Decided>),
    /// How an exchange or tunnel ended.
    Ended(Ended),
    /// Something worth telling that refused nothing.
    Noted(Box<Noted>),
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// CONNECT.
    Connect,
    /// A plain HTTP request with this method.
    Http(Box<str>),
}

/// What policy said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It passes, but enforce mode would refuse it with this code.
    WouldRefuse(Code),
    /// It is refused.
    Refuse(Code),
}

/// A decision: written before any byte of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Names the exchange within the run; its `Ended` carries the same.
    pub id: u64,
    /// Unix time in microseconds.
    pub at_us: u64,
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// What was asked; absent where the head could not be read.
    pub verb: Option<Verb>,
    /// Canonical `host:port`; absent where the head names none.
    pub target: Option<Box<str>>,
    /// Path without query, of a plain request; as spelled.
    pub path: Option<Box<str>>,
    /// The verdict.
    pub verdict: Verdict,
    /// The id of the deciding route, or `default`, `guard`, `http`, `limit`.
    pub rule: Arc<str>,
    /// One line for people.
    pub reason: Option<Arc<str>>,
    /// The parent proxy that it goes through.
    pub via: Option<Arc<str>>,
}

/// The end of what a `Decided` began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The decision's id.
    pub id: u64,
    /// Unix time in microseconds.
    pub at_us: u64,
    /// Milliseconds since the decision.
    pub ms: u64,
    /// Bytes from the client, of the tunnel or the request body.
    pub up: u64,
    /// Bytes to the client, of the tunnel or the response (head and body).
    pub down: u64,
    /// Status sent to the client; 0 when none was.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an exchange or tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both sides were done.
    Complete,
    /// The client went away or reset.
    ClientGone,
    /// The upstream went away or reset before it was done.
    UpstreamGone,
    /// It was refused or failed for this reason.
    Failed(Code),
    /// No traffic for too long.
    Idle,
    /// Closed because the proxy drains.
    Drained,
    /// Cut by the drain deadline, a second signal or a panic.
    Cut,
}

/// Something worth telling that refused nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// The decision that it belongs to; 0 where it belongs to none.
    pub id: u64,
    /// Unix time in microseconds.
    pub at_us: u64,
    /// What kind.
    pub code: Code,
    /// One line for people.
    pub detail: Box<str>,
}

#[cfg(test)]
pub(crate) mod samples {
    //! Records for the tests of this folder and of the journal's writer.

    use super::*;

    pub(crate) fn header() -> RunHeader {
        RunHeader {
            run: "00112233445566778899aabbccddeeff".into(),
            job: Some("build \"main\"\n".into()),
            at_us: 1_700_000_000_000_000,
            policy: "sha256:0123".into(),
            build: "weir 0.1.0 (test)".into(),
            mode: "enforce".into(),
            gate: [Code::NotAllowed, Code::DeniedHost].into_iter().collect(),
        }
    }

    pub(crate) fn decided(id: u64, verdict: Verdict) -> Record {
        Record::Decided(Box::new(Decided {
            id,
            at_us: 1_700_000_000_000_000 + id,
            client: SocketAddr::from(([127, 0, 0, 1], 40_000)),
            verb: Some(if id.is_multiple_of(2) { Verb::Connect } else { Verb::Http("GET".into()) }),
            target: Some("registry.npm.test:443".into()),
            path: (!id.is_multiple_of(2)).then(|| "/left-pad/-/left-pad-1.3.0.tgz?token=x".into()),
            verdict,
            rule: "default".into(),
            reason: Some("no route names \"it\"\r\n\u{2028}\x1b[31m".into()),
            via: None,
        }))
    }

    pub(crate) fn ended(id: u64, up: u64, down: u64, outcome: Outcome) -> Record {
        Record::Ended(Ended { id, at_us: 1_700_000_001_000_000, ms: 12, up, down, status: 200, outcome })
    }

    pub(crate) fn noted(id: u64, code: Code) -> Record {
        Record::Noted(Box::new(Noted { id, at_us: 1_700_000_002_000_000, code, detail: "seen\u{85}".into() }))
    }
}
