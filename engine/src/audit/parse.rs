//! A journal line back into what it says; the reverse of `line`.
//!
//! Strict: an unknown member, kind, code or word is an error, since the file is ours. Neither order nor hash is
//! judged here (`verify` does that).

use std::net::SocketAddr;

use serde::Deserialize;

use super::chain::{HASH_END, HASH_MEMBER, Head};
use super::line::{Final, SCHEMA};
use super::record::{Decided, Ended, Noted, Outcome, Record, RunHeader, Verb, Verdict};
use super::tally::Totals;
use super::text::Clean;
use crate::error::Code;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Number of the line.
    pub seq: u64,
    /// The job that it belongs to.
    pub job: Option<Box<str>>,
    /// What it says.
    pub entry: Entry,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The first line.
    Run(RunHeader),
    /// A record.
    Record(Clean),
    /// The last line of a run that was stopped.
    Final(Final),
}

/// A line in its two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split<'a> {
    /// What is hashed: the object without its hash and its closing brace.
    pub body: &'a [u8],
    /// The hash that the line names.
    pub hash: Head,
}

/// Takes a line (without its line feed) apart.
///
/// # Errors
/// One line for people, when it does not end with a hash member.
pub fn split(line: &[u8]) -> Result<Split<'_>, String> {
    let split = || {
        let rest = line.strip_suffix(HASH_END)?;
        let (rest, hash) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
        let hash = std::str::from_utf8(hash).ok()?.parse().ok()?;
        Some(Split { body: rest.strip_suffix(HASH_MEMBER)?, hash })
    };
    split().ok_or_else(|| "does not end with a hash, so weir did not write it".to_owned())
}

/// Reads a whole line, with or without its line feed.
///
/// # Errors
/// One line for people, when it is none of a journal.
pub fn line(line: &[u8]) -> Result<Parsed, String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    split(line)?;
    let raw: Raw = serde_json::from_slice(line).map_err(|error| format!("is no journal line: {error}"))?;
    raw.parsed().map_err(|why| format!("is no journal line: {why}"))
}

/// Every member of every kind. `Option` is absent where a kind has no such member.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    seq: u64,
    t: u64,
    kind: Kind,
    job: Option<Box<str>>,
    #[serde(rename = "hash")]
    _hash: Box<str>,
    schema: Option<u64>,
    run: Option<Box<str>>,
    policy: Option<Box<str>>,
    build: Option<Box<str>>,
    mode: Option<Box<str>>,
    gate: Option<Vec<Code>>,
    id: Option<u64>,
    client: Option<SocketAddr>,
    verb: Option<Box<str>>,
    target: Option<Box<str>>,
    path: Option<Box<str>>,
    verdict: Option<VerdictWord>,
    code: Option<Code>,
    rule: Option<Box<str>>,
    reason: Option<Box<str>>,
    via: Option<Box<str>>,
    ms: Option<u64>,
    up: Option<u64>,
    down: Option<u64>,
    status: Option<u16>,
    outcome: Option<OutcomeWord>,
    detail: Option<Box<str>>,
    lost: Option<u64>,
    totals: Option<Totals>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Run,
    Decided,
    Ended,
    Noted,
    Final,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum VerdictWord {
    Allow,
    WouldRefuse,
    Refuse,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum OutcomeWord {
    Complete,
    ClientGone,
    UpstreamGone,
    Failed,
    Idle,
    Drained,
    Cut,
}

impl Raw {
    fn parsed(self) -> Result<Parsed, String> {
        let (seq, job) = (self.seq, self.job.clone());
        let entry = match self.kind {
            Kind::Run => Entry::Run(self.header()?),
            Kind::Decided => Entry::Record(Clean::read_back(Record::Decided(Box::new(self.decided()?)))),
            Kind::Ended => Entry::Record(Clean::read_back(Record::Ended(self.ended()?))),
            Kind::Noted => Entry::Record(Clean::read_back(Record::Noted(Box::new(self.noted()?)))),
            Kind::Final => Entry::Final(self.last()?),
        };
        Ok(Parsed { seq, job, entry })
    }

    fn header(self) -> Result<RunHeader, String> {
        let schema = need(self.schema, "schema")?;
        if schema != SCHEMA {
            return Err(format!("schema {schema} was written by another version, this one reads {SCHEMA}"));
        }
        Ok(RunHeader {
            run: need(self.run, "run")?,
            job: self.job,
            at_us: self.t,
            policy: need(self.policy, "policy")?,
            build: need(self.build, "build")?,
            mode: need(self.mode, "mode")?,
            gate: need(self.gate, "gate")?.into_iter().collect(),
        })
    }

    fn decided(self) -> Result<Decided, String> {
        Ok(Decided {
            id: need(self.id, "id")?,
            at_us: self.t,
            client: need(self.client, "client")?,
            verb: self.verb.map(|verb| if &*verb == "CONNECT" { Verb::Connect } else { Verb::Http(verb) }),
            target: self.target,
            path: self.path,
            verdict: match need(self.verdict, "verdict")? {
                VerdictWord::Allow => Verdict::Allow,
                VerdictWord::WouldRefuse => Verdict::WouldRefuse(need(self.code, "code")?),
                VerdictWord::Refuse => Verdict::Refuse(need(self.code, "code")?),
            },
            rule: need(self.rule, "rule")?.into(),
            reason: self.reason.map(Into::into),
            via: self.via.map(Into::into),
        })
    }

    fn ended(self) -> Result<Ended, String> {
        Ok(Ended {
            id: need(self.id, "id")?,
            at_us: self.t,
            ms: need(self.ms, "ms")?,
            up: need(self.up, "up")?,
            down: need(self.down, "down")?,
            status: need(self.status, "status")?,
            outcome: match need(self.outcome, "outcome")? {
                OutcomeWord::Complete => Outcome::Complete,
                OutcomeWord::ClientGone => Outcome::ClientGone,
                OutcomeWord::UpstreamGone => Outcome::UpstreamGone,
                OutcomeWord::Failed => Outcome::Failed(need(self.code, "code")?),
                OutcomeWord::Idle => Outcome::Idle,
                OutcomeWord::Drained => Outcome::Drained,
                OutcomeWord::Cut => Outcome::Cut,
            },
        })
    }

    fn noted(self) -> Result<Noted, String> {
        Ok(Noted {
            id: need(self.id, "id")?,
            at_us: self.t,
            code: need(self.code, "code")?,
            detail: need(self.detail, "detail")?,
        })
    }

    fn last(self) -> Result<Final, String> {
        Ok(Final {
            run: need(self.run, "run")?,
            at_us: self.t,
            lost: need(self.lost, "lost")?,
            totals: need(self.totals, "totals")?,
        })
    }
}

fn need<T>(member: Option<T>, name: &str) -> Result<T, String> {
    member.ok_or_else(|| format!("`{name}` is missing"))
}

#[cfg(test)]
mod tests {
    use super::super::chain::Chain;
    use super::super::record::samples::{decided, ended, header, noted};
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let mut bytes = Vec::new();
        let mut chain = Chain::begin(&header(), &mut bytes);
        assert_eq!(line(&bytes).unwrap().entry, Entry::Run(header()));
        let outcomes = [
            Outcome::Complete,
            Outcome::ClientGone,
            Outcome::UpstreamGone,
            Outcome::Failed(Code::Overload),
            Outcome::Idle,
            Outcome::Drained,
            Outcome::Cut,
        ];
        let mut records: Vec<Record> =
            outcomes.iter().map(|&outcome| ended(u64::MAX, 1, 2, outcome)).collect();
        records.extend(Code::ALL.iter().map(|&code| decided(2, Verdict::Refuse(code))));
        records.extend([decided(4, Verdict::Allow), decided(6, Verdict::WouldRefuse(Code::Loop))]);
        records.push(noted(0, Code::EchMismatch));
        for record in records {
            bytes.clear();
            let record = Clean::new(record);
            chain.append(&record, &mut bytes);
            let parsed = line(&bytes).unwrap();
            assert_eq!((parsed.entry, parsed.seq), (Entry::Record(record), chain.seq()));
            assert_eq!(parsed.job, header().job);
        }
    }

    #[test]
    fn a_line_is_printable_ascii_whatever_is_in_it() {
        let mut bytes = Vec::new();
        let mut chain = Chain::begin(&header(), &mut bytes);
        chain.append(&Clean::new(decided(1, Verdict::Allow)), &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')), "{text}");
        assert!(!text.contains("token=x"), "a query is never recorded: {text}");
    }

    #[test]
    fn strangers_are_told_apart() {
        let hash = "0".repeat(64);
        for (stranger, why) in [
            ("hello".to_owned(), "does not end with a hash"),
            (format!("{{\"seq\":1,\"hash\":\"{hash}\"}}"), "missing field `t`"),
            (
                format!("{{\"seq\":1,\"t\":1,\"kind\":\"gone\",\"hash\":\"{hash}\"}}"),
                "unknown variant `gone`",
            ),
            (
                format!("{{\"seq\":1,\"t\":1,\"kind\":\"ended\",\"x\":1,\"hash\":\"{hash}\"}}"),
                "unknown field `x`",
            ),
            (format!("{{\"seq\":1,\"t\":1,\"kind\":\"ended\",\"hash\":\"{hash}\"}}"), "`id` is missing"),
            (format!("{{\"seq\":1,\"t\":1,\"kind\":\"run\",\"schema\":9,\"hash\":\"{hash}\"}}"), "schema 9"),
        ] {
            let error = line(stranger.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{stranger}: {error}");
        }
    }
}
