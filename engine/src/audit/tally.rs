//! The count that the gate stands on: what was decided, refused, noted and ended, and which refusals are
//! violations.
//!
//! The same code counts the records of the running daemon and the lines of its file, so that the two can be
//! compared. Memory is bounded: one id for each exchange that is open, and the first
//! `VIOLATIONS_KEPT_MAX` violations; the numbers go on.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::record::{CodeSet, Decided, Ended, Outcome, Record, Verb, Verdict};
use super::text::Clean;
use crate::error::Code;
use crate::limits::VIOLATIONS_KEPT_MAX;

/// What happened in a run so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// The numbers.
    pub totals: Totals,
    /// The first violations; `totals.violations` says how many there were.
    pub violations: Vec<Violation>,
}

/// The numbers of a run; also a member of the journal's last line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Decisions: the sum of the next three.
    pub decided: u64,
    /// Decisions that allowed.
    pub allowed: u64,
    /// Decisions that allowed what enforce mode would refuse.
    pub would_refuse: u64,
    /// Decisions that refused.
    pub refused: u64,
    /// Refusals that the gate counts.
    pub violations: u64,
    /// Notes.
    pub noted: u64,
    /// Ends, of refusals too.
    pub ended: u64,
    /// Decisions that let something pass and have no end yet; in the final count these were cut.
    pub open: u64,
    /// Ends that were cut: by the drain deadline, a second signal or a panic.
    pub cut: u64,
    /// Bytes from clients.
    pub up: u64,
    /// Bytes to clients.
    pub down: u64,
    /// Refusals by code; codes without any are left out, as below.
    pub refused_by: BTreeMap<Code, u64>,
    /// Would-be refusals by code.
    pub would_refuse_by: BTreeMap<Code, u64>,
    /// Notes by code.
    pub noted_by: BTreeMap<Code, u64>,
    /// Ends that failed after they were allowed, by code.
    pub failed_by: BTreeMap<Code, u64>,
}

/// A refusal that the gate counts, as the report shows it; texts are clean (`text`) but not escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The decision's id.
    pub id: u64,
    /// Unix time in microseconds.
    pub at_us: u64,
    /// Why it was refused.
    pub code: Code,
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// `CONNECT` or the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verb: Option<Box<str>>,
    /// Canonical `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Box<str>>,
    /// Path of a plain request, without query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Box<str>>,
    /// The rule that decided.
    pub rule: Box<str>,
    /// One line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
}

/// A tally in the making.
#[derive(Debug, Clone)]
pub struct Counter {
    gate: CodeSet,
    tally: Tally,
    open: HashSet<u64, ahash::RandomState>,
}

impl Counter {
    /// Nothing yet; refusals with a code of `gate` will be violations.
    pub fn new(gate: CodeSet) -> Self {
        Self { gate, tally: Tally::default(), open: HashSet::default() }
    }

    /// What was counted so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts one record.
    pub fn count(&mut self, record: &Clean) {
        match &**record {
            Record::Decided(it) => self.decided(it),
            Record::Ended(it) => self.ended(it),
            Record::Noted(it) => {
                add(&mut self.tally.totals.noted, 1);
                one_more(&mut self.tally.totals.noted_by, it.code);
            }
        }
    }

    fn decided(&mut self, it: &Decided) {
        let totals = &mut self.tally.totals;
        add(&mut totals.decided, 1);
        match it.verdict {
            Verdict::Allow => {
                add(&mut totals.allowed, 1);
                self.open.insert(it.id);
            }
            Verdict::WouldRefuse(code) => {
                add(&mut totals.would_refuse, 1);
                one_more(&mut totals.would_refuse_by, code);
                self.open.insert(it.id);
            }
            Verdict::Refuse(code) => {
                add(&mut totals.refused, 1);
                one_more(&mut totals.refused_by, code);
                if self.gate.contains(code) {
                    add(&mut totals.violations, 1);
                    if self.tally.violations.len() < VIOLATIONS_KEPT_MAX {
                        self.tally.violations.push(Violation::of(it, code));
                    }
                }
            }
        }
        self.tally.totals.open = self.open.len() as u64;
    }

    fn ended(&mut self, it: &Ended) {
        let totals = &mut self.tally.totals;
        add(&mut totals.ended, 1);
        add(&mut totals.up, it.up);
        add(&mut totals.down, it.down);
        // A refusal may have an end of its own; it was never open, and its code is in `refused_by`.
        if self.open.remove(&it.id) {
            match it.outcome {
                Outcome::Failed(code) => one_more(&mut totals.failed_by, code),
                Outcome::Cut => add(&mut totals.cut, 1),
                Outcome::Complete
                | Outcome::ClientGone
                | Outcome::UpstreamGone
                | Outcome::Idle
                | Outcome::Drained => {}
            }
        }
        totals.open = self.open.len() as u64;
    }
}

impl Violation {
    fn of(it: &Decided, code: Code) -> Self {
        Self {
            id: it.id,
            at_us: it.at_us,
            code,
            client: it.client,
            verb: it.verb.as_ref().map(|verb| match verb {
                Verb::Connect => "CONNECT".into(),
                Verb::Http(method) => method.clone(),
            }),
            target: it.target.clone(),
            path: it.path.clone(),
            rule: Box::from(&*it.rule),
            reason: it.reason.as_deref().map(Box::from),
        }
    }
}

fn add(total: &mut u64, more: u64) {
    *total = total.saturating_add(more);
}

fn one_more(by: &mut BTreeMap<Code, u64>, code: Code) {
    add(by.entry(code).or_insert(0), 1);
}

#[cfg(test)]
mod tests {
    use super::super::record::samples::{decided, ended, noted};
    use super::*;

    #[test]
    fn verdicts_codes_bytes_and_open_ones_are_counted() {
        let mut counter = Counter::new([Code::NotAllowed].into_iter().collect());
        for record in [
            decided(1, Verdict::Allow),
            decided(2, Verdict::Refuse(Code::NotAllowed)),
            decided(3, Verdict::Refuse(Code::RawIp)),
            decided(4, Verdict::WouldRefuse(Code::NotAllowed)),
            decided(5, Verdict::Allow),
            ended(2, 7, 100, Outcome::Failed(Code::NotAllowed)),
            ended(1, 10, 20, Outcome::Complete),
            ended(5, 1, 2, Outcome::Cut),
            noted(4, Code::SniMismatch),
        ] {
            counter.count(&Clean::new(record));
        }
        let totals = &counter.tally().totals;
        assert_eq!((totals.decided, totals.allowed, totals.would_refuse, totals.refused), (5, 2, 1, 2));
        assert_eq!((totals.violations, totals.noted, totals.ended, totals.open, totals.cut), (1, 1, 3, 1, 1));
        assert_eq!((totals.up, totals.down), (18, 122));
        assert_eq!(totals.refused_by, BTreeMap::from([(Code::NotAllowed, 1), (Code::RawIp, 1)]));
        assert_eq!(totals.would_refuse_by, BTreeMap::from([(Code::NotAllowed, 1)]));
        assert!(totals.failed_by.is_empty(), "a refusal's end is no failure of something allowed");
        let [violation] = counter.tally().violations.as_slice() else { panic!("one violation") };
        assert_eq!((violation.id, violation.code), (2, Code::NotAllowed));
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let mut counter = Counter::new([Code::NotAllowed].into_iter().collect());
        let many = VIOLATIONS_KEPT_MAX as u64 + 7;
        for id in 1..=many {
            counter.count(&Clean::new(decided(id, Verdict::Refuse(Code::NotAllowed))));
        }
        assert_eq!(counter.tally().violations.len(), VIOLATIONS_KEPT_MAX);
        assert_eq!(counter.tally().totals.violations, many);
    }

    #[test]
    fn bytes_do_not_wrap() {
        let mut counter = Counter::new(CodeSet::default());
        counter.count(&Clean::new(ended(1, u64::MAX, 1, Outcome::Complete)));
        counter.count(&Clean::new(ended(2, 5, 1, Outcome::Complete)));
        assert_eq!(counter.tally().totals.up, u64::MAX);
    }
}
