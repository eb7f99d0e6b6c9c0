//! The records of a run: a decision before the first byte of its answer, an end after its last.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::error::Code;

/// One event of the data plane, as the cores hand it over; the writer gives it its place and hash.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
pub struct Noted {
    /// The decision that it belongs to.
    pub id: u64,
    /// Unix time in microseconds.
    pub at_us: u64,
    /// What kind.
    pub code: Code,
    /// One line for people.
    pub detail: Box<str>,
}
