//! A record as one line of the journal: a JSON object in printable ASCII, and a line feed.
//!
//! Schema 1. Every line has these members, in this order, and its own between them:
//!
//! | member | holds |
//! |---|---|
//! | `seq` | number of the line, from 1 |
//! | `t` | Unix time, microseconds |
//! | `kind` | `run`, `decided`, `ended`, `noted` or `final` |
//! | `job` | the CI job, or null where there is none |
//! | `hash` | last: hex of the SHA-256 over the hash before it and the line's bytes up to `,"hash"` (`chain`) |
//!
//! | kind | members |
//! |---|---|
//! | `run` | first line: `schema`, `run`, `policy` (digest), `build`, `mode`, `gate` (codes that are violations) |
//! | `decided` | `id`, `client`, `verb` (`CONNECT` or the method), `target`, `path`, `verdict` (`allow`, `would_refuse`, `refuse`), `code` (of the last two), `rule`, `reason`, `via`; what is not known is left out |
//! | `ended` | `id`, `ms`, `up`, `down` (bytes), `status` (0: none sent), `outcome` (`complete`, `client_gone`, `upstream_gone`, `failed`, `idle`, `drained`, `cut`), `code` (of `failed`) |
//! | `noted` | `id` (0: of no decision), `code`, `detail` |
//! | `final` | last line of a run that was stopped: `run`, `lost` (records that never came this far), `totals` (`tally::Totals`) |
//!
//! Not here: order, hashes and the file. Text from outside goes through `text` first: a query is never
//! recorded, secrets are taken out, lengths are capped.

use std::io::Write as _;
use std::net::SocketAddr;

use super::record::{Decided, Ended, Noted, Outcome, Record, RunHeader, Verb, Verdict};
use super::tally::Totals;
use super::text::{Clean, clean, escape};
use crate::error::Code;

/// What this version writes, and the only one that it reads.
pub const SCHEMA: u64 = 1;

/// What the last line of a run holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    /// The run's id once more.
    pub run: Box<str>,
    /// Unix time in microseconds.
    pub at_us: u64,
    /// Records that could not be handed over; more than 0 makes the run unverifiable.
    pub lost: u64,
    /// What was counted.
    pub totals: Totals,
}

/// The words of an outcome in the journal.
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Complete => "complete",
        Outcome::ClientGone => "client_gone",
        Outcome::UpstreamGone => "upstream_gone",
        Outcome::Failed(_) => "failed",
        Outcome::Idle => "idle",
        Outcome::Drained => "drained",
        Outcome::Cut => "cut",
    }
}

/// Appends the line of a record, open at its end: the chain adds the hash.
pub(super) fn record(place: Place<'_>, record: &Clean, out: &mut Vec<u8>) {
    match &**record {
        Record::Decided(it) => decided(place, it, out),
        Record::Ended(it) => ended(place, it, out),
        Record::Noted(it) => noted(place, it, out),
    }
}

/// Appends the first line, open at its end.
pub(super) fn run(place: Place<'_>, header: &RunHeader, out: &mut Vec<u8>) {
    let mut line = Line::begin(place, header.at_us, "run", out);
    line.number("schema", SCHEMA);
    line.text("run", &header.run);
    line.text("policy", &clean(&header.policy));
    line.text("build", &clean(&header.build));
    line.text("mode", &clean(&header.mode));
    line.key("gate");
    line.out.push(b'[');
    for (index, code) in header.gate.iter().enumerate() {
        line.out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        line.out.extend_from_slice(code.as_str().as_bytes());
        line.out.push(b'"');
    }
    line.out.push(b']');
}

/// Appends the last line, open at its end.
pub(super) fn last(place: Place<'_>, it: &Final, out: &mut Vec<u8>) {
    let mut line = Line::begin(place, it.at_us, "final", out);
    line.text("run", &it.run);
    line.number("lost", it.lost);
    line.key("totals");
    line.value(&it.totals);
}

fn decided(place: Place<'_>, it: &Decided, out: &mut Vec<u8>) {
    let mut line = Line::begin(place, it.at_us, "decided", out);
    line.number("id", it.id);
    line.address("client", it.client);
    match &it.verb {
        Some(Verb::Connect) => line.word("verb", "CONNECT"),
        Some(Verb::Http(method)) => line.text("verb", method),
        None => {}
    }
    line.optional("target", it.target.as_deref());
    if let Some(path) = &it.path {
        line.text("path", path);
    }
    match it.verdict {
        Verdict::Allow => line.word("verdict", "allow"),
        Verdict::WouldRefuse(code) => line.verdict("would_refuse", code),
        Verdict::Refuse(code) => line.verdict("refuse", code),
    }
    line.text("rule", &it.rule);
    line.optional("reason", it.reason.as_deref());
    line.optional("via", it.via.as_deref());
}

fn ended(place: Place<'_>, it: &Ended, out: &mut Vec<u8>) {
    let mut line = Line::begin(place, it.at_us, "ended", out);
    line.number("id", it.id);
    line.number("ms", it.ms);
    line.number("up", it.up);
    line.number("down", it.down);
    line.number("status", it.status.into());
    line.word("outcome", outcome_word(it.outcome));
    if let Outcome::Failed(code) = it.outcome {
        line.word("code", code.as_str());
    }
}

fn noted(place: Place<'_>, it: &Noted, out: &mut Vec<u8>) {
    let mut line = Line::begin(place, it.at_us, "noted", out);
    line.number("id", it.id);
    line.word("code", it.code.as_str());
    line.text("detail", &it.detail);
}

/// What every line says and no record knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Number of the line.
    pub(super) seq: u64,
    /// The job as a JSON value (`job_value`).
    pub(super) job: &'a [u8],
}

/// The job of a run as a JSON value; made once a run.
pub(super) fn job_value(job: Option<&str>) -> Vec<u8> {
    let Some(job) = job else { return b"null".to_vec() };
    let mut value = vec![b'"'];
    escape(&clean(job), &mut value);
    value.push(b'"');
    value
}

/// A JSON object that is being written. Keys are ours and need no escaping.
struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Line<'a> {
    fn begin(place: Place<'_>, at_us: u64, kind: &str, out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(b"{\"seq\":");
        let mut line = Self { out };
        line.digits(place.seq);
        line.number("t", at_us);
        line.word("kind", kind);
        line.key("job");
        line.out.extend_from_slice(place.job);
        line
    }

    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        self.digits(number);
    }

    /// A word of ours: needs neither cleaning nor escaping.
    fn word(&mut self, key: &str, word: &str) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(word.as_bytes());
        self.out.push(b'"');
    }

    /// Clean text.
    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.out.push(b'"');
        escape(text, self.out);
        self.out.push(b'"');
    }

    fn optional(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    fn verdict(&mut self, verdict: &str, code: Code) {
        self.word("verdict", verdict);
        self.word("code", code.as_str());
    }

    fn address(&mut self, key: &str, address: SocketAddr) {
        self.key(key);
        // Writing into a vector cannot fail, nor can an address fail to print itself.
        let _ = write!(self.out, "\"{address}\"");
    }

    fn digits(&mut self, number: u64) {
        let _ = write!(self.out, "{number}");
    }

    fn value(&mut self, totals: &Totals) {
        // As above: plain numbers and words into a vector.
        let _ = serde_json::to_writer(&mut *self.out, totals);
    }
}
